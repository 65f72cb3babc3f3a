// y = e^(x - max(x)) / Σ e^(x - max(x)), each row by itself.
//
// x: f32[R, S]  ->  y: f32[R, S]
// One invocation a row: for software drivers, which run barriers at a loss (softmax.wgsl needs 5 times as long there).
// Exponentials are added up by runs of RUN, then the runs: one long f32 sum would lose digits that count.
// Infinities and NaN as in softmax.wgsl.
// Dispatch: ceil(R / WG), folded. Needs: nothing.
// @use math
override WG: u32 = 8;
const RUN = 16u;

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
  let row = (group.x + group.y * groups.x) * WG + lane;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.S;

  var largest = LOWEST;
  for (var i = 0u; i < params.S; i++) {
    largest = max(largest, x[start + i]);
  }

  var sum = 0.0;
  for (var first = 0u; first < params.S; first += RUN) {
    var run = 0.0;
    let end = min(first + RUN, params.S);
    for (var i = first; i < end; i++) {
      let value = x[start + i];
      let e = exp_accurate(select(value, LOWEST, value < LOWEST) - largest);
      y[start + i] = e;
      run += e;
    }
    sum += run;
  }

  for (var i = 0u; i < params.S; i++) {
    y[start + i] = y[start + i] / sum;
  }
}
