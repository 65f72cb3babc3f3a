// y = x - max(x) - ln Σ e^(x - max(x)), for each row.
//
// x: f32[R, V], also compared as bits  ->  y: f32[R, V], as bits
// One workgroup per row; its threads stride over V. Minus infinity stays minus infinity. A row with a NaN or plus infinity, or
// of minus infinity only, becomes NaN. These are detected by their bits, equally on every driver.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with reduce_subgroups.
// Source: torch.log_softmax.
// @use math
// @use reduce = reduce_tree
// @use log_sum_exp
override WG: u32 = 64;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.V;
  let of_row = log_sum_exp(start, params.V, lane);

  for (var i = lane; i < params.V; i += WG) {
    let bits = x[start + i];
    let value = bitcast<u32>((bitcast<f32>(bits) - of_row.largest) - of_row.log_sum);
    y[start + i] = select(NAN, select(value, MINUS_INFINITY, bits == MINUS_INFINITY), of_row.finite);
  }
}
