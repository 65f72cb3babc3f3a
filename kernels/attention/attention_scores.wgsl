// y[b, h, t, s] = scale · Σᵢ q[b, t, h, i] k[b, s, h', i] + bias[b, h, t, s], or the lowest f32 where query t does not see
// key s, or the edge to it is cut. The first of the three steps of composed attention: scores, softmax, values.
//
// q: f32[B, T, H, d]  kv: f32[B, S, Hkv, d], the keys, both strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, H, T, S]
// One invocation a score. The lowest f32, not -∞: WGSL lets a driver assume that there are no infinities.
// Dispatch: ceil(B·H·T·S / WG), folded. Needs: nothing.
// Source: Vaswani et al. 2017, Attention Is All You Need.
// @use attention
// @use kv = kv_f32
// @use edges = edges_all
override WG: u32 = 64;

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let s = i % params.S;
  let t = (i / params.S) % params.T;
  let h = (i / (params.S * params.T)) % params.H;
  let b = i / (params.S * params.T * params.H);
  if (b >= params.B) {
    return;
  }
  var score = -3.4028234e38;
  if (is_visible(b, t, s) && has_edge(b, t, s, h)) {
    let q0 = q_start(b, t, h);
    let k0 = k_start(b, s, h);
    score = 0.0;
    for (var c = 0u; c < params.d; c++) {
      score += q[q0 + c] * load_kv(k0, c);
    }
    score *= params.scale;
    if (params.has_bias != 0u) {
      score += bias[bias_place(b, t, s, h)];
    }
  }
  y[i] = score;
}
