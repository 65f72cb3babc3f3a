/** y = e^(x - max(x)) / Σ e^(x - max(x)) over the last dimension. */
import { kernelOf, type PlanOverride, planRow, rowLaunch } from "../device/plan.ts";
import { rowsOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[..., S], minus infinity counting as the lowest finite number
 * @returns f32[..., S]; rows add up to 1
 * Source: torch.softmax over the last dimension.
 */
export function softmax(x: Tensor, override?: PlanOverride): Tensor {
  const { rows, width: S } = rowsOf("softmax", x.shape);
  const y = x.device.empty(x.shape);
  if (x.size === 0) return y;
  const bindings = { x: contiguous(x), y };
  const { device } = x;
  const variant = planRow("softmax", device.caps, [rows, S], override);
  const params = { rows, S };
  const kernel = kernelOf("softmax", override);
  if (variant === "subgroup" && kernel === "softmax") {
    const overrides = { SG: device.caps.subgroupMinSize };
    device.launch({ kernel: "softmax_subgroup", overrides, bindings, params, workgroups: rows });
  } else {
    device.launch({ kernel, ...rowLaunch(variant, device.caps, [rows, S]), bindings, params });
  }
  return y;
}
