/** y = e^(x - max(x)) / Σ e^(x - max(x)) over the last dimension. */
import { type PlanOverride, plan } from "../plan.ts";
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
  const S = x.shape[x.rank - 1];
  const y = x.device.empty(x.shape);
  const rows = x.size / S;
  const invocation = S <= LONGEST && plan("row", x.device.caps, override) === "invocation";
  x.device.launch({
    kernel: invocation ? "softmax_invocation" : "softmax",
    bindings: { x: contiguous(x), y },
    params: { rows, S },
    workgroups: invocation ? Math.ceil(rows / WG_INVOCATION) : rows,
  });
  return y;
}
