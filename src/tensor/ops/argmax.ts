/** The index of each row's largest element, and whether that element is finite. */

import { kernelOf, type PlanOverride, plan, rowReduction } from "../device/plan.ts";
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[R, V]
 * @returns u32[2, R]: indices, the lowest if several elements are largest; then 1 where the largest is NaN or an infinity,
 *   else 0. NaN is larger than any number, as in torch.argmax.
 * @throws ShapeError
 */
export function argmax(x: Tensor, override?: PlanOverride): Tensor<"u32"> {
  if (!hasRank(x.shape, 2) || x.shape[1] === 0)
    throw new ShapeError(`argmax: x must be [R, V], V > 0, got ${formatShape(x.shape)}`);
  const [rows, V] = x.shape;
  const y = x.device.empty([2, rows], "u32");
  const { caps } = x.device;
  const { uses, overrides } = rowReduction(plan("logits", caps, override, { M: rows }), V);
  x.device.launch({
    kernel: kernelOf("argmax", override),
    uses,
    overrides: { ...overrides, LOADS: caps.isSoftware ? 1 : 8 },
    bindings: { x: contiguous(x), y },
    params: { rows, V },
    workgroups: rows,
  });
  return y;
}
