/** y = (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension. */
import { expectShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[..., D]
 * @param weight f32[D]
 * @param bias f32[D]
 * @returns f32[..., D]
 * @throws ShapeError if weight or bias is not [D]
 * Source: torch.nn.LayerNorm over the last dimension; biased variance.
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  const D = x.shape[x.rank - 1];
  expectShape("layerNorm", "weight", weight.shape, [D]);
  expectShape("layerNorm", "bias", bias.shape, [D]);
  const y = x.device.empty(x.shape);
  const rows = x.size / D;
  x.device.launch({
    kernel: "layer_norm",
    bindings: { x: contiguous(x), weight, bias, y },
    params: { rows, D, eps },
    workgroups: rows,
  });
  return y;
}
