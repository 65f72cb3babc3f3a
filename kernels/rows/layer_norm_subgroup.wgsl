// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, each row by itself, variance biased.
//
// x: f32[R, D]  weight, bias: f32[D]  ->  y: f32[R, D], D a multiple of 4
// A workgroup is one subgroup of SG lanes, which stride over a row, four numbers at a time: for software drivers, which run
// barriers at a loss (layer_norm.wgsl needs 4 times as long there) and take seconds to compile them.
// Of the mean, and of sums by runs: layer_norm.wgsl.
// Dispatch: R workgroups, folded. Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use lanes
override SG: u32 = 8;
const RUN = 8u;

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

// Mean over the row, of which each lane has four sums.
fn mean_of(sums: vec4<f32>) -> f32 {
  return sum_over_lanes(sums.x + sums.y + sums.z + sums.w) / f32(params.D4 * 4u);
}

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let D4 = params.D4;
  let start = row * D4;

  var sums = vec4<f32>();
  for (var i = lane; i < D4; i += SG) {
    sums += x[start + i];
  }
  let mean = mean_of(sums);

  var distances = vec4<f32>();
  var squares = vec4<f32>();
  for (var first = lane; first < D4; first += RUN * SG) {
    var run = vec4<f32>();
    let end = min(first + RUN * SG, D4);
    for (var i = first; i < end; i += SG) {
      let distance = x[start + i] - mean;
      distances += distance;
      run += distance * distance;
    }
    squares += run;
  }
  let missed = mean_of(distances);
  let variance = mean_of(squares) - missed * missed;
  let scale = 1.0 / sqrt(select(variance, 0.0, variance < 0.0) + params.eps);

  for (var i = lane; i < D4; i += SG) {
    y[start + i] = ((x[start + i] - mean) - missed) * scale * weight[i] + bias[i];
  }
}
