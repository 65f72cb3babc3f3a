// y = activate(x Wᵀ + bias) for one or two rows of x, on software drivers with subgroups.
//
// x: f32[M, K], M at most 2  weight: [N, K] in f32, f16 or bf16, rows padded to groups of four  bias: f32[N]  ->  y: f32[M, N]
// A workgroup is one subgroup of SG lanes. It computes TN columns of y for all M rows: its lanes stride over K, then add up.
// Dispatch: ceil(N / TN), folded. Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use matmul
override SG: u32 = 8;
override TM: u32 = 2; // M as a constant, at most 2
const TN = 4u;

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let column0 = TN * (group.x + group.y * groups.x);
  let K4 = groups_of_four();

  var sums: array<array<f32, TN>, 2>;
  for (var k = lane; k < K4; k += SG) {
    var a: array<vec4<f32>, 2>;
    for (var m = 0u; m < TM; m++) {
      a[m] = load_input(m, k);
    }
    for (var n = 0u; n < TN; n++) {
      let w = load_weight(min(column0 + n, params.N - 1u) * K4 + k);
      for (var m = 0u; m < TM; m++) {
        sums[m][n] += dot(a[m], w);
      }
    }
  }

  for (var m = 0u; m < TM; m++) {
    for (var n = 0u; n < TN; n++) {
      let sum = subgroupAdd(sums[m][n]);
      if (lane == 0u) {
        store(m, column0 + n, sum + bias_of(column0 + n));
      }
    }
  }
}
