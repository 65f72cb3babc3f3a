/** A fully connected layer, with the activation that follows it folded in where nobody looks in between. */
import type { Activation } from "../tensor/activation.ts";
import { activation as activate } from "../tensor/ops/activation.ts";
import { add } from "../tensor/ops/add.ts";
import { type Epilogue, linear } from "../tensor/ops/linear.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { Module } from "./module.ts";
import type { Weights } from "./weights.ts";

/** y = x Wᵀ + b. f32[..., K] -> f32[..., N] */
export class Linear extends Module {
  readonly weight: Weight;
  readonly bias: Tensor | undefined;

  /** `weight` is given where the matrix is another module's, as in a head tied to the token embedding. */
  constructor(
    weights: Weights,
    [N, K]: readonly [number, number],
    { bias = true, weight }: { bias?: boolean; weight?: Weight | undefined } = {},
  ) {
    super(weights);
    this.weight = weight ?? weights.matrix("weight", [N, K]);
    this.bias = bias ? weights.get("bias", [N]) : undefined;
  }

  /** @param epilogue an activation, or what the result is added to as well: see `plus` */
  forward(x: Tensor, epilogue: Activation | Epilogue = "none"): Tensor {
    const { activation = "none", residual } = typeof epilogue === "string" ? { activation: epilogue } : epilogue;
    // A tracer wants what PyTorch's Linear gives, before the activation.
    if (x.device.tracer && activation !== "none") {
      return activate(this.note(linear(x, this.weight, this.bias)), activation);
    }
    return this.note(linear(x, this.weight, this.bias, { activation, residual }));
  }
}

/**
 * residual + sublayer(x), the addition done by the sublayer's last matrix product where nobody looks in between.
 *
 * @param sublayer adds what it is given to its result; given nothing, it does not
 */
export function plus(residual: Tensor, sublayer: (residual: Tensor | undefined) => Tensor): Tensor {
  return residual.device.tracer ? add(residual, sublayer(undefined)) : sublayer(residual);
}
