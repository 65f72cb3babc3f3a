/** The tolerances of modules and models, with their reasons, beside those of kernels. Loosening a row needs a new reason here. */
import { TOLERANCES as KERNELS, type Tolerance } from "../src/tensor/cases/support/tolerances.ts";

export type { Tolerance };

export const TOLERANCES = {
  ...KERNELS,
  /** Logits of a model whose keys and values are so rounded: measured up to 6e-7 to nearest, four times that were it down. */
  half_cache: { nmse: 2.5e-6 },
  /** (u8 · factor - mean) / std: three f32 roundings, values up to 2.7. */
  pixels: { abs: 1e-6 },
  /** A module given PyTorch's own input: two f32 programs that add in another order. */
  module: { nmse: 1e-10 },
  /** A module at the end of a free-running f32 forward pass: errors of all modules before it add up. */
  free_running: { nmse: 1e-9 },
  /** Sums of log-probabilities of a dozen tokens, of logits that differ by some 1e-6. */
  beam_scores: { abs: 1e-4 },
  /** Logits at the end of a free-running pass differ by up to 3e-5, and guidance takes two or three times the difference. */
  guidance: { abs: 1e-4, nmse: 1e-10 },
  /** Sums of up to six of them, of either program. */
  ranking: { abs: 1e-4 },
  /** The same by other rows at once, and so by kernels that add in another order; sums are up to 80. */
  ranking_twin: { abs: 1e-5, rel: 1e-6 },
  /** A mean of negative log-probabilities of some ten, of logits that differ by some 1e-6. */
  loss: { rel: 2e-6 },
  /** Of as few labels as one, of drawn models, of whose logits single ones differ by 7e-5: the bar of beams' scores. */
  drawn_loss: { abs: 1e-4 },
} as const satisfies Record<string, Tolerance>;
