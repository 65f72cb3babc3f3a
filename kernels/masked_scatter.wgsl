// y[l] = features[source[l] - 1] where source[l] > 0, else x[l]: puts image features in the places kept for them. Bits are
// moved.
//
// x: u32[R, D]  features: u32[n, D]  source: u32[R]  ->  y: u32[R, D]
// One invocation an element. A source beyond n leaves x.
// Dispatch: ceil(R·D / WG), folded. Needs: nothing.
// Source: torch.Tensor.masked_scatter with the running count of the mask made on the host.
override WG: u32 = 64;

struct Params {
  size: u32, // R·D
  D: u32,
  n: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> features: array<u32>;
@group(0) @binding(2) var<storage, read> source: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let chosen = source[i / params.D];
  if (chosen > 0u && chosen <= params.n) {
    y[i] = features[(chosen - 1u) * params.D + i % params.D];
  } else {
    y[i] = x[i];
  }
}
