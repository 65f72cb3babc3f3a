/** What rows are multiplied by before their numbers are rounded to f16; for products of f16. */
import { kernelOf, type PlanOverride, planRow, rowLaunch } from "../device/plan.ts";
import { rowsOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[..., D]
 * @returns f32[...]: the power of two that brings the largest magnitude of a row into [16, 32), at most 2^126; of a row with a
 *   NaN or an infinity some power of two
 */
export function f16Scales(x: Tensor, override?: PlanOverride): Tensor {
  const { rows, width: D } = rowsOf("f16Scales", x.shape);
  const { device } = x;
  const y = device.empty(x.shape.slice(0, -1));
  if (x.size === 0) return y;
  const launch = rowLaunch(planRow("f16_scales", device.caps, [rows, D], override), device.caps, [rows, D]);
  device.launch({
    kernel: kernelOf("f16_scales", override),
    ...launch,
    bindings: { x: contiguous(x), y },
    params: { rows, D },
  });
  return y;
}
