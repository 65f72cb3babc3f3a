/**
 * Resizing byte for byte as Pillow, and as torch with antialias: two passes on 8-bit numbers in fixed point. Not the bicubic
 * interpolation of position embeddings, which differs.
 *
 * Sources: Pillow Resample.c, Geometry.c; PyTorch aten/src/ATen/native/cpu/UpSampleKernel.cpp and
 * UpSampleKernelAVXAntialias.h.
 */
import { InputError } from "../../tensor/errors.ts";
import type { RgbImage } from "./image.ts";

/** Pillow's numbers of its filters, as in preprocessor_config.json. */
export const RESAMPLING = { nearest: 0, lanczos: 1, bilinear: 2, bicubic: 3, box: 4, hamming: 5 } as const;

/**
 * The backend. PIL's is the reference, and LAVIS's. torchvision's, which Hugging Face uses if it is installed, has 16-bit
 * weights and folds rescaling into normalising: a few bytes of a thousand differ by 1. As PyTorch computes on x86 and ARM
 * processors (not on a GPU). In Hugging Face InstructBLIP-Video has torchvision only.
 */
export type ImageBackend = "pil" | "torchvision";

/** Pillow's filter kernels and their radius, in output pixels. */
const FILTERS: Record<number, { support: number; kernel: (x: number) => number }> = {
  [RESAMPLING.box]: { support: 0.5, kernel: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  [RESAMPLING.bilinear]: { support: 1, kernel: (x) => Math.max(0, 1 - Math.abs(x)) },
  [RESAMPLING.hamming]: {
    support: 1,
    kernel: (x) => {
      if (x === 0) return 1;
      if (Math.abs(x) >= 1) return 0;
      // Pillow writes these two constants as floats.
      return sinc(Math.abs(x)) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(Math.abs(x) * Math.PI));
    },
  },
  [RESAMPLING.bicubic]: {
    support: 2,
    kernel: (value) => {
      const a = -0.5; // torch's bicubic has -0.75
      const x = Math.abs(value);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
      return 0;
    },
  },
  [RESAMPLING.lanczos]: { support: 3, kernel: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** Pillow's: 32 bits less 8 for the pixel and 2 for overshoot. */
const PRECISION_BITS = 22;

/** Fixed-point weights of one pass: output `i` of those that are computed is a weighted sum of `count[i]` inputs from `first[i]` on. */
interface Taps {
  first: Int32Array;
  count: Int32Array;
  /** i32[outputs, stride] */
  weights: Int32Array;
  stride: number;
  /** Fractional bits. */
  bits: number;
}

/** A range of a side of the resized image. */
type Range = readonly [from: number, to: number];

/** The taps of the outputs in a range. */
function makeTaps(
  inputs: number,
  outputs: number,
  [from, to]: Range,
  { resample, backend }: { readonly resample: number; readonly backend: ImageBackend },
): Taps {
  const filter = FILTERS[resample]!; // image_options.ts refuses other numbers
  const scale = inputs / outputs;
  const filterScale = Math.max(scale, 1); // widened when shrinking, for antialiasing
  const support = filter.support * filterScale;
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(to - from);
  const count = new Int32Array(to - from);
  const exact = new Float64Array((to - from) * stride);
  for (let i = 0; i < to - from; i++) {
    const center = (from + i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(inputs, Math.trunc(center + support + 0.5));
    const row = exact.subarray(i * stride, i * stride + high - low);
    let sum = 0;
    for (let x = low; x < high; x++) {
      // By the reciprocal, as Pillow: dividing rounds differently.
      const weight = filter.kernel((x - center + 0.5) * (1 / filterScale));
      row[x - low] = weight;
      sum += weight;
    }
    if (sum !== 0) for (let x = 0; x < row.length; x++) row[x]! /= sum;
    first[i] = low;
    count[i] = high - low;
  }
  const bits = backend === "pil" ? PRECISION_BITS : bitsOf16(exact);
  const weights = new Int32Array(exact.length);
  for (let i = 0; i < exact.length; i++) {
    const weight = exact[i]!;
    weights[i] = Math.trunc(weight * 2 ** bits + (weight < 0 ? -0.5 : 0.5));
  }
  return { first, count, weights, stride, bits };
}

/** Fractional bits such that the largest weight fits 16 bits: PyTorch's, for all weights of a pass. */
function bitsOf16(weights: Float64Array): number {
  let largest = 0;
  for (const weight of weights) if (weight > largest) largest = weight;
  let bits = 0;
  while (bits < PRECISION_BITS && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  return bits;
}

/** A part of a resized image, in its pixels. */
export interface Part {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/**
 * Pillow's `Image.resize` of an RGB image, or torch's `interpolate` with antialias, byte for byte: rows first, then columns,
 * each pass rounded to bytes; a pass is skipped if that side keeps its length.
 *
 * @param part what is wanted of the resized image; the rest is not computed. Only with the backend "pil": torch chooses the
 *   precision of its weights by all of them
 * @throws InputError IMAGE_TOO_LARGE
 */
export function resize(
  image: RgbImage,
  width: number,
  height: number,
  resample: number = RESAMPLING.bicubic,
  backend: ImageBackend = "pil",
  part: Part = { left: 0, top: 0, width, height },
): RgbImage {
  const across: Range = [part.left, part.left + part.width];
  const down: Range = [part.top, part.top + part.height];
  if (resample === RESAMPLING.nearest) return resizeNearest(image, { width, height, across, down });
  const way = { resample, backend };
  // Of a side that keeps its length a part is cut out by weights of 1, as exactly.
  const isRowPass = width !== image.width || part.width !== width;
  const isColumnPass = height !== image.height || part.height !== height;
  // Resizing a single column by rows only repeats it, so columns may be first: a strip of a million pixels is then fast.
  if (image.width === 1 && isColumnPass) {
    const columns = resizeColumns(image, height, down, way);
    return isRowPass ? resizeRows(columns, width, across, way) : columns;
  }
  const rows = isRowPass ? resizeRows(image, width, across, way) : image;
  return isColumnPass ? resizeColumns(rows, height, down, way) : rows;
}

/** Largest intermediate in bytes; only a very long image needs more. */
const MAX_BETWEEN = 2 ** 30;

function clip(sum: number, bits: number): number {
  const value = sum >> bits;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

type Way = Parameters<typeof makeTaps>[3];

/** @param range the columns of the result, of `side` */
function resizeRows(image: RgbImage, side: number, range: Range, way: Way): RgbImage {
  const { height, data } = image;
  const width = range[1] - range[0];
  if (width * height * 3 > MAX_BETWEEN) {
    throw new InputError("IMAGE_TOO_LARGE", `an image of ${image.width} x ${height} pixels is too long to be resized`);
  }
  const { first, count, weights, stride, bits } = makeTaps(image.width, side, range, way);
  const half = 1 << (bits - 1);
  const out = new Uint8Array(width * height * 3);
  let to = 0;
  for (let y = 0; y < height; y++) {
    const row = y * image.width * 3;
    for (let x = 0; x < width; x++) {
      let at = row + first[x]! * 3;
      let red = half;
      let green = half;
      let blue = half;
      for (let k = x * stride, end = k + count[x]!; k < end; k++) {
        const weight = weights[k]!;
        red += data[at++]! * weight;
        green += data[at++]! * weight;
        blue += data[at++]! * weight;
      }
      out[to++] = clip(red, bits);
      out[to++] = clip(green, bits);
      out[to++] = clip(blue, bits);
    }
  }
  return { width, height, data: out };
}

/** @param range the rows of the result, of `side` */
function resizeColumns(image: RgbImage, side: number, range: Range, way: Way): RgbImage {
  const { width, data } = image;
  const height = range[1] - range[0];
  const { first, count, weights, stride, bits } = makeTaps(image.height, side, range, way);
  const half = 1 << (bits - 1);
  const bytes = width * 3;
  const out = new Uint8Array(bytes * height);
  const sums = new Float64Array(bytes);
  for (let y = 0; y < height; y++) {
    sums.fill(half);
    for (let k = 0; k < count[y]!; k++) {
      const weight = weights[y * stride + k]!;
      const row = (first[y]! + k) * bytes;
      for (let i = 0; i < bytes; i++) sums[i]! += data[row + i]! * weight;
    }
    for (let i = 0; i < bytes; i++) out[y * bytes + i] = clip(sums[i]!, bits);
  }
  return { width, height, data: out };
}

/** Geometry.c, ImagingScaleAffine: positions are accumulated, not multiplied, which rounds differently. */
function resizeNearest(
  image: RgbImage,
  { width, height, across, down }: { width: number; height: number; across: Range; down: Range },
): RgbImage {
  const columns = nearestPositions(image.width, width).subarray(...across);
  const rows = nearestPositions(image.height, height).subarray(...down);
  const out = new Uint8Array(columns.length * rows.length * 3);
  let to = 0;
  for (const y of rows) {
    for (const x of columns) {
      const at = (y * image.width + x) * 3;
      out[to++] = image.data[at]!;
      out[to++] = image.data[at + 1]!;
      out[to++] = image.data[at + 2]!;
    }
  }
  return { width: columns.length, height: rows.length, data: out };
}

function nearestPositions(inputs: number, outputs: number): Int32Array {
  const scale = inputs / outputs;
  const positions = new Int32Array(outputs);
  let position = scale * 0.5;
  for (let i = 0; i < outputs; i++, position += scale) positions[i] = Math.min(inputs - 1, Math.trunc(position));
  return positions;
}
