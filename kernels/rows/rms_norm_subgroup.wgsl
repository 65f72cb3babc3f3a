// y = x / sqrt(mean(x²) + eps) * weight, each row by itself.
//
// x: f32[R, D]  weight: f32[D]  ->  y: f32[R, D], D a multiple of 4
// A workgroup is one subgroup of SG lanes, which stride over a row, four numbers at a time: for software drivers, as
// layer_norm_subgroup.wgsl. Of sums by runs: rms_norm.wgsl.
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
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

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

  var squares = vec4<f32>();
  for (var first = lane; first < D4; first += RUN * SG) {
    var run = vec4<f32>();
    let end = min(first + RUN * SG, D4);
    for (var i = first; i < end; i += SG) {
      let numbers = x[start + i];
      run += numbers * numbers;
    }
    squares += run;
  }
  let mean = sum_over_lanes(squares.x + squares.y + squares.z + squares.w) / f32(D4 * 4u);
  let scale = 1.0 / sqrt(mean + params.eps);

  for (var i = lane; i < D4; i += SG) {
    y[start + i] = x[start + i] * scale * weight[i];
  }
}
