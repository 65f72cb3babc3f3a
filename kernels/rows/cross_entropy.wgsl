// y = ln Σ e^(x - max(x)) - (x[label] - max(x)), for each row: cross-entropy, the negative log probability of its label.
//
// x: f32[R, V], compared as bits; labels: u32[R]  ->  y: f32[R], as bits
// One workgroup per row; its threads stride over V. A row whose label is IGNORED gives 0 and is not read. The loss of a label
// at minus infinity is infinity. NaN for a label of V or above, and for a row with a NaN or plus infinity, or of nothing but
// minus infinity.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with reduce_subgroups.
// Source: torch.nn.functional.cross_entropy with reduction "none" and ignore_index -100.
// @use math
// @use reduce = reduce_tree
// @use log_sum_exp
override WG: u32 = 64;

const IGNORED = 0xffffff9cu; // -100 as a u32
const INFINITY = 0x7f800000u;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
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
  let label = labels[row];
  if (label == IGNORED) {
    if (lane == 0u) {
      y[row] = 0u;
    }
    return;
  }
  let start = row * params.V;
  let of_row = log_sum_exp(start, params.V, lane);
  if (lane == 0u) {
    let bits = x[start + min(label, params.V - 1u)];
    let value = bitcast<u32>(of_row.log_sum - (bitcast<f32>(bits) - of_row.largest));
    y[row] = select(NAN, select(value, INFINITY, bits == MINUS_INFINITY), of_row.finite && label < params.V);
  }
}
