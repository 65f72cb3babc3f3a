/** The index of each row's largest element. */
import { ShapeError } from "../errors.ts";
import { type PlanOverride, plan, workgroupOfRow } from "../plan.ts";
import { formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[R, V]
 * @returns u32[R]; the lowest index if several elements are largest. NaN never wins, which torch.argmax lets it.
 * @throws ShapeError
 */
export function argmax(x: Tensor, override?: PlanOverride): Tensor<"u32"> {
  if (x.rank !== 2 || x.shape[1] === 0)
    throw new ShapeError(`argmax: x must be [R, V], V > 0, got ${formatShape(x.shape)}`);
  const [rows, V] = x.shape;
  const y = x.device.empty([rows], "u32");
  x.device.launch({
    kernel: "argmax",
    ...workgroupOfRow(plan("logits", x.device.caps, override, { M: rows }), V),
    bindings: { x: contiguous(x), y },
    params: { rows, V },
    workgroups: rows,
  });
  return y;
}
