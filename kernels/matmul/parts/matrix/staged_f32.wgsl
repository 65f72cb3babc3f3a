// Matrices of f32, whose sums leave in W's tile.
// @slot staged: Number, M_SIDE, N_SIDE, K_SIDE, BK, STRIDE, sum_at(at: u32) -> f32, set_sum(at: u32, sum: f32)
// @use scales_none
alias Number = f32;
const M_SIDE = 8u;
const N_SIDE = 8u;
const K_SIDE = 8u;
const BK = 16u;
const STRIDE = BK + 4u; // more than needed: it spreads the rows over the memory's banks

fn sum_at(at: u32) -> f32 {
  return weight_tile[at];
}

fn set_sum(at: u32, sum: f32) {
  weight_tile[at] = sum;
}
