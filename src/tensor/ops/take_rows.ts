/** Gathers rows of a tensor: the last token of every sample, or the beams that continue. */

import { splitRows } from "../device/plan.ts";
import type { ActivationDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32 or u32[R, D]
 * @param rows u32[n]; a row of R or more gives zeros
 * @returns [n, D]
 * @throws ShapeError
 */
export function takeRows<D extends ActivationDType>(x: Tensor<D>, rows: Tensor<"u32">): Tensor<D> {
  if (!hasRank(x.shape, 2) || rows.rank !== 1) {
    throw new ShapeError(
      `takeRows: x must be [R, D] and rows [n], got ${formatShape(x.shape)} and ${formatShape(rows.shape)}`,
    );
  }
  const [R, D] = x.shape;
  const y = x.device.empty([rows.size, D], x.dtype);
  const size = D % 4 === 0 ? 4 : 1;
  const { workgroups, ...split } = splitRows(rows.size, D / size, x.device.caps);
  x.device.launch({
    kernel: "take_rows",
    uses: { element: size === 4 ? "element_u32x4" : "element_u32" },
    bindings: { x: contiguous(x), rows: contiguous(rows), y },
    params: { ...split, D: D / size, R },
    workgroups,
    work: () => ({ bytes: 2 * y.bytes + rows.bytes }),
  });
  return y;
}
