// y[h, t, s] = table[P - 1 + s - (past + t), h]: the relative position bias of the distance from query past + t to key s, for
// every head. A distance beyond the table counts as its last.
//
// table: f32[2P - 1, H], by distance from -(P - 1) to P - 1  past: u32[1]  ->  y: f32[H, T, S]
// One invocation an element. The queries' position is read from a buffer, so that the launch is the same at every step.
// Dispatch: ceil(H·T·S / WG), folded. Needs: nothing.
// Source: Raffel et al. 2020, section 2.1; transformers' T5Attention.compute_bias.
override WG: u32 = 64;

struct Params {
  size: u32, // H·T·S
  H: u32,
  T: u32,
  S: u32,
  P: u32,
}

@group(0) @binding(0) var<storage, read> table: array<f32>;
@group(0) @binding(1) var<storage, read> past: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let s = i % params.S;
  let row = i / params.S;
  let t = row % params.T;
  let h = row / params.T;
  let furthest = i32(params.P) - 1;
  let distance = clamp(i32(s) - i32(past[0] + t), -furthest, furthest);
  y[i] = table[u32(distance + furthest) * params.H + h];
}
