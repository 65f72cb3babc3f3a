// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, each row by itself, variance biased.
//
// x: f32[R, D]  weight, bias: f32[D]  ->  y: f32[R, D], D a multiple of 4
// One invocation a row, four numbers at a time: for software drivers, which run barriers at a loss (layer_norm.wgsl needs
// 4 times as long there) and take seconds to compile them.
// Of the mean, and of sums by runs: layer_norm.wgsl.
// Dispatch: ceil(R / WG), folded. Needs: nothing.
override WG: u32 = 8;
const RUN = 16u;

struct Params {
  rows: u32,
  D4: u32, // D / 4
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

// Mean of the numbers that sums adds up, four columns of them.
fn mean_of(sums: vec4<f32>) -> f32 {
  return (sums.x + sums.y + sums.z + sums.w) / f32(params.D4 * 4u);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * WG + lane;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.D4;

  var sums = vec4<f32>(0.0);
  for (var i = 0u; i < params.D4; i++) {
    sums += x[start + i];
  }
  let mean = mean_of(sums);

  var distances = vec4<f32>(0.0);
  var squares = vec4<f32>(0.0);
  for (var first = 0u; first < params.D4; first += RUN) {
    var run = vec4<f32>(0.0);
    let end = min(first + RUN, params.D4);
    for (var i = first; i < end; i++) {
      let distance = x[start + i] - mean;
      distances += distance;
      run += distance * distance;
    }
    squares += run;
  }
  let missed = mean_of(distances);
  let variance = mean_of(squares) - missed * missed;
  let scale = 1.0 / sqrt(select(variance, 0.0, variance < 0.0) + params.eps);

  for (var i = 0u; i < params.D4; i++) {
    y[start + i] = ((x[start + i] - mean) - missed) * scale * weight[i] + bias[i];
  }
}
