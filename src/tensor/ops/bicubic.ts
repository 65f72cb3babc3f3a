/** Resizing a grid of vectors, as learned positions are for images of another size. */
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * @param x f32[h, w, D]
 * @param size [H, W], whole numbers of at least 1
 * @returns f32[H, W, D]
 * @throws ShapeError
 * Source: torch.nn.functional.interpolate(mode="bicubic", align_corners=False), a = -0.75, without antialiasing.
 */
export function bicubic(x: Tensor, [H, W]: readonly [number, number]): Tensor {
  if (!hasRank(x.shape, 3) || x.size === 0) {
    throw new ShapeError(`bicubic: x must be [h, w, D], none of them 0, got ${formatShape(x.shape)}`);
  }
  if (!(Number.isInteger(H) && Number.isInteger(W) && H >= 1 && W >= 1)) {
    throw new ShapeError(`bicubic: a size must be two whole numbers of at least 1, got ${H} and ${W}`);
  }
  const [h, w, D] = x.shape;
  const y = x.device.empty([H, W, D]);
  x.device.launch({
    kernel: "bicubic",
    bindings: { x: contiguous(x), y },
    params: { size: y.size, h, w, W, D, scale_y: h / H, scale_x: w / W },
    workgroups: Math.ceil(y.size / WG),
    work: () => ({ flops: 2 * 20 * y.size }),
  });
  return y;
}
