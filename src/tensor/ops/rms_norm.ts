/** y = x / sqrt(mean(x²) + eps) * weight over the last dimension. */
import { type PlanOverride, planRow, rowLaunch } from "../device/plan.ts";
import { expectShape, rowsOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[..., D]
 * @param weight f32[D]
 * @returns f32[..., D]
 * @throws ShapeError if weight is not [D]
 * Source: transformers' LlamaRMSNorm and T5LayerNorm, in f32 throughout.
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number, override?: PlanOverride): Tensor {
  const { rows, width: D } = rowsOf("rmsNorm", x.shape);
  expectShape("rmsNorm", "weight", weight.shape, [D]);
  const y = x.device.empty(x.shape);
  if (x.size === 0) return y;
  const bindings = { x: contiguous(x), weight, y };
  const { device } = x;
  const variant = planRow("rms_norm", device.caps, [rows, D], override);
  const launch = rowLaunch(variant, device.caps, [rows, D]);
  device.launch({ kernel: "rms_norm", ...launch, bindings, params: { rows, D, eps } });
  return y;
}
