/**
 * Occlusion of images: square windows of patches, what they are filled with, and drops of windows as drops of patches. Pure.
 *
 * F frames (1 of an image), H x W pixels, P the side of a patch.
 * Source: Zeiler & Fergus 2014, Visualizing and Understanding Convolutional Networks, section 4.2.
 */
import { InputError } from "../../../tensor/errors.ts";
import { shown } from "../../../tensor/shown.ts";
import { framesOf, type HostTensor } from "../../pretrained/inputs.ts";

/** Patches of an image, or of each frame of a video. */
export interface PatchGrid {
  readonly frames: number;
  readonly rows: number;
  readonly columns: number;
}

/** @param pixels f32[…, 3, H, W] of one row @param P the side of a patch, in pixels */
export function patchGrid(pixels: HostTensor, P: number): PatchGrid {
  const [frames, , height, width] = framesOf(pixels).shape;
  return { frames, rows: Math.floor(height / P), columns: Math.floor(width / P) };
}

/** Where a window is: its frame and its first patch. */
export interface OcclusionWindow {
  readonly frame: number;
  readonly row: number;
  readonly column: number;
}

/**
 * What an occluded patch holds: "mean" the mean colour of the frame; "blur" the frame blurred by a Gaussian of half a window;
 * "image_mean" zeros after normalisation, which is the processor's `image_mean`.
 */
export type OcclusionFill = "mean" | "blur" | "image_mean";
export const FILLS: readonly OcclusionFill[] = ["mean", "blur", "image_mean"];

/** Sides of a window in the longer side of the grid by default, and strides in a window. */
const ALONG = 4;

/** Side of a window and the distance between two, in patches: what is given, or a quarter of the longer side, and of it. */
export function windowSize(
  { rows, columns }: PatchGrid,
  { window, stride }: { readonly window?: number | undefined; readonly stride?: number | undefined },
): { window: number; stride: number } {
  const shorter = Math.min(rows, columns);
  const whole = (name: string, value: unknown, most: number, why: string) => {
    if (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most) return value as number;
    throw new InputError(
      "PARAM_RANGE",
      `${name} must be a whole number from 1 to ${most}, ${why}, got ${shown(value)}`,
    );
  };
  const usual = Math.min(shorter, Math.ceil(Math.max(rows, columns) / ALONG));
  const size = whole("window", window ?? usual, shorter, `patches along the image's shorter side`);
  return { window: size, stride: whole("stride", stride ?? Math.ceil(size / ALONG), size, "the window's side") };
}

/** Windows that cover all patches, row by row: the last of a row or column ends at the edge. */
export function windowsOf({ frames, rows, columns }: PatchGrid, window: number, stride: number): OcclusionWindow[] {
  const starts = (length: number) => {
    const last = length - window;
    const all = Array.from({ length: Math.ceil(last / stride) }, (_, i) => i * stride);
    return [...all, last];
  };
  const found: OcclusionWindow[] = [];
  for (let frame = 0; frame < frames; frame++) {
    for (const row of starts(rows)) for (const column of starts(columns)) found.push({ frame, row, column });
  }
  return found;
}

/** The pixels that occluded patches get. @param pixels f32[…, 3, H, W] of one row @param sigma of "blur", in pixels */
export function fillOf({ data, shape }: HostTensor, fill: OcclusionFill, sigma: number): Float32Array {
  if (fill === "image_mean") return new Float32Array(data.length);
  const [H, W] = shape.slice(-2) as [number, number];
  const filled = new Float32Array(data.length);
  for (let at = 0; at < data.length; at += H * W) {
    const plane = data.subarray(at, at + H * W);
    if (fill === "mean") filled.fill(plane.reduce((sum, x) => sum + x, 0) / plane.length, at, at + H * W);
    else filled.set(blurred(plane, H, W, sigma), at);
  }
  return filled;
}

/** A Gaussian blur, cut off at three standard deviations; beyond its edge the image goes on as at the edge. f32[H, W] */
function blurred(plane: Float32Array, H: number, W: number, sigma: number): Float64Array {
  const radius = Math.ceil(3 * sigma);
  const kernel = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const sum = kernel.reduce((total, x) => total + x, 0);
  const along = (x: ArrayLike<number>, length: number, step: number, lines: number, next: number) => {
    const y = new Float64Array(H * W);
    for (let line = 0; line < lines; line++) {
      for (let i = 0; i < length; i++) {
        let total = 0;
        for (let k = -radius; k <= radius; k++) {
          const from = Math.min(length - 1, Math.max(0, i + k));
          total += kernel[k + radius]! * x[line * next + from * step]!;
        }
        y[line * next + i * step] = total / sum;
      }
    }
    return y;
  };
  return along(along(plane, W, 1, H, W), H, W, W, 1);
}

/** The image with each of R windows occluded. @returns f32[R, …, 3, H, W] */
export function occluded(
  { data, shape }: HostTensor,
  filled: Float32Array,
  windows: readonly OcclusionWindow[],
  /** Side of a window in pixels, and of a patch. */
  { side, patch }: { readonly side: number; readonly patch: number },
): HostTensor {
  const [H, W] = shape.slice(-2) as [number, number];
  const pixels = new Float32Array(windows.length * data.length);
  for (const [r, { frame, row, column }] of windows.entries()) {
    pixels.set(data, r * data.length);
    for (let channel = 0; channel < 3; channel++) {
      for (let y = row * patch; y < row * patch + side; y++) {
        const from = ((frame * 3 + channel) * H + y) * W + column * patch;
        pixels.set(filled.subarray(from, from + side), r * data.length + from);
      }
    }
  }
  return { data: pixels, shape: shape.with(0, windows.length) };
}

/**
 * A patch's value: the mean of those of the windows that cover it.
 *
 * @param values of each window
 * @returns f32[F · rows · columns], row by row
 */
export function patchValues(
  { frames, rows, columns }: PatchGrid,
  windows: readonly OcclusionWindow[],
  window: number,
  values: readonly number[],
): Float32Array {
  const sums = new Float64Array(frames * rows * columns);
  const counts = new Float64Array(sums.length);
  for (const [i, { frame, row, column }] of windows.entries()) {
    for (let y = row; y < row + window; y++) {
      for (let x = column; x < column + window; x++) {
        const at = (frame * rows + y) * columns + x;
        sums[at]! += values[i]!;
        counts[at]!++;
      }
    }
  }
  return Float32Array.from(sums, (sum, i) => sum / counts[i]!);
}
