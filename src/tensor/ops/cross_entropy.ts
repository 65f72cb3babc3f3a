/** The negative log probability of each row's label. */

import { kernelOf, type PlanOverride, plan, rowReduction } from "../device/plan.ts";
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/** The label of rows that do not count: -100, as a Uint32Array keeps it. */
export const IGNORED_LABEL = -100 >>> 0;

/**
 * @param logits f32[R, V]
 * @param labels u32[R]: below V, or IGNORED_LABEL
 * @returns f32[R], 0 or above, in nats; 0 for ignored rows. Infinite for a label whose logit is minus infinity. NaN for any
 *   other label, and for a row with a NaN or plus infinity, or of nothing but minus infinity
 * @throws ShapeError
 * Source: torch.nn.functional.cross_entropy, reduction "none".
 */
export function crossEntropy(logits: Tensor, labels: Tensor<"u32">, override?: PlanOverride): Tensor {
  if (!hasRank(logits.shape, 2) || logits.shape[1] === 0)
    throw new ShapeError(`crossEntropy: logits must be [R, V], V > 0, got ${formatShape(logits.shape)}`);
  const [rows, V] = logits.shape;
  if (labels.rank !== 1 || labels.shape[0] !== rows)
    throw new ShapeError(`crossEntropy: labels must be [${rows}], one a row, got ${formatShape(labels.shape)}`);
  const y = logits.device.empty([rows]);
  logits.device.launch({
    kernel: kernelOf("cross_entropy", override),
    ...rowReduction(plan("logits", logits.device.caps, override, { M: rows }), V),
    bindings: { x: contiguous(logits), labels: contiguous(labels), y },
    params: { rows, V },
    workgroups: rows,
  });
  return y;
}
