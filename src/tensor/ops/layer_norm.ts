/** y = (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension. */
import { kernelOf, type PlanOverride, planRow, rowLaunch } from "../device/plan.ts";
import { expectShape, rowsOf } from "../shape.ts";
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
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, eps: number, override?: PlanOverride): Tensor {
  const { rows, width: D } = rowsOf("layerNorm", x.shape);
  expectShape("layerNorm", "weight", weight.shape, [D]);
  expectShape("layerNorm", "bias", bias.shape, [D]);
  const y = x.device.empty(x.shape);
  if (x.size === 0) return y;
  const bindings = { x: contiguous(x), weight, bias, y };
  const { device } = x;
  const variant = planRow("layer_norm", device.caps, [rows, D], override);
  const launch = rowLaunch(variant, device.caps, [rows, D]);
  device.launch({ kernel: kernelOf("layer_norm", override), ...launch, bindings, params: { rows, D, eps } });
  return y;
}
