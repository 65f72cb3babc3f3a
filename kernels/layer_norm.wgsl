// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, each row by itself, variance biased.
//
// x: f32[R, D]  weight, bias: f32[D]  ->  y: f32[R, D]
// One workgroup a row; its threads stride over D. Two passes over the row (the mean, then the squared distances from it):
// E[x²] - E[x]² loses everything when the mean is large.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with threads_subgroups.
// Source: Ba et al. 2016, Layer Normalization; torch.nn.LayerNorm.
// @use threads = threads_tree
override WG: u32 = 64;

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

  var squares = 0.0;
  for (var i = lane; i < params.D; i += WG) {
    let distance = x[start + i] - mean;
    squares += distance * distance;
  }
  let variance = sum_over_threads(lane, squares) / f32(params.D);
  let scale = 1.0 / sqrt(variance + params.eps);

  for (var i = lane; i < params.D; i += WG) {
    y[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
  }
}
