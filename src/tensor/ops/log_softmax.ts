/** y = x - max(x) - ln Σ e^(x - max(x)) over the last dimension. */

import { kernelOf, type PlanOverride, plan, rowReduction } from "../device/plan.ts";
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[R, V]
 * @returns f32[R, V], log probabilities; NaN throughout for a row with a NaN or plus infinity, or of nothing but minus
 *   infinity
 * @throws ShapeError
 * Source: torch.log_softmax over the last dimension.
 */
export function logSoftmax(x: Tensor, override?: PlanOverride): Tensor {
  if (!hasRank(x.shape, 2) || x.shape[1] === 0)
    throw new ShapeError(`logSoftmax: x must be [R, V], V > 0, got ${formatShape(x.shape)}`);
  const [rows, V] = x.shape;
  const y = x.device.empty(x.shape);
  x.device.launch({
    kernel: kernelOf("log_softmax", override),
    ...rowReduction(plan("logits", x.device.caps, override, { M: rows }), V),
    bindings: { x: contiguous(x), y },
    params: { rows, V },
    workgroups: rows,
  });
  return y;
}
