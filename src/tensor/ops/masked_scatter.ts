/** Replaces the placeholders of a prompt by image features. */

import { splitRows } from "../device/plan.ts";
import { ShapeError } from "../errors.ts";
import { expectShape, formatShape, hasRank, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[B, L, D]
 * @param features f32[n, D]
 * @param source u32[B, L]: 1 + the row of features that goes there, 0 where x stays
 * @returns f32[B, L, D]
 * @throws ShapeError
 */
export function maskedScatter(x: Tensor, features: Tensor, source: Tensor<"u32">): Tensor {
  if (!hasRank(x.shape, 3)) throw new ShapeError(`maskedScatter: x must be [B, L, D], got ${formatShape(x.shape)}`);
  const [B, L, D] = x.shape;
  const [n] = sizes(features.shape, 2, "maskedScatter: features");
  expectShape("maskedScatter", "features", features.shape, [n, D]);
  expectShape("maskedScatter", "source", source.shape, [B, L]);
  const y = x.device.empty(x.shape);
  const size = D % 4 === 0 ? 4 : 1;
  const { workgroups, ...split } = splitRows(B * L, D / size, x.device.caps);
  x.device.launch({
    kernel: "masked_scatter",
    uses: { element: size === 4 ? "element_u32x4" : "element_u32" },
    bindings: { x: contiguous(x), features: contiguous(features), source: contiguous(source), y },
    params: { ...split, D: D / size, n },
    workgroups,
    work: () => ({ bytes: 2 * y.bytes + source.bytes }),
  });
  return y;
}
