// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] over the keys that query t sees, in one
// pass over the keys, for GPUs. A query that sees no key gets zeros.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, d]
// FlashAttention: a workgroup takes WG / 4 queries of one head and walks over the keys in tiles; see parts/flash.wgsl.
// Dispatch: B · H · ceil(T / (WG / 4)), folded. Needs: WG·(16·ceil(d / 16) + 136) + 512 bytes of shared memory, d at most 256.
// Source: Milakov and Gimelshein 2018, Online normalizer calculation for softmax; Dao et al. 2022, FlashAttention.
// @use attention
// @use heads = heads_vec4
// @use math
// @use flash

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  attend(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
