/**
 * The first half of a gated feed-forward: two fully connected layers that read the same input, one of which says how much of
 * the other's output passes. One launch; the checkpoint and a tracer see the layers and the activation it is made of.
 *
 * Source: Shazeer 2020, GLU Variants Improve Transformer; transformers' LlamaMLP and T5DenseGatedActDense.
 */
import type { Activation } from "../tensor/activation.ts";
import { activation } from "../tensor/ops/activation.ts";
import { contiguous } from "../tensor/ops/copy.ts";
import { gatedActivation } from "../tensor/ops/gated_activation.ts";
import { linear } from "../tensor/ops/linear.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { Module } from "./module.ts";
import type { Weights } from "./weights.ts";

/** What the two layers and the activation are called in the checkpoint, or in PyTorch's `named_modules()`. */
interface Names {
  readonly gate: string;
  readonly up: string;
  readonly act: string;
}

/** y = act(gate(x)) * up(x). f32[..., K] -> f32[..., F] */
export class GatedLinear extends Module {
  readonly weight: Weight;
  readonly bias: Tensor | undefined;
  readonly #names: Names;

  constructor(weights: Weights, names: Names, [F, K]: readonly [number, number], { bias = true } = {}) {
    super(weights);
    const { gate, up } = names;
    this.weight = weights.stackedMatrix([`${gate}.weight`, `${up}.weight`], [F, F], K, { paired: true });
    this.bias = bias ? weights.stackedVector([`${gate}.bias`, `${up}.bias`], [F, F]) : undefined;
    this.#names = names;
  }

  forward(x: Tensor, act: Activation): Tensor {
    if (!x.device.tracer) return linear(x, this.weight, this.bias, { activation: act, gated: true });
    // A tracer wants each layer's own output, and may put another in its place.
    const both = linear(x, this.weight, this.bias); // [..., 2F]
    const [last, F] = [both.rank - 1, this.weight.shape[0] / 2];
    const gate = this.note(contiguous(both.narrow(last, 0, F)), this.#names.gate);
    const up = this.note(contiguous(both.narrow(last, F, F)), this.#names.up);
    this.note(activation(gate, act), this.#names.act);
    return gatedActivation(gate, up, act);
  }
}
