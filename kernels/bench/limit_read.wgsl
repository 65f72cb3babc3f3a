// y = the sum of TURNS numbers of x, four at a time: measures the bandwidth of reading, as in a matrix-vector product.
//
// x: f32[n], n = 4 · TURNS · WG · workgroups  ->  y: f32[n / TURNS]
// Contiguous reads: in each iteration a workgroup reads WG · 16 contiguous bytes.
// Dispatch: n / (4 · TURNS · WG), folded. Needs: nothing.
override WG: u32 = 64;
const TURNS = 64u;

struct Params {
  groups: u32, // n / (4 · TURNS)
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
  let i = workgroup * WG + lane;
  if (i >= params.groups) {
    return;
  }
  var sum = vec4(0.0);
  for (var turn = 0u; turn < TURNS; turn++) {
    sum += x[(workgroup * TURNS + turn) * WG + lane];
  }
  y[i] = sum;
}
