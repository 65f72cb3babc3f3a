// y = activate(Σₚ x[p] + bias): the second step of split-K. Adds the partial sums that matmul_tile computed, one for each split
// of K, and applies the epilogue.
//
// x: f32[SPLITS, M, FACTORS, N]  weight: bound, not read  bias: f32[N]  ->  y: f32[M, N]
// One invocation an element of y. It loads all its partial sums before it adds them, so that their latencies overlap.
// Dispatch: ceil(M·N / WG), folded. Needs: nothing.
// @use matmul
override WG: u32 = 64;
override SPLITS: u32 = 2; // at most 8

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<u32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let row = i / params.N;
  let column = i % params.N;
  if (row >= params.M) {
    return;
  }
  var partials: array<vec2<f32>, 8>; // partial sums of the first factor and of the last
  for (var p = 0u; p < SPLITS; p++) {
    let at = (p * params.M + row) * FACTORS;
    partials[p] = vec2<f32>(x[at * params.N + column], x[(at + FACTORS - 1u) * params.N + column]);
  }
  var sum = vec2<f32>();
  for (var p = 0u; p < SPLITS; p++) {
    sum += partials[p];
  }
  let biases = vec2<f32>(bias_of(column, 0u), bias_of(column, FACTORS - 1u));
  store(row, column, sum.x + biases.x, sum.y + biases.y);
}
