// Tiles of f16. The sums are f32, and have a tile of their own.
// @use sides = sides_16x16x16
// @use scales_rows
enable f16;
alias Number = f16;
const BK = 32u;
const STRIDE = BK + 8u; // padded against bank conflicts; rows stay aligned to 16 bytes

var<workgroup> sum_tile: array<f32, DOWN * ACROSS * FLUSH>;

fn sum_at(at: u32) -> f32 {
  return sum_tile[at];
}

fn set_sum(at: u32, sum: f32) {
  sum_tile[at] = sum;
}
