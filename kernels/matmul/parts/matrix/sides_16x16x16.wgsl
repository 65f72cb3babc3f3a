// Rows of a matrix of x, columns of one of Wᵀ, and what they have in common.
// @slot sides: M_SIDE, N_SIDE, K_SIDE
const M_SIDE = 16u;
const N_SIDE = 16u;
const K_SIDE = 16u;
