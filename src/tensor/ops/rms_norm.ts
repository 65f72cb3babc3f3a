/** y = x / sqrt(mean(x²) + eps) * weight over the last dimension. */
import { kernelOf, type PlanOverride, planNorm, planRow, rowLaunch } from "../device/plan.ts";
import { deferNorm } from "../fuse.ts";
import { expectShape, rowsOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * Of few rows, where the plan says so, launched when the result is needed: a product that follows computes it (fuse.ts).
 *
 * @param x f32[..., D]
 * @param weight f32[D]
 * @returns f32[..., D]
 * @throws ShapeError if weight is not [D]
 * Source: transformers' LlamaRMSNorm and T5LayerNorm, in f32 throughout.
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number, override?: PlanOverride): Tensor {
  const { rows, width: D } = rowsOf("rmsNorm", x.shape);
  expectShape("rmsNorm", "weight", weight.shape, [D]);
  const { device } = x;
  if (x.size === 0) return device.empty(x.shape);
  const norm = { x: contiguous(x), weight: contiguous(weight), eps };
  const launch = () => {
    const y = device.empty(x.shape);
    const variant = planRow("rms_norm", device.caps, [rows, D], override);
    const bindings = { x: norm.x, weight: norm.weight, y };
    const split = rowLaunch(variant, device.caps, [rows, D]);
    device.launch({ kernel: kernelOf("rms_norm", override), ...split, bindings, params: { rows, D, eps } });
    return y;
  };
  return planNorm(device.caps, [rows, D], override) === "fused" ? deferNorm(norm, launch) : launch();
}
