// y = x / sqrt(mean(x²) + eps) * weight, each row by itself.
//
// x: f32[R, D]  weight: f32[D]  ->  y: f32[R, D], D a multiple of 4
// One invocation a row, four numbers at a time: for software drivers, as layer_norm_invocation.wgsl. Squares are added up by
// runs of RUN groups, then RUN runs, then these: see rms_norm.wgsl.
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
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

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

  var squares = vec4<f32>(0.0);
  for (var k = 0u; k < params.D4; k += RUN * RUN) {
    var runs = vec4<f32>(0.0);
    for (var first = k; first < min(k + RUN * RUN, params.D4); first += RUN) {
      var run = vec4<f32>(0.0);
      let end = min(first + RUN, params.D4);
      for (var i = first; i < end; i++) {
        run += x[start + i] * x[start + i];
      }
      runs += run;
    }
    squares += runs;
  }
  let mean = (squares.x + squares.y + squares.z + squares.w) / f32(params.D4 * 4u);
  let scale = 1.0 / sqrt(mean + params.eps);

  for (var i = 0u; i < params.D4; i++) {
    y[start + i] = x[start + i] * scale * weight[i];
  }
}
