// y = e^(x - max(x)) / Σ e^(x - max(x)), for each row.
//
// x: f32[R, S]  ->  y: f32[R, S]
// LANES threads per row, as in the slot row; they stride over it, with LOADS loads in flight. The exponentials are stored in y
// while they are summed, in runs of RUN, then the runs: one long f32 sum would lose digits. Minus infinity counts as the
// lowest finite number, so that a row of minus infinity gives a uniform distribution instead of 0 / 0. A NaN makes its whole
// row NaN, on drivers that compute with NaN.
// Dispatch: ceil(R · LANES / WG) workgroups, folded. Needs: nothing, or what the slot row needs.
// Source: torch.softmax, but for rows of minus infinity.
// @use row = row_workgroup
// @use numbers = numbers_vec4
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 4: their latencies overlap on GPUs
const RUN = 16u;
const LOWEST = -3.4028234663852886e38;

struct Params {
  rows: u32,
  S: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read_write> y: array<Numbers>;
@group(0) @binding(8) var<uniform> params: Params;

// Whether a load is within the row's n; a single one always is, by the loop.
fn is_inside(at: u32, n: u32) -> bool {
  return LOADS == 1u || at < n;
}

fn inside(at: u32, n: u32) -> u32 {
  return select(n - 1u, at, is_inside(at, n));
}

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
  let n = params.S / WIDTH;
  let start = row * n;
  let rank = rank_of(lane);

  var most = Numbers(LOWEST);
  for (var i = rank; i < n; i += LOADS * LANES) {
    for (var j = 0u; j < LOADS; j++) {
      most = max(most, x[start + inside(i + j * LANES, n)]);
    }
  }
  let largest = max_of_row(lane, max_of(most));

  var sums = Numbers();
  for (var first = rank; first < n; first += RUN * LANES) {
    var run = Numbers();
    let end = min(first + RUN * LANES, n);
    for (var i = first; i < end; i += LOADS * LANES) {
      var numbers: array<Numbers, 4>;
      for (var j = 0u; j < LOADS; j++) {
        numbers[j] = x[start + inside(i + j * LANES, n)];
      }
      for (var j = 0u; j < LOADS; j++) {
        if (is_inside(i + j * LANES, n)) {
          // Not max(), which may lose a NaN.
          let e = exp_of(select(numbers[j], Numbers(LOWEST), numbers[j] < Numbers(LOWEST)) - largest);
          y[start + i + j * LANES] = e;
          run += e;
        }
      }
    }
    sums += run;
  }
  let sum = sum_of_row(lane, sum_of(sums));

  for (var i = rank; i < n; i += LOADS * LANES) {
    var numbers: array<Numbers, 4>;
    for (var j = 0u; j < LOADS; j++) {
      numbers[j] = y[start + inside(i + j * LANES, n)] / sum;
    }
    for (var j = 0u; j < LOADS; j++) {
      if (is_inside(i + j * LANES, n)) {
        y[start + i + j * LANES] = numbers[j];
      }
    }
  }
}
