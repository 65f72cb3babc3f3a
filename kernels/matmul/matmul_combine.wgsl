// y = activate(Σₚ x[p] + bias): adds up a product whose K was split among workgroups (parts/tile.wgsl), with the epilogue.
//
// x: f32[SPLITS, M, FACTORS, N]  bias: f32[N]  ->  y: f32[M, N]  weight: bound, as a product's, and not read
// One invocation an element of y, whose parts it loads at once.
// Dispatch: ceil(M·N / WG), folded. Needs: nothing.
// @use matmul
override WG: u32 = 64;
override SPLITS: u32 = 2; // at most 8

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<u32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WG + lane;
  let row = i / params.N;
  let column = i % params.N;
  if (row >= params.M) {
    return;
  }
  var parts: array<vec2<f32>, 8>; // of the first factor and of the last
  for (var p = 0u; p < SPLITS; p++) {
    let at = (p * params.M + row) * FACTORS;
    parts[p] = vec2<f32>(x[at * params.N + column], x[(at + FACTORS - 1u) * params.N + column]);
  }
  var sum = vec2<f32>();
  for (var p = 0u; p < SPLITS; p++) {
    sum += parts[p];
  }
  let biases = vec2<f32>(bias_of(column, 0u), bias_of(column, FACTORS - 1u));
  store(row, column, sum.x + biases.x, sum.y + biases.y);
}
