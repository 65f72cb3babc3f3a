// y[i] = x[rows[i]]: picks rows in any order. Bits are moved.
//
// x: u32[R, D]  rows: u32[n]  ->  y: u32[n, D]
// One invocation an element. A row beyond R comes out as zeros.
// Dispatch: ceil(n·D / WG), folded. Needs: nothing.
// Source: torch.index_select along dimension 0.
override WG: u32 = 64;

struct Params {
  size: u32, // n·D
  D: u32,
  R: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
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
  let row = rows[i / params.D];
  if (row < params.R) {
    y[i] = x[row * params.D + i % params.D];
  } else {
    y[i] = 0u;
  }
}
