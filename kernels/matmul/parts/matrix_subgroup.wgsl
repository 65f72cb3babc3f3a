// Matrices of 8 x 8 f32, each held by a subgroup as a whole and multiplied by its own instructions; for matmul_subgroup_matrix.
// All threads of a subgroup call these. A matrix begins at a place in shared memory: of x's tile, of W's, or of sums in W's.
// @slot matrix: Left, Right, Sum, load_left(at: u32) -> Left, load_right(at: u32) -> Right
// @slot matrix: multiply_add(a: Left, b: Right, sum: Sum) -> Sum, store_sum(at: u32, sum: Sum)
enable chromium_experimental_subgroup_matrix;

alias Left = subgroup_matrix_left<f32, 8, 8>;
alias Right = subgroup_matrix_right<f32, 8, 8>;
alias Sum = subgroup_matrix_result<f32, 8, 8>;

fn load_left(at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&x_tile, at, STRIDE);
}

// A row of W is a column of Wᵀ.
fn load_right(at: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weight_tile, at, STRIDE);
}

fn multiply_add(a: Left, b: Right, sum: Sum) -> Sum {
  return subgroupMatrixMultiplyAccumulate(a, b, sum);
}

fn store_sum(at: u32, sum: Sum) {
  subgroupMatrixStore<row_major>(&weight_tile, at, sum, PART);
}
