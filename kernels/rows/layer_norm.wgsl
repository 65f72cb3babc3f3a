// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, for each row, with biased variance.
//
// x: f32[R, D]  weight, bias: f32[D]  ->  y: f32[R, D]
// LANES threads per row, as in the slot row; they stride over it, with LOADS loads in flight. Two passes (the mean, then the
// squared distances from it): E[x²] - E[x]² cancels when the mean is large. The mean of the distances is the rounding error of
// the mean in the first pass, and is subtracted. Squares are accumulated in runs of RUN, then the runs are added: a massive
// one costs the digits of its run only.
// Dispatch: ceil(R · LANES / WG) workgroups, folded. Needs: nothing, or what the slot row needs.
// Source: Ba et al. 2016, Layer Normalization; torch.nn.LayerNorm.
// @use row = row_workgroup
// @use numbers = numbers_vec4
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 4: their latencies overlap on GPUs
const RUN = 16u;

struct Params {
  rows: u32,
  D: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read> weight: array<Numbers>;
@group(0) @binding(2) var<storage, read> bias: array<Numbers>;
@group(0) @binding(3) var<storage, read_write> y: array<Numbers>;
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
  let n = params.D / WIDTH;
  let start = row * n;
  let rank = rank_of(lane);

  var sums = Numbers();
  for (var i = rank; i < n; i += LOADS * LANES) {
    for (var j = 0u; j < LOADS; j++) {
      let at = i + j * LANES;
      sums += select(Numbers(), x[start + inside(at, n)], is_inside(at, n));
    }
  }
  let mean = sum_of_row(lane, sum_of(sums)) / f32(params.D);

  var distances = Numbers();
  var squares = Numbers();
  for (var first = rank; first < n; first += RUN * LANES) {
    var run = Numbers();
    let end = min(first + RUN * LANES, n);
    for (var i = first; i < end; i += LOADS * LANES) {
      for (var j = 0u; j < LOADS; j++) {
        let at = i + j * LANES;
        let distance = select(Numbers(), x[start + inside(at, n)] - mean, is_inside(at, n));
        distances += distance;
        run += distance * distance;
      }
    }
    squares += run;
  }
  let means = sums_of_row(lane, vec2<f32>(sum_of(distances), sum_of(squares))) / f32(params.D);
  let missed = means.x;
  let variance = means.y - missed * missed;
  let scale = 1.0 / sqrt(select(variance, 0.0, variance < 0.0) + params.eps); // not max(), which may lose a NaN

  for (var i = rank; i < n; i += LOADS * LANES) {
    var numbers: array<Numbers, 4>;
    for (var j = 0u; j < LOADS; j++) {
      let at = inside(i + j * LANES, n);
      numbers[j] = ((x[start + at] - mean) - missed) * scale * weight[at] + bias[at];
    }
    for (var j = 0u; j < LOADS; j++) {
      if (is_inside(i + j * LANES, n)) {
        y[start + i + j * LANES] = numbers[j];
      }
    }
  }
}
