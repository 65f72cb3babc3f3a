/** x += by, in place. */
import { ShapeError } from "../errors.ts";
import { formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

const WG = 64;

/**
 * Adds a number to counters in place, so that a captured step continues from the one before.
 *
 * @param x u32[...], contiguous; wraps beyond 2^32 - 1
 * @throws ShapeError
 */
export function increment(x: Tensor<"u32">, by: number): void {
  if (!x.isContiguous) throw new ShapeError(`increment: x must be contiguous, got ${formatShape(x.shape)}, strided`);
  x.device.launch({
    kernel: "increment",
    bindings: { x },
    params: { size: x.size, by },
    workgroups: Math.ceil(x.size / WG),
  });
}
