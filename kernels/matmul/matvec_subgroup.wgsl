// y = activate(x Wᵀ + bias) for one or two rows of x, on software adapters with subgroups.
//
// x: f32[M, K], M at most 2  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup is one subgroup of SG lanes. It computes TN sums (TN / FACTORS columns of y) for all M rows: its lanes stride over
// K by blocks, and their sums are reduced.
// Dispatch: ceil(FACTORS·N / TN), folded. Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
override SG: u32 = 8;
override TM: u32 = 2; // M, at most 2
const TN = select(4u, 8u, BLOCK > 1u); // of f32, eight rows at once are no faster

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let column0 = TN / FACTORS * (workgroup_id.x + workgroup_id.y * num_workgroups.x);
  let K4 = groups_of_four();

  var sums: array<array<f32, TN>, 2>;
  let words = (K4 + WORD - 1u) / WORD;
  for (var block = lane; block * BLOCK < words; block += SG) {
    var dot_codes = array<array<f32, TN>, 2>();
    var sum_x = vec2<f32>();
    // Mesa unrolls a loop of constant count: good for one word; eight cost more in code than they save.
    let count = select(1u, min(BLOCK, words - block * BLOCK), BLOCK > 1u);
    for (var i = 0u; i < count; i++) {
      let word = block * BLOCK + i;
      var a: array<array<vec4<f32>, WORD>, 2>;
      for (var m = 0u; m < TM; m++) {
        for (var j = 0u; j < WORD; j++) {
          a[m][j] = load_input(m, word * WORD + j);
          sum_x[m] += dot(a[m][j], vec4<f32>(1.0));
        }
      }
      for (var n = 0u; n < TN; n++) {
        let codes = unpack(load_packed(row_of(column0 + n / FACTORS, n % FACTORS), word, K4));
        for (var m = 0u; m < TM; m++) {
          for (var j = 0u; j < WORD; j++) {
            dot_codes[m][n] += dot(a[m][j], codes[j]);
          }
        }
      }
    }
    for (var n = 0u; n < TN; n++) {
      for (var m = 0u; m < TM; m++) {
        sums[m][n] += scale_dot(row_of(column0 + n / FACTORS, n % FACTORS), block, K4, dot_codes[m][n], sum_x[m]);
      }
    }
  }

  for (var m = 0u; m < TM; m++) {
    for (var n = 0u; n < TN; n++) {
      sums[m][n] = subgroupAdd(sums[m][n]) + bias_of(column0 + n / FACTORS, n % FACTORS);
    }
    if (lane == 0u) {
      for (var n = 0u; n < TN; n += FACTORS) {
        store(m, column0 + n / FACTORS, sums[m][n], sums[m][n + FACTORS - 1u]);
      }
    }
  }
}
