/**
 * LAVIS's image transforms for evaluation, by its names. Both are bicubic as Pillow, with antialias, and then
 * `((pixel / 255) - mean) / std` with CLIP's numbers, to the last bit those of Hugging Face's PIL backend.
 *
 * - `blip_image_eval` squeezes the image to a square, as Hugging Face does: the transform of the models' own configs.
 * - `clip_image_eval` resizes it until its shorter side fits, and cuts out the middle: that of most of LAVIS's data sets.
 *
 * Source: salesforce/LAVIS at 506965b, lavis/processors/{blip,clip}_processors.py; torchvision 0.14, transforms/functional.py
 * (_compute_resized_output_size, center_crop).
 */
import type { Part } from "./resize.ts";

export const IMAGE_TRANSFORMS = ["blip_image_eval", "clip_image_eval"] as const;
export type ImageTransform = (typeof IMAGE_TRANSFORMS)[number];

/** The size that torchvision's `Resize(side)` gives an image, and the part of it that `CenterCrop(side)` keeps. */
export function centered(
  image: { readonly width: number; readonly height: number },
  side: number,
): { width: number; height: number; part: Part } {
  const short = Math.min(image.width, image.height);
  const of = (length: number) => (length === short ? side : Math.trunc((side * length) / short));
  const [width, height] = [of(image.width), of(image.height)];
  const begin = (length: number) => roundHalfToEven((length - side) / 2);
  return { width, height, part: { left: begin(width), top: begin(height), width: side, height: side } };
}

/** Python's round(), of halves. */
function roundHalfToEven(x: number): number {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
}
