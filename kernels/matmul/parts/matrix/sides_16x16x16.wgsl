// The shape of the matrices: M_SIDE x K_SIDE of x, K_SIDE x N_SIDE of Wᵀ.
// @slot sides: M_SIDE, N_SIDE, K_SIDE
const M_SIDE = 16u;
const N_SIDE = 16u;
const K_SIDE = 16u;
