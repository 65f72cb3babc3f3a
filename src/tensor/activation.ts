/**
 * The activations a feed-forward layer may have, under the codes kernels/lib/activation.wgsl knows them by. What Hugging
 * Face calls them is the modules' business.
 */

export const ACTIVATIONS = {
  /** x */
  none: 0,
  /** x Φ(x), by erf: ViT, BERT. */
  gelu: 1,
  /** The tanh approximation of GELU: T5 1.1's "gelu_new". */
  gelu_tanh: 2,
  /** max(x, 0): OPT. */
  relu: 3,
  /** x σ(x): Llama. */
  silu: 4,
  /** x σ(1.702 x): CLIP. */
  quick_gelu: 5,
} as const;

export type Activation = keyof typeof ACTIVATIONS;

/** The value of the override ACTIVATION. */
export function activationCode(activation: Activation): number {
  return ACTIVATIONS[activation];
}
