// What matrices of f32 are made of, and where their sums leave: in W's tile.
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
