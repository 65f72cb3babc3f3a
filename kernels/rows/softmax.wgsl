// y = e^(x - max(x)) / Σ e^(x - max(x)), each row by itself.
//
// x: f32[R, S]  ->  y: f32[R, S]
// One workgroup a row; its threads stride over S. The exponentials wait in y while their sum is made.
// Minus infinity counts as the lowest finite number, so that a row of nothing else comes out uniform rather than 0 / 0.
// A NaN makes its whole row NaN, on drivers that compute with NaN.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with threads_subgroups.
// Source: torch.softmax, but for rows of minus infinity.
// @use math
// @use threads = threads_tree
override WG: u32 = 64;

const LOWEST = -3.4028234663852886e38;

struct Params {
  rows: u32,
  S: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.S;

  var largest = LOWEST;
  for (var i = lane; i < params.S; i += WG) {
    largest = max(largest, x[start + i]);
  }
  largest = max_over_threads(lane, largest);

  var sum = 0.0;
  for (var i = lane; i < params.S; i += WG) {
    let value = x[start + i];
    let e = exp_accurate(select(value, LOWEST, value < LOWEST) - largest); // not max(): that may lose a NaN
    y[start + i] = e;
    sum += e;
  }
  sum = sum_over_threads(lane, sum);

  for (var i = lane; i < params.S; i += WG) {
    y[start + i] = y[start + i] / sum;
  }
}
