// y = x / sqrt(mean(x²) + eps) * weight, each row by itself.
//
// x: f32[R, D]  weight: f32[D]  ->  y: f32[R, D]
// One workgroup a row; its threads stride over D. Squares are added up by runs of RUN, then the runs: a massive one
// takes the digits of its run only.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with threads_subgroups.
// Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization; transformers' LlamaRMSNorm and T5LayerNorm.
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
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
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

  var squares = 0.0;
  for (var first = lane; first < params.D; first += RUN * WG) {
    var run = 0.0;
    for (var i = first; i < min(first + RUN * WG, params.D); i += WG) {
      run += x[start + i] * x[start + i];
    }
    squares += run;
  }
  let scale = 1.0 / sqrt(sum_over_threads(lane, squares) / f32(params.D) + params.eps);

  for (var i = lane; i < params.D; i += WG) {
    y[start + i] = x[start + i] * scale * weight[i];
  }
}
