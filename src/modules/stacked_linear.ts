/**
 * Linear layers with the same input, computed as one product: queries, keys and values, or gate and up. Only the number of
 * launches changes: the checkpoint and observers see the separate layers.
 */

import { cat } from "../tensor/ops/copy.ts";
import { linear } from "../tensor/ops/linear.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { Module } from "./module.ts";
import type { Weights } from "./weights.ts";

/** One of the layers, under its own name. */
class Part extends Module {}

/** y = x [W₀; W₁; …]ᵀ + [b₀; b₁; …]. f32[..., K] -> f32[..., ΣNᵢ] */
export class StackedLinear extends Module {
  readonly weight: Weight;
  readonly bias: Tensor | undefined;
  readonly #parts: readonly { readonly module: Part; readonly start: number; readonly N: number }[];

  /** @param sizes N of every layer, in order, by its name in the checkpoint */
  constructor(weights: Weights, sizes: Readonly<Record<string, number>>, K: number, { bias = true } = {}) {
    super(weights);
    const layers = Object.entries(sizes);
    const sizesOf = (parameter: "weight" | "bias") =>
      Object.fromEntries(layers.map(([name, N]) => [`${name}.${parameter}`, N]));
    this.weight = weights.stackedMatrix(sizesOf("weight"), K);
    this.bias = bias ? weights.stackedVector(sizesOf("bias")) : undefined;
    let start = 0;
    this.#parts = layers.map(([name, N]) => {
      const part = { module: new Part(weights.at(name)), start, N };
      start += N;
      return part;
    });
  }

  forward(x: Tensor): Tensor {
    const y = linear(x, this.weight, this.bias);
    const last = y.rank - 1;
    const inputs = this.#parts.map(({ module }) => module.observeInput(x));
    const parts = this.#parts.map(({ start, N }, i) => {
      // An observer may replace the input of one of them.
      const product = inputs[i] === x ? y : linear(inputs[i]!, this.weight, this.bias);
      return product.narrow(last, start, N);
    });
    const seen = this.#parts.map(({ module }, i) => module.observe(parts[i]!));
    const isUnchanged = seen.every((part, i) => part === parts[i] && inputs[i] === x);
    return isUnchanged ? y : cat(seen, last);
  }
}
