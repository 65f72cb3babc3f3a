// y = x, four numbers at a time: measures memory bandwidth.
//
// x: f32[n]  ->  y: f32[n], n a multiple of four
// Threads access contiguous numbers, TURNS times: eight threads of a software adapter cost as much as copying some hundred
// numbers.
// Dispatch: ceil(n / (4 · TURNS · WG)), folded. Needs: nothing.
override WG: u32 = 64;
const TURNS = 16u;

struct Params {
  groups: u32, // n / 4
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * TURNS, params.groups);
  for (var i = workgroup * WG * TURNS + lane; i < end; i += WG) {
    y[i] = x[i];
  }
}
