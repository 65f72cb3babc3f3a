/** A linear (fully connected) layer. */
import { linear } from "../tensor/ops/linear.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { Module } from "./module.ts";
import type { Weights } from "./weights.ts";

/** y = x Wᵀ + b. f32[..., K] -> f32[..., N] */
export class Linear extends Module {
  readonly weight: Weight;
  readonly bias: Tensor | undefined;

  /** `weight` is given if the matrix belongs to another module, as for a head tied to the token embedding. */
  constructor(
    weights: Weights,
    [N, K]: readonly [number, number],
    { bias = true, weight }: { bias?: boolean; weight?: Weight | undefined } = {},
  ) {
    super(weights);
    this.weight = weight ?? weights.matrix("weight", [N, K]);
    this.bias = bias ? weights.get("bias", [N]) : undefined;
  }

  forward(x: Tensor): Tensor {
    return this.observe(linear(this.observeInput(x), this.weight, this.bias));
  }
}
