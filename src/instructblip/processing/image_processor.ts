/**
 * The image processor, from pixels to `pixel_values`: Hugging Face's BlipImageProcessor, byte for byte, with its PIL backend
 * or its torchvision one. Resizing is resize.ts, decoding files image.node.ts and image.browser.ts; nothing here depends on
 * the platform.
 *
 * Sources: transformers 5.18 image_processing_backends.py and image_transforms.py.
 */

import { refuseUnknown } from "../../tensor/arguments.ts";
import { ConfigError, InputError } from "../../tensor/errors.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { sizes } from "../../tensor/shape.ts";
import { shown } from "../../tensor/shown.ts";
import { type JsonRecord, jsonText } from "../config/json_file.ts";
import { JsonFolder } from "../config/json_folder.ts";
import { type Fail, readOptions, type ValuesOf, valuesOf } from "../config/options.ts";
import { createFolder } from "../pretrained/platform.ts";
import { type PixelTensor, type PixelValues, type RgbaImage, type RgbImage, withoutAlpha } from "./image.ts";
import { IMAGE, IMAGE_OPTIONS, type ImageOptions, sidesOf, threeOf } from "./image_options.ts";
import { centered, type ImageTransform } from "./image_transform.ts";
import { type ImageBackend, RESAMPLING, resize } from "./resize.ts";

/** Options with defaults, normalised. */
interface Settings extends Omit<ValuesOf<typeof IMAGE>, "size" | "image_mean" | "image_std" | "do_convert_rgb"> {
  readonly height: number;
  readonly width: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly backend: ImageBackend;
}

/** The options of a file, of which image_transform is written only if given; input_data_format is an option of calls only. */
const { input_data_format: _, image_transform: __, ...DEFAULTS } = valuesOf(IMAGE, {});
const isOfFiles = (name: string) => Object.hasOwn(DEFAULTS, name) || name === "image_transform";
/** Most images of a batch; at 224 x 224 their pixel_values take 308 MB. */
export const MAX_IMAGES = 512;

/** image_transform of a call, to replace a file's. @throws InputError IMAGE_OPTION */
export function givenTransform(image_transform: ImageTransform | undefined): JsonRecord {
  if (image_transform === undefined) return {};
  IMAGE.image_transform.row.check("image_transform", image_transform, 0, (message, hint) => {
    throw new InputError("IMAGE_OPTION", message, { hint });
  });
  return { image_transform };
}

/** Converts decoded images to `pixel_values`. */
export class BlipImageProcessor {
  readonly config: Readonly<JsonRecord>;
  readonly backend: ImageBackend;

  /**
   * @param config the object of preprocessor_config.json; keys of other objects are ignored
   * @param file its name, for messages
   * @throws ConfigError CONFIG_IMAGE; InputError IMAGE_OPTION for another backend than the two
   */
  constructor(config: JsonRecord = {}, file = "preprocessor_config.json", backend: ImageBackend = "pil") {
    if (!["pil", "torchvision"].includes(backend)) {
      throw new InputError("IMAGE_OPTION", `backend must be "pil" or "torchvision", got ${shown(backend)}`);
    }
    this.backend = backend;
    const given = Object.entries(config).filter(([key, value]) => isOfFiles(key) && (value ?? null) !== null);
    this.config = { ...DEFAULTS, ...Object.fromEntries(given) };
    const fail: Fail = (message, hint) => {
      throw new ConfigError("CONFIG_IMAGE", `${file}: ${message}`, { hint });
    };
    settingsOf(this.config, backend, fail);
    for (const key of ["do_center_crop", "do_pad"]) {
      const hint = key === "do_center_crop" ? 'image_transform: "clip_image_eval" crops as LAVIS does' : undefined;
      if (config[key]) fail(`${key} is not supported: BLIP resizes the whole image to one size`, hint);
    }
  }

  /**
   * Reads processor_config.json (transformers 5, nested under `image_processor`) or preprocessor_config.json (4).
   *
   * @param image_transform replaces the file's
   * @throws ConfigError CONFIG_MISSING, CONFIG_JSON, CONFIG_IMAGE; InputError IMAGE_OPTION
   */
  static async from_pretrained(
    folder: Folder,
    backend?: ImageBackend,
    image_transform?: ImageTransform,
  ): Promise<BlipImageProcessor> {
    const more = givenTransform(image_transform);
    const files = JsonFolder.of(folder);
    const nested = (await files.json("processor_config.json"))?.image_processor;
    if (nested !== undefined) {
      if (typeof nested !== "object" || nested === null || Array.isArray(nested)) {
        throw new ConfigError("CONFIG_JSON", "processor_config.json: image_processor must be an object");
      }
      return new BlipImageProcessor({ ...(nested as JsonRecord), ...more }, "processor_config.json", backend);
    }
    const config = await files.json("preprocessor_config.json");
    if (!config) {
      throw new ConfigError("CONFIG_MISSING", `${folder.name}: no processor_config.json or preprocessor_config.json`);
    }
    return new BlipImageProcessor({ ...config, ...more }, "preprocessor_config.json", backend);
  }

  /** Its entry in processor_config.json, and the object of preprocessor_config.json. */
  toJSON(): JsonRecord {
    return { ...this.config, image_processor_type: "BlipImageProcessor" };
  }

  /** Writes preprocessor_config.json, to a path (Node) or a WritableFolder. @throws WeightError IO; InputError NO_FILES */
  async save_pretrained(to: string | WritableFolder): Promise<void> {
    const folder = await createFolder(to);
    await folder.writeText("preprocessor_config.json", jsonText(this.toJSON(), { sorted: true }));
  }

  /**
   * The first step of {@link preprocess} alone: u8[H, W, 3] of the size of `pixel_values`, which it changes no more. For
   * threads: four times smaller than pixel_values.
   *
   * @throws InputError IMAGE_TOO_LARGE
   */
  resized(image: RgbImage): RgbImage {
    const fail: Fail = (message, hint) => {
      throw new InputError("IMAGE_OPTION", message, { hint });
    };
    const settings = settingsOf(this.config, this.backend, fail);
    return settings.do_resize ? fitted(image, settings) : image;
  }

  /**
   * Resizes, rescales and normalises: `((pixel * rescale_factor) - mean) / std`.
   *
   * @param first name of the first image in messages: `image 0`
   * @returns f32[B, 3, H, W], in the order given
   * @throws InputError BAD_PIXELS, BATCH_LIMIT, IMAGE_OPTION
   */
  preprocess(
    images: readonly (RgbImage | RgbaImage | PixelTensor)[],
    options: ImageOptions = {},
    first = 0,
  ): PixelValues {
    refuseUnknown("preprocess", options, IMAGE_OPTIONS);
    const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
    const settings = settingsOf({ ...this.config, ...Object.fromEntries(given) }, this.backend, (message, hint) => {
      throw new InputError("IMAGE_OPTION", message, { hint });
    });
    if (images.length > MAX_IMAGES) {
      throw new InputError("BATCH_LIMIT", `${images.length} images in one batch, the limit is ${MAX_IMAGES}`);
    }

    const values = images.map((image, i): PixelValues => {
      const { height, width, data } = preprocessOne(image, settings, `image ${first + i}`);
      return { data, shape: [1, 3, height, width] };
    });
    return stack(values);
  }
}

/**
 * Joins batches into one.
 *
 * @throws InputError BAD_PIXELS if there is none, or sizes differ, as they may without resizing
 */
export function stack(parts: readonly PixelValues[]): PixelValues {
  const [first] = parts;
  if (!first) throw new InputError("BAD_PIXELS", "no image was given");
  const [, , height, width] = first.shape;
  const other = parts.find(({ shape }) => shape[2] !== height || shape[3] !== width);
  if (other) {
    const sizes = `${width} x ${height} and ${other.shape[3]} x ${other.shape[2]}`;
    throw new InputError("BAD_PIXELS", `images of one batch must have one size, got ${sizes}`, {
      hint: "do_resize: true makes them equal",
    });
  }
  if (parts.length === 1) return first;
  const data = new Float32Array(parts.reduce((sum, part) => sum + part.data.length, 0));
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return { data, shape: [parts.reduce((sum, part) => sum + part.shape[0], 0), 3, height, width] };
}

/** Checks and normalises options of a config file or a caller. */
function settingsOf(given: Readonly<JsonRecord>, backend: ImageBackend, fail: Fail): Settings {
  const { size, image_mean, image_std, do_convert_rgb, ...values } = readOptions(IMAGE, given, fail);
  const { resample } = values;
  if (backend === "torchvision" && resample !== RESAMPLING.bilinear && resample !== RESAMPLING.bicubic) {
    fail(`resample ${resample} is not one that the torchvision backend has here, only 2 and 3`);
  }
  const [height, width] = sidesOf(size)!;
  if (values.image_transform === "clip_image_eval") {
    if (!values.do_resize) {
      const hint = 'image_transform: "blip_image_eval" with do_resize: false leaves images as they are';
      fail('image_transform "clip_image_eval" has no effect: do_resize is false', hint);
    }
    const isLavis = height === width && resample === RESAMPLING.bicubic && backend === "pil";
    if (!isLavis) fail('image_transform "clip_image_eval" is of a square size, resample 3 and the backend "pil"');
  }
  return { ...values, height, width, mean: threeOf(image_mean), std: threeOf(image_std), backend };
}

/** The image resized. */
function fitted(image: RgbImage, { width, height, resample, backend, image_transform }: Settings): RgbImage {
  if (image_transform !== "clip_image_eval") return resize(image, width, height, resample, backend);
  const whole = centered(image, width);
  return resize(image, whole.width, whole.height, resample, backend, whole.part);
}

interface Planes {
  height: number;
  width: number;
  /** f32[3, H, W] */
  data: Float32Array;
}

function preprocessOne(image: RgbImage | RgbaImage | PixelTensor, settings: Settings, name: string): Planes {
  if (typeof image !== "object" || image === null) {
    throw new InputError("BAD_PIXELS", `${name} must be pixels, { data, width, height } or { data, shape }`);
  }
  const { height, width, data } =
    "shape" in image ? channelsLast(image, settings.input_data_format, name) : checked(image, name);
  if (data instanceof Float32Array) return preprocessFloat({ width, height, data }, settings, name);
  let rgb: RgbImage = { width, height, data };
  if (settings.do_resize) rgb = fitted(rgb, settings);
  // A byte has 256 values, so the arithmetic is done by three tables.
  const tables = [0, 1, 2].map((c) => Float32Array.from({ length: 256 }, (_, u8) => normalized(u8, c, settings)));
  return toPlanes(rgb, (value, c) => tables[c]![value]!);
}

/**
 * f32 pixels as in Hugging Face: converted to bytes and back if resized (values 0 … 1 are scaled by 255 and truncated), else
 * unchanged.
 */
function preprocessFloat(
  image: { width: number; height: number; data: Float32Array },
  settings: Settings,
  name: string,
): Planes {
  const { width, height, data } = image;
  if (!data.every((x) => Number.isFinite(x))) throw new InputError("BAD_PIXELS", `${name}: a pixel is not finite`);
  if (!settings.do_resize) return toPlanes(image, (value, c) => normalized(value, c, settings));
  if (settings.backend === "torchvision") {
    throw new InputError("BAD_PIXELS", `${name}: the torchvision backend resizes bytes only, not f32 pixels`);
  }
  // numpy.allclose(image, image.astype(int)): within 1e-8 + 1e-5 |whole|.
  const whole = data.every((x) => Math.abs(x - Math.trunc(x)) <= 1e-8 + 1e-5 * Math.abs(Math.trunc(x)));
  const top = whole ? 255 : 1;
  if (!data.every((x) => x >= 0 && x <= top)) {
    throw new InputError("BAD_PIXELS", `${name}: f32 pixels must be 0 … 1, or whole numbers 0 … 255`);
  }
  // Not Uint8Array.from() with a function, which builds a list of all pixels first.
  const bytes = new Uint8Array(whole ? data : data.map((x) => x * 255));
  const resized = fitted({ width, height, data: bytes }, settings);
  const back = Float32Array.from({ length: 256 }, (_, u8) => (whole ? u8 : u8 * (1 / 255)));
  return toPlanes(resized, (value, c) => normalized(back[value]!, c, settings));
}

/** `f32((f32(f64(x) * factor) - f32(mean)) / f32(std))`, each step rounded as in numpy; torch folds the factor. */
function normalized(value: number, channel: number, settings: Settings): number {
  if (settings.backend === "torchvision") return normalizedByTorch(value, channel, settings);
  const x = settings.do_rescale ? Math.fround(value * settings.rescale_factor) : value;
  if (!settings.do_normalize) return x;
  const centred = Math.fround(x - Math.fround(settings.mean[channel]!));
  return Math.fround(centred / Math.fround(settings.std[channel]!));
}

/** `(x - mean / factor) / (std / factor)`, every number and every step f32. */
function normalizedByTorch(value: number, channel: number, settings: Settings): number {
  const { do_rescale, do_normalize, rescale_factor } = settings;
  if (!do_normalize) return do_rescale ? Math.fround(value * Math.fround(rescale_factor)) : value;
  const inverse = do_rescale ? Math.fround(1 / rescale_factor) : 1;
  const mean = Math.fround(Math.fround(settings.mean[channel]!) * inverse);
  const std = Math.fround(Math.fround(settings.std[channel]!) * inverse);
  return Math.fround(Math.fround(value - mean) / std);
}

/** `[H, W, 3]` to `[3, H, W]`, each value through `map`. */
function toPlanes(
  image: { width: number; height: number; data: Uint8Array | Float32Array },
  map: (value: number, channel: number) => number,
): Planes {
  const { width, height, data } = image;
  const pixels = width * height;
  const planes = new Float32Array(3 * pixels);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < pixels; i++) planes[c * pixels + i] = map(data[3 * i + c]!, c);
  }
  return { width, height, data: planes };
}

/** As u8[H, W, 3]. */
function checked(image: RgbImage | RgbaImage, name: string): RgbImage {
  const { width, height, data } = image;
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new InputError(
      "BAD_PIXELS",
      `${name}: data must be a Uint8Array of [height, width, 3] or [height, width, 4]`,
    );
  }
  if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0)) {
    throw new InputError(
      "BAD_PIXELS",
      `${name}: width and height must be whole and positive, got ${shown(width)} x ${shown(height)}`,
    );
  }
  const pixels = width * height;
  if (data.length === pixels * 3) return { width, height, data: bytesOf(data) };
  if (data.length !== pixels * 4) {
    const message = `${name}: ${width} x ${height} pixels are ${pixels * 3} bytes of RGB or ${pixels * 4} of RGBA`;
    throw new InputError("BAD_PIXELS", `${message}, got ${data.length}`);
  }
  return { width, height, data: withoutAlpha(data) };
}

function bytesOf(data: Uint8Array | Uint8ClampedArray): Uint8Array {
  return data instanceof Uint8Array ? data : new Uint8Array(data.buffer, data.byteOffset, data.length);
}

function channelsLast(
  tensor: PixelTensor,
  format: Settings["input_data_format"],
  name: string,
): { width: number; height: number; data: Uint8Array | Float32Array } {
  const { shape } = tensor;
  if (!Array.isArray(shape) || shape.length !== 3 || !shape.every((n) => Number.isInteger(n) && n > 0)) {
    throw new InputError("BAD_PIXELS", `${name}: shape must be [H, W, 3] or [3, H, W], got ${shown(shape)}`);
  }
  const [a, b, c] = sizes(shape, 3);
  const data = tensor.data instanceof Uint8ClampedArray ? bytesOf(tensor.data) : tensor.data;
  if (!(data instanceof Uint8Array || data instanceof Float32Array)) {
    throw new InputError("BAD_PIXELS", `${name}: data must be a Uint8Array or a Float32Array`);
  }
  if (data.length !== a * b * c) {
    throw new InputError("BAD_PIXELS", `${name}: shape ${shown(shape)} needs ${a * b * c} numbers, got ${data.length}`);
  }
  const layout = format ?? (a === 3 ? "channels_first" : "channels_last");
  if ((layout === "channels_first" ? a : c) !== 3) {
    throw new InputError("BAD_PIXELS", `${name}: shape ${shown(shape)} has no 3 channels (${shown(layout)})`);
  }
  if (layout === "channels_last") return { height: a, width: b, data };
  const pixels = b * c;
  const rgb = data instanceof Float32Array ? new Float32Array(3 * pixels) : new Uint8Array(3 * pixels);
  for (let channel = 0; channel < 3; channel++) {
    for (let i = 0; i < pixels; i++) rgb[3 * i + channel] = data[channel * pixels + i]!;
  }
  return { height: b, width: c, data: rgb };
}
