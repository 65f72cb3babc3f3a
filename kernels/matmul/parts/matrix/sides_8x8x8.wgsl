// The shape of the matrices. Contract: sides_16x16x16.
const M_SIDE = 8u;
const N_SIDE = 8u;
const K_SIDE = 8u;
