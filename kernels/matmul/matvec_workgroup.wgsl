// y = activate(x Wᵀ + bias) for the few rows of x of decoding, on GPUs: bound by the bandwidth of reading W once.
//
// x: f32[M, K], M at most 8  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup computes four sums (4 / FACTORS columns of y) for all M rows: its threads stride over K, and their sums are reduced.
// Dispatch: ceil(FACTORS·N / 4), folded. Needs: 16·WG·TM bytes of shared memory, 4·WG more with norm_rms; subgroups of any size
// with column_sums_subgroups.
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use column_sums = column_sums_tree
// @use norm = norm_none
override WG: u32 = 256; // a power of two
override TM: u32 = 1; // M, at most 8; by default limits at most 1024 / WG, less with norm_rms

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let column0 = 4u / FACTORS * (workgroup_id.x + workgroup_id.y * num_workgroups.x);
  if (column0 >= params.N) {
    return;
  }
  let K4 = groups_of_four();
  // Four rows of W. Beyond the last they are the last, and their sums are not stored.
  let rows = vec4<u32>(
    row_of(column0, 0u),
    row_of(column0 + 1u / FACTORS, 1u % FACTORS),
    row_of(column0 + 2u / FACTORS, 0u),
    row_of(column0 + 3u / FACTORS, 1u % FACTORS),
  );

  var sums: array<vec4<f32>, 8>;
  var squares: array<f32, 8>;
  let words = (K4 + WORD - 1u) / WORD;
  for (var word = lane; word < words; word += WG) {
    let w0 = unpack(load_packed(rows.x, word, K4));
    let w1 = unpack(load_packed(rows.y, word, K4));
    let w2 = unpack(load_packed(rows.z, word, K4));
    let w3 = unpack(load_packed(rows.w, word, K4));
    var gains: array<vec4<f32>, WORD>;
    for (var j = 0u; j < WORD; j++) {
      gains[j] = gain_of(word * WORD + j);
    }
    for (var m = 0u; m < TM; m++) {
      var dot_codes = vec4<f32>();
      var sum_x = 0.0;
      for (var j = 0u; j < WORD; j++) {
        var a = load_input(m, word * WORD + j);
        if (IS_NORMED) {
          squares[m] += dot(a, a);
          a *= gains[j];
        }
        dot_codes += vec4<f32>(dot(a, w0[j]), dot(a, w1[j]), dot(a, w2[j]), dot(a, w3[j]));
        sum_x += dot(a, vec4<f32>(1.0));
      }
      sums[m] += vec4<f32>(
        scale_dot(rows.x, word / BLOCK, K4, dot_codes.x, sum_x),
        scale_dot(rows.y, word / BLOCK, K4, dot_codes.y, sum_x),
        scale_dot(rows.z, word / BLOCK, K4, dot_codes.z, sum_x),
        scale_dot(rows.w, word / BLOCK, K4, dot_codes.w, sum_x),
      );
    }
  }

  if (IS_NORMED) {
    for (var m = 0u; m < TM; m++) {
      sums[m] *= norm_of(lane, squares[m]);
    }
  }
  store_columns(column0, lane, &sums);
}
