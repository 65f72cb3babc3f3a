/** Types of images. */

/** A decoded image: u8[H, W, 3], RGB. */
export interface RgbImage {
  width: number;
  height: number;
  data: Uint8Array;
}

/** A decoded image with alpha, which is dropped: u8[H, W, 4], RGBA. `ImageData` of a canvas is one. */
export interface RgbaImage {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray;
}

/** u8[H, W, 3] of u8[H, W, 4], the alpha dropped. */
export function withoutAlpha(rgba: Uint8Array | Uint8ClampedArray): Uint8Array {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = rgba[from]!;
    rgb[to++] = rgba[from + 1]!;
    rgb[to++] = rgba[from + 2]!;
  }
  return rgb;
}

/**
 * Pixels as numbers: u8 or f32, `[H, W, 3]` or `[3, H, W]` (if both fit, `[3, H, W]`, as in Hugging Face). f32 pixels are
 * 0 … 1, or whole numbers 0 … 255.
 */
export interface PixelTensor {
  data: Uint8Array | Uint8ClampedArray | Float32Array;
  shape: readonly number[];
}

/** f32[B, 3, H, W] */
export interface PixelValues {
  data: Float32Array;
  shape: [number, number, number, number];
}

export interface DecodeOptions {
  /** Apply the EXIF orientation, as Pillow's `ImageOps.exif_transpose`. Default false, as in Hugging Face. */
  exif_transpose?: boolean;
}
