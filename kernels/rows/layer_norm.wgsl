// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, each row by itself, variance biased.
//
// x: f32[R, D]  weight, bias: f32[D]  ->  y: f32[R, D]
// One workgroup a row; its threads stride over D. Two passes over the row (the mean, then the squared distances from it):
// E[x²] - E[x]² loses everything when the mean is large. The mean of the distances is what the first pass missed the mean by:
// where that is large, its digits do not reach down to it.
// Squares are added up by runs of RUN, then the runs: a massive one takes the digits of its run only.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with threads_subgroups.
// Source: Ba et al. 2016, Layer Normalization; torch.nn.LayerNorm.
// @use threads = threads_tree
override WG: u32 = 64;
const RUN = 8u;

struct Params {
  rows: u32,
  D: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
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
  let start = row * params.D;

  var sum = 0.0;
  for (var i = lane; i < params.D; i += WG) {
    sum += x[start + i];
  }
  let mean = sum_over_threads(lane, sum) / f32(params.D);

  var sums = vec2<f32>(); // of distances, of their squares
  for (var first = lane; first < params.D; first += RUN * WG) {
    var run = vec2<f32>();
    for (var i = first; i < min(first + RUN * WG, params.D); i += WG) {
      let distance = x[start + i] - mean;
      run += vec2<f32>(distance, distance * distance);
    }
    sums += run;
  }
  let means = sums_over_threads(lane, sums) / f32(params.D);
  let missed = means.x;
  let variance = means.y - missed * missed;
  let scale = 1.0 / sqrt(select(variance, 0.0, variance < 0.0) + params.eps); // not max(), which may lose a NaN

  for (var i = lane; i < params.D; i += WG) {
    y[start + i] = ((x[start + i] - mean) - missed) * scale * weight[i] + bias[i];
  }
}
