// matrix_subgroup and matrix_subgroup_f16 emulated without their instructions: a matrix of x or W is the place in shared memory
// where it begins, and every thread of a subgroup has some of the sums. The reference, with which the kernel is tested on adapters
// that lack the instructions; far too slow for more.
// @use staged = staged_f32
alias Left = u32;
alias Right = u32;
alias Sum = array<f32, M_SIDE * N_SIDE / 4u>; // every size-th of f32[row, column], from the thread's rank on; subgroups have four threads at least

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
