/** Cuts images into patches that do not overlap: a strided view, made contiguous by the copy kernel. */
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { copy } from "./copy.ts";

/**
 * @param pixels f32[B, C, H, W]
 * @param patch side P of a patch, in pixels
 * @returns f32[B, N, C·P·P]: patches row after row, each ordered (c, y, x); pixels that do not fill a patch are dropped
 * @throws ShapeError if an image is smaller than a patch
 * Source: torch.nn.functional.unfold(pixels, P, stride=P), transposed.
 */
export function unfold(pixels: Tensor, patch: number): Tensor {
  if (!hasRank(pixels.shape, 4) || !(patch >= 1 && patch <= Math.min(pixels.shape[2], pixels.shape[3]))) {
    throw new ShapeError(
      `unfold: pixels must be [B, C, H, W], H and W at least ${patch}, got ${formatShape(pixels.shape)}`,
    );
  }
  const [B, C, H, W] = pixels.shape;
  const [NY, NX] = [Math.floor(H / patch), Math.floor(W / patch)];
  const patches = pixels
    .narrow(2, 0, NY * patch)
    .narrow(3, 0, NX * patch)
    .unflatten(3, [NX, patch])
    .unflatten(2, [NY, patch])
    .permute([0, 2, 4, 1, 3, 5]); // [B, NY, NX, C, P, P]
  const y = pixels.device.empty(patches.shape);
  copy(patches, y);
  return y.reshape([B, NY * NX, C * patch * patch]);
}
