/** y = a + b, b broadcast over a's leading dimensions; fused into the epilogue of b if b is a deferred product. */

import { ELEMENTWISE_WG, itemsPerThread } from "../device/plan.ts";
import { ShapeError } from "../errors.ts";
import { fuseResidual } from "../fuse.ts";
import { formatShape, sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param a f32[...]
 * @param b f32[...]: a's shape or its last dimensions, ones in front allowed
 * @returns f32[...], a's shape
 * @throws ShapeError if b is anything else; other broadcasts are not supported
 */
export function add(a: Tensor, b: Tensor): Tensor {
  const ones = b.shape.findIndex((n) => n !== 1);
  const trailing = ones < 0 ? [] : b.shape.slice(ones);
  if (b.rank > a.rank || !sameShape(trailing, a.shape.slice(a.rank - trailing.length))) {
    throw new ShapeError(`add: b must be ${formatShape(a.shape)} or its last dimensions, got ${formatShape(b.shape)}`);
  }
  const fused = fuseResidual(a, b);
  if (fused) return fused;
  const y = a.device.empty(a.shape);
  const groups = Math.ceil(a.size / 4);
  const items_per_thread = itemsPerThread(groups, a.device.caps);
  a.device.launch({
    kernel: "add",
    bindings: { a: contiguous(a), b: contiguous(b), y },
    params: { groups, items_per_thread, m: b.size },
    workgroups: Math.ceil(groups / (ELEMENTWISE_WG * items_per_thread)),
  });
  return y;
}
