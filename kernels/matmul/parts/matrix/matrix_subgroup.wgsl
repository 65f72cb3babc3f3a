// Subgroup matrices of 8 x 8 f32, for matmul_subgroup_matrix. All threads of a subgroup call these functions. at is the index
// in shared memory where a matrix begins: in the tile of x (left), of W (right), or of sums.
// @slot matrix: Number, M_SIDE, N_SIDE, K_SIDE, BK, STRIDE, Left, Right, Sum
// @slot matrix: load_left(at: u32) -> Left, load_right(at: u32) -> Right, multiply_add(a: Left, b: Right, sum: Sum) -> Sum
// @slot matrix: store_sum(at: u32, sum: Sum), sum_at(at: u32) -> f32
// @slot matrix: row_scale_of(row: u32) -> f32, weight_scale_of(row: u32) -> f32
// @slot matrix: scaled(group: vec4<f32>, scale: f32) -> vec4<f32>, unscaled(sum: f32, scale: f32) -> f32
// @use staged_f32
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
  subgroupMatrixStore<row_major>(&weight_tile, at, sum, WIDE);
}
