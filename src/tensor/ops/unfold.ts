/** Cutting images into patches that do not overlap. */
import { ShapeError } from "../errors.ts";
import { formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * @param pixels f32[B, C, H, W]
 * @param patch side P of a patch, in pixels
 * @returns f32[B, N, C·P·P]: patches row after row, each ordered (c, y, x); what does not fill a patch is left out
 * @throws ShapeError if an image is smaller than a patch
 * Source: torch.nn.functional.unfold(pixels, P, stride=P), transposed.
 */
export function unfold(pixels: Tensor, patch: number): Tensor {
  const [B, C, H, W] = pixels.shape;
  if (pixels.rank !== 4 || !(patch >= 1 && patch <= Math.min(H, W))) {
    throw new ShapeError(
      `unfold: pixels must be [B, C, H, W], H and W at least ${patch}, got ${formatShape(pixels.shape)}`,
    );
  }
  const [NY, NX] = [Math.floor(H / patch), Math.floor(W / patch)];
  const y = pixels.device.empty([B, NY * NX, C * patch * patch]);
  pixels.device.launch({
    kernel: "unfold",
    bindings: { pixels: contiguous(pixels), y },
    params: { size: y.size, C, H, W, P: patch, NY, NX },
    workgroups: Math.ceil(y.size / WG),
  });
  return y;
}
