/** y = e^(x - max(x)) / Σ e^(x - max(x)) over the last dimension. */
import { type PlanOverride, plan, workgroupOfRow } from "../plan.ts";
import { rowsOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG_INVOCATION = 8;
/** One invocation adds up at most so many numbers: f32 sums of more, one after the other, lose digits that count. */
const LONGEST = 4096;

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
  const variant = plan("row", x.device.caps, override, { M: rows });
  if (variant === "subgroup") {
    const SG = x.device.caps.subgroupMinSize;
    x.device.launch({ kernel: "softmax_subgroup", overrides: { SG }, bindings, params: { rows, S }, workgroups: rows });
  } else if (variant === "invocation" && S <= LONGEST) {
    const workgroups = Math.ceil(rows / WG_INVOCATION);
    x.device.launch({ kernel: "softmax_invocation", bindings, params: { rows, S }, workgroups });
  } else {
    const shares = workgroupOfRow(variant === "invocation" ? "workgroup" : variant, S);
    x.device.launch({ kernel: "softmax", ...shares, bindings, params: { rows, S }, workgroups: rows });
  }
  return y;
}
