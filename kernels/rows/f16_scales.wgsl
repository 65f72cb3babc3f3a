// y = the power of two that brings the largest magnitude of a row into [16, 32): what x is multiplied by before it is rounded to
// f16, so that no number leaves f16's range and those that count keep all its digits.
//
// x: f32[R, D]  ->  y: f32[R]
// LANES threads a row, as the part row says; they stride over it, LOADS loads ahead of what is done with them.
// A row with a NaN or an infinity gets some power of two: these stay what they are when they are scaled and rounded.
// Dispatch: ceil(R · LANES / WG) workgroups, folded. Needs: nothing, or what the part row does.
// @use row = row_workgroup
// @use numbers = numbers_vec4
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 4: GPUs wait for all of them at once
const BIAS = 127u; // of f32's exponent
const TOP = 4u; // 2^4 is the least that the largest comes to

struct Params {
  rows: u32,
  D: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = row_of(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
  if (row >= params.rows) {
    return;
  }
  let n = params.D / WIDTH;
  let start = row * n;
  let rank = rank_of(lane);

  var most = Numbers();
  for (var i = rank; i < n; i += LOADS * LANES) {
    for (var j = 0u; j < LOADS; j++) {
      most = max(most, abs(x[start + min(i + j * LANES, n - 1u)])); // behind the end the last once more
    }
  }
  let exponent = bitcast<u32>(max_of_row(lane, max_of(most))) >> 23u;
  if (rank == 0u) {
    // At most 2^126: that of smaller numbers could not be undone.
    y[row] = bitcast<f32>(min(2u * BIAS + TOP - exponent, 2u * BIAS - 1u) << 23u);
  }
}
