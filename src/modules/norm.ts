/** Layer norm and RMS norm, over the last dimension. */
import { layerNorm } from "../tensor/ops/layer_norm.ts";
import { rmsNorm } from "../tensor/ops/rms_norm.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Module } from "./module.ts";
import type { Weights } from "./weights.ts";

/** (x - mean) / sqrt(variance + eps) * weight + bias, without weight and bias 1 and 0. f32[..., D] -> f32[..., D] */
export class LayerNorm extends Module {
  readonly weight: Tensor;
  readonly bias: Tensor;
  readonly eps: number;

  constructor(weights: Weights, D: number, eps: number, { elementwise_affine = true } = {}) {
    super(weights);
    if (elementwise_affine) {
      this.weight = weights.get("weight", [D]);
      this.bias = weights.get("bias", [D]);
    } else {
      this.weight = weights.computed([D], () => new Float32Array(D).fill(1));
      this.bias = weights.computed([D], () => new Float32Array(D));
    }
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return this.observe(layerNorm(this.observeInput(x), this.weight, this.bias, this.eps));
  }
}

/** x / sqrt(mean(x²) + eps) * weight. f32[..., D] -> f32[..., D] */
export class RMSNorm extends Module {
  readonly weight: Tensor;
  readonly eps: number;

  constructor(weights: Weights, D: number, eps: number) {
    super(weights);
    this.weight = weights.get("weight", [D]);
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return this.observe(rmsNorm(this.observeInput(x), this.weight, this.eps));
  }
}
