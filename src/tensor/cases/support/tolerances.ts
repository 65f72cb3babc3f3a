/**
 * Every tolerance of a kernel, with its reason, in one table. `abs` + `rel`·|expected| bounds each element, `nmse` bounds
 * Σ(a-e)² / Σe² of the whole. Loosening a row needs a new reason here. Those of modules and models are in test/tolerances.ts.
 */
export interface Tolerance {
  readonly abs?: number;
  readonly rel?: number;
  readonly nmse?: number;
}

export const TOLERANCES = {
  /** Bits are moved, ids are compared. */
  exact: { abs: 0 },
  /** One rounding of f32. */
  elementwise: { abs: 1e-30, rel: 1.2e-7 },
  /** Exponentials within 4e-7 relative; erf and its product within 2 ULP of the largest term, as PyTorch adds them. */
  activation: { abs: 2e-6, rel: 2e-6 },
  /** exp within 2 ULP, and the sum of the row. */
  softmax: { abs: 1e-6, rel: 1e-5, nmse: 1e-10 },
  /** x - max and the result are rounded, the sum is within some 1e-7 and the logarithm within 1 ULP. */
  log_softmax: { abs: 4e-7, rel: 1.8e-7 },
  /** f32 sums of up to some thousand terms, mean removed first. */
  layer_norm: { abs: 1e-5, rel: 1e-5, nmse: 1e-11 },
  rms_norm: { abs: 5e-6, rel: 1e-5, nmse: 1e-11 },
  /** Table made in f64; two products and a sum in f32. */
  rope: { abs: 2e-6, rel: 1e-6 },
  /** Places on the grid are rounded to some 1e-6 of a step for grids of up to some ten; sums of 16 products of N(0, 1). */
  bicubic: { abs: 1e-5, nmse: 1e-11 },
  /** Sequential f32 accumulation: measured 4e-12 at K = 11,008 (another order may be two decades worse). */
  linear: { nmse: 1e-10 },
  /** One element of a product, `rel` to Σ|x·w|, to which rounding is proportional, as the sum itself may cancel. */
  linear_element: { abs: 1e-6, rel: 4e-7 },
  /** A rounding to f16, which WGSL lets go to either neighbour: 2^-10, or 2^-24 where numbers are subnormal. */
  half: { abs: 2 ** -24, rel: 2 ** -10 },
  /** A product with f16 inputs: x and W are each rounded to f16, by 2^-11 at most if to nearest, and else summed in f32. */
  linear_f16: { nmse: 1e-6 },
  linear_f16_element: { abs: 0, rel: 2 ** -9 },
  attention: { abs: 1e-5, rel: 1e-4, nmse: 1e-10 },
} as const satisfies Record<string, Tolerance>;
