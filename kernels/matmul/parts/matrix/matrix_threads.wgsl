// Emulates matrix_subgroup and matrix_subgroup_f16 without matrix instructions, for tests on adapters that lack them; too slow for
// use. A matrix of x or W is the index in shared memory where it begins; the sums are distributed over the subgroup's threads.
// Contract: matrix_subgroup.
// @use staged = staged_f32
alias Left = u32;
alias Right = u32;
// Sums rank, rank + size, … of f32[M_SIDE, N_SIDE], by the thread's rank and the subgroup's size, which is at least four.
alias Sum = array<f32, M_SIDE * N_SIDE / 4u>;

fn load_left(at: u32) -> Left {
  return at;
}

fn load_right(at: u32) -> Right {
  return at;
}

fn multiply_add(a: Left, b: Right, sum: Sum) -> Sum {
  let size = subgroupAdd(1u);
  var y = sum;
  for (var i = subgroupExclusiveAdd(1u); i < M_SIDE * N_SIDE; i += size) {
    let row = a + i / N_SIDE * STRIDE;
    let column = b + i % N_SIDE * STRIDE;
    var products = 0.0;
    for (var k = 0u; k < K_SIDE; k++) {
      products += f32(x_tile[row + k]) * f32(weight_tile[column + k]);
    }
    y[i / size] += products;
  }
  return y;
}

fn store_sum(at: u32, sum: Sum) {
  let size = subgroupAdd(1u);
  for (var i = subgroupExclusiveAdd(1u); i < M_SIDE * N_SIDE; i += size) {
    set_sum(at + i / N_SIDE * WIDE + i % N_SIDE, sum[i / size]);
  }
}
