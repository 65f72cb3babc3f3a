/**
 * Options of the image processor, one row each, of preprocessor_config.json and of a call, which overrides the file.
 *
 * Hugging Face's names, meanings and defaults. Source: transformers 5.18, models/blip/image_processing_blip.py.
 */
import { type Check, flag, is, number, type OptionsOf, oneOf, option, refuse, whole } from "../config/options.ts";
import { IMAGE_TRANSFORMS } from "./image_transform.ts";
import { RESAMPLING } from "./resize.ts";

/** One number for a square, `[height, width]`, or both by name. */
export type ImageSize = number | readonly [number, number] | { height: number; width: number };

/** Largest size. No vision model's is larger; it limits the allocation that a config can request. */
const MAX_SIZE = 4096;
const side = whole(1, MAX_SIZE).row.check;

const checkSize: Check = (name, size, vocabulary, fail) => {
  const sides = sidesOf(size as ImageSize);
  if (!sides) {
    const hint = 'BLIP does not keep the aspect ratio; image_transform: "clip_image_eval" does';
    return refuse(name, "a number, [height, width] or { height, width }", size, hint, fail);
  }
  for (const one of sides) side(name, one, vocabulary, fail);
};

/** Height and width; undefined if it is not a size. */
export function sidesOf(size: ImageSize): readonly [height: number, width: number] | undefined {
  if (typeof size === "number") return [size, size];
  if (Array.isArray(size)) return size.length === 2 ? [size[0], size[1]] : undefined;
  if (typeof size !== "object" || size === null) return undefined;
  const { height, width } = size as { height: number; width: number };
  return height === undefined && width === undefined ? undefined : [height, width];
}

/** A number for each channel. */
export const threeOf = (value: number | readonly number[]): readonly number[] =>
  typeof value === "number" ? [value, value, value] : value;

/** One number for all channels, or one for each. */
const channels = (must: string, fits: (value: number) => boolean = () => true) =>
  option<number | readonly number[]>(
    is(must, (value) => {
      const list = typeof value === "number" || Array.isArray(value) ? threeOf(value) : [];
      return list.length === 3 && list.every((x) => Number.isFinite(x) && fits(x));
    }),
  );

const isFilter = is(
  "one of Pillow's filters, a whole number from 0 to 5",
  (value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 5,
  "3 is bicubic, 2 bilinear; transformers takes any name for bilinear without a word",
);

export const IMAGE = {
  /** Accepted for compatibility; images are RGB once decoded, and tensors are never converted. */
  do_convert_rgb: flag().default(true),
  /** Default true. */
  do_resize: flag().default(true),
  /** One number for a square, `[height, width]`, or both by name. Default 384. */
  size: option<ImageSize>(checkSize).default({ height: 384, width: 384 }),
  /** One of Pillow's filters: 2 bilinear, 3 bicubic (default). */
  resample: option<number>(isFilter).default(RESAMPLING.bicubic),
  /** Default true. */
  do_rescale: flag().default(true),
  /** Factor of the bytes. Default 1 / 255. */
  rescale_factor: number().default(1 / 255),
  /** Default true. */
  do_normalize: flag().default(true),
  /** Subtracted after rescaling, of all channels or of each. Default CLIP's. */
  image_mean: channels("a number or three").default([0.48145466, 0.4578275, 0.40821073]),
  /** Divided by after that, of all channels or of each. Default CLIP's. */
  image_std: channels("a number or three, none of them 0", (value) => Math.fround(value) !== 0).default([
    0.26862954, 0.26130258, 0.27577711,
  ]),
  /**
   * What resizing does, by LAVIS's names: "blip_image_eval" squeezes to `size`, as Hugging Face (default), "clip_image_eval"
   * resizes the shorter side to `size`, a square's, and cuts out the middle. Not in Hugging Face.
   */
  image_transform: oneOf(...IMAGE_TRANSFORMS),
  /** The dimension of the channels of a {@link PixelTensor}. Default: by its shape. */
  input_data_format: oneOf("channels_first", "channels_last"),
};
export const IMAGE_OPTIONS: readonly string[] = Object.keys(IMAGE);

/** Options of a call, by Hugging Face's names; each overrides the file's. */
export interface ImageOptions extends OptionsOf<typeof IMAGE> {}
