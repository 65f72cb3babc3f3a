// What matrices of f16 with sums of f32 are made of, and where the sums leave: in memory of their own.
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
