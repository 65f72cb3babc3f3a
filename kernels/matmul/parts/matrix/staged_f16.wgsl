// Matrices of f16, whose sums of f32 leave in a tile of their own.
// @use sides = sides_16x16x16
// @use scales_rows
enable f16;
alias Number = f16;
const BK = 32u;
const STRIDE = BK + 8u; // more than needed: it spreads the rows over the memory's banks, and 16 bytes is what they are aligned to

var<workgroup> sum_tile: array<f32, DOWN * ACROSS * LEAVING>;

fn sum_at(at: u32) -> f32 {
  return sum_tile[at];
}

fn set_sum(at: u32, sum: f32) {
  sum_tile[at] = sum;
}
