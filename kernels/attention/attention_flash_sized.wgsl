// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] as attention_flash, in subgroups of SG
// threads, for the reason in matmul_tile_sized.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, d]
// Dispatch: as attention_flash. Needs: as attention_flash; subgroups of SG threads, and WG a multiple of SG.
enable subgroups;
enable subgroup_size_control;
// @use attention
// @use heads = heads_vec4
// @use math
// @use flash
override SG: u32 = 32;

@compute @subgroup_size(SG) @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  attend(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
