// Subgroup matrices of f16 with f32 sums, of the shape that the slot sides defines. Contract: matrix_subgroup.
// @use staged_f16
enable chromium_experimental_subgroup_matrix;

alias Left = subgroup_matrix_left<f16, K_SIDE, M_SIDE>;
alias Right = subgroup_matrix_right<f16, N_SIDE, K_SIDE>;
alias Sum = subgroup_matrix_result<f32, N_SIDE, M_SIDE>;

fn load_left(at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&x_tile, at, STRIDE);
}

fn load_right(at: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weight_tile, at, STRIDE);
}

fn multiply_add(a: Left, b: Right, sum: Sum) -> Sum {
  return subgroupMatrixMultiplyAccumulate(a, b, sum);
}

fn store_sum(at: u32, sum: Sum) {
  subgroupMatrixStore<row_major>(&sum_tile, at, sum, WIDE);
}
