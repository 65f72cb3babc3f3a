// Reduces each thread's four sums of every row of y over the workgroup, as a tree in shared memory, and stores them. With part
// matmul; WG is a power of two, at least 4·TM; all threads call it.
// @slot column_sums: store_columns(column0: u32, lane: u32, sums: ptr<function, array<vec4<f32>, 8>>)
var<workgroup> partial_sums: array<vec4<f32>, WG * TM>;

fn store_columns(column0: u32, lane: u32, sums: ptr<function, array<vec4<f32>, 8>>) {
  for (var m = 0u; m < TM; m++) {
    partial_sums[m * WG + lane] = (*sums)[m];
  }
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      for (var m = 0u; m < params.M; m++) {
        partial_sums[m * WG + lane] += partial_sums[m * WG + lane + half];
      }
    }
    workgroupBarrier();
  }
  let columns = 4u / FACTORS;
  if (lane < columns * TM) {
    let column = column0 + lane % columns;
    let at = lane / columns * WG;
    let first = lane % columns * FACTORS;
    let last = first + FACTORS - 1u;
    let sum = partial_sums[at];
    store(lane / columns, column, sum[first] + bias_of(column, 0u), sum[last] + bias_of(column, FACTORS - 1u));
  }
}
