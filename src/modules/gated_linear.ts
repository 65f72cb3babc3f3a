/**
 * The two linear layers of a gated linear unit, gate and up, which have the same input, computed as one product.
 * `mul(activation(gate, act), up)` of forward()'s result is one launch.
 *
 * Source: Shazeer 2020, GLU Variants Improve Transformer; transformers' LlamaMLP and T5DenseGatedActDense.
 */
import { linear } from "../tensor/ops/linear.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { Module } from "./module.ts";
import type { Weights } from "./weights.ts";

/** The names of the two layers in the checkpoint. */
interface Names {
  readonly gate: string;
  readonly up: string;
}

/** f32[..., K] -> two of f32[..., F] */
export class GatedLinear extends Module {
  readonly weight: Weight;
  readonly bias: Tensor | undefined;
  readonly #names: Names;

  constructor(weights: Weights, names: Names, [F, K]: readonly [number, number], { bias = true } = {}) {
    super(weights);
    const { gate, up } = names;
    this.weight = weights.stackedMatrix({ [`${gate}.weight`]: F, [`${up}.weight`]: F }, K, { paired: true });
    this.bias = bias ? weights.stackedVector({ [`${gate}.bias`]: F, [`${up}.bias`]: F }) : undefined;
    this.#names = names;
  }

  forward(x: Tensor): [gate: Tensor, up: Tensor] {
    const both = linear(x, this.weight, this.bias); // [..., 2F]
    const [last, F] = [both.rank - 1, this.weight.shape[0] / 2];
    const half = (name: string, start: number) => {
      const input = this.observeInput(x, name); // an observer may replace that of one half
      const product = input === x ? both : linear(input, this.weight, this.bias);
      return this.observe(product.narrow(last, start, F), name);
    };
    return [half(this.#names.gate, 0), half(this.#names.up, F)];
  }
}
