// Tiles of f32. The sums are stored into the tile of W.
// @slot staged: Number, M_SIDE, N_SIDE, K_SIDE, BK, STRIDE, sum_at(at: u32) -> f32, set_sum(at: u32, sum: f32)
// @use scales_none
alias Number = f32;
const M_SIDE = 8u;
const N_SIDE = 8u;
const K_SIDE = 8u;
const BK = 16u;
const STRIDE = BK + 4u; // padded against bank conflicts

fn sum_at(at: u32) -> f32 {
  return weight_tile[at];
}

fn set_sum(at: u32, sum: f32) {
  weight_tile[at] = sum;
}
