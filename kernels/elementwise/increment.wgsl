// x += by, in place: advances counters on the GPU from step to step, without the host.
//
// x: u32[n]
// One invocation an element.
// Dispatch: ceil(n / WG), folded. Needs: nothing.
override WG: u32 = 64;

struct Params {
  size: u32, // n
  by: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<u32>;
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
  x[i] += params.by;
}
