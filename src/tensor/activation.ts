/**
 * The activations a feed-forward layer may have, under the codes kernels/lib/activation.wgsl knows them by. Hugging Face's
 * names for them are mapped in src/instructblip/config/fields.ts.
 */

import { InputError } from "./errors.ts";
import { shown } from "./shown.ts";

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

/**
 * The value of the override ACTIVATION.
 *
 * @throws InputError ACTIVATION for another name: the kernels take a code that they do not know for "none"
 */
export function activationCode(activation: Activation): number {
  if (typeof activation !== "string" || !Object.hasOwn(ACTIVATIONS, activation)) {
    const hint = Object.keys(ACTIVATIONS).join(", ");
    throw new InputError("ACTIVATION", `there is no activation ${shown(activation)}`, { hint });
  }
  return ACTIVATIONS[activation];
}
