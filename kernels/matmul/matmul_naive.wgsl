// y[m, n] = activate(Σₖ x[m, k] W[n, k] + bias[n]), as torch.nn.Linear. This is the explanation; the other matmul_* and
// matvec_* kernels compute the same, each for another kind of hardware.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// One invocation an element of y.
// Dispatch: ceil(M·N / WG), folded. Needs: nothing.
// @use matmul
override WG: u32 = 64;

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
  let K4 = groups_of_four();
  let input = input_of(row);
  var sums: array<f32, 2>;
  for (var factor = 0u; factor < FACTORS; factor++) {
    for (var k0 = 0u; k0 < K4; k0 += RUN) {
      var run = 0.0;
      for (var k = k0; k < min(k0 + RUN, K4); k++) {
        run += dot(load_input(input, k), load_weight(row_of(column, factor), k, K4));
      }
      sums[factor] += run;
    }
    sums[factor] += bias_of(column, factor);
  }
  store(row, column, sums[0], sums[FACTORS - 1u]);
}
