/**
 * Input handling of the processors: options and how they are divided among tokenizers and image processor, prompts with
 * placeholders, and images of every kind to pixels.
 *
 * Source: transformers 5.18, processing_utils.py (_merge_kwargs).
 */
import { optionsOf, unknownName } from "../../tensor/arguments.ts";
import { InputError } from "../../tensor/errors.ts";
import { quote, shown } from "../../tensor/shown.ts";
import { flag, type OptionsOf, readOptions } from "../config/options.ts";
import { readImage } from "../pretrained/platform.ts";
import { ENCODE_OPTIONS } from "../tokenizer/options.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { EncodeOptions, Encoding } from "../tokenizer/types.ts";
import {
  type DecodeOptions,
  type PixelTensor,
  type PixelValues,
  type RgbaImage,
  type RgbImage,
  withoutAlpha,
} from "./image.ts";
import { classOf, type Drawable, isDrawable, type Page, readDrawable } from "./image_drawable.ts";
import { IMAGE_OPTIONS, type ImageOptions } from "./image_options.ts";
import { type BlipImageProcessor, MAX_IMAGES, stack } from "./image_processor.ts";
import { checkImageBytes } from "./image_source.ts";

/**
 * An image:
 *
 * - a path (Node), or a URL: `https:`, `data:`, `blob:`, in Node also `file:`, in a browser also relative to the page;
 * - the bytes of its file, PNG, JPEG, WebP, GIF, BMP, AVIF or (Node) TIFF: a Uint8Array, ArrayBuffer, Blob, File or Response;
 * - its pixels: `{ data, width, height }` in bytes, RGB or RGBA, such as ImageData, or a tensor;
 * - in a browser what a page shows: `<img>`, `<video>`, a canvas, an ImageBitmap or VideoFrame.
 *
 * All give the pixels that Pillow gives for the same file: colour profiles are ignored, alpha is dropped, EXIF orientation
 * is ignored unless `exif_transpose`. Pixels and bytes may be changed after the call has returned its promise.
 */
export type ImageInput =
  | string
  | URL
  | Blob
  | Page<"Response">
  | ArrayBuffer
  | Uint8Array
  | Uint8ClampedArray
  | DataView
  | RgbImage
  | RgbaImage
  | PixelTensor
  | Drawable;

/** The processor's own. */
const FLAGS = {
  /** Accepts text that contains the placeholder token, as HF does; default: it is refused. */
  allow_image_token: flag(),
  /** Apply the EXIF orientation, which HF ignores. Default false. */
  exif_transpose: flag(),
};

/** Options by Hugging Face's names. Text options apply to both tokenizers. */
export interface ProcessorOptions extends EncodeOptions, ImageOptions, OptionsOf<typeof FLAGS> {
  /** One prompt, or one for each image. */
  text?: string | readonly string[];
  /** Text options in an object of their own; an option may not be given both here and outside. */
  text_kwargs?: EncodeOptions;
  /** Image options in an object of their own. */
  images_kwargs?: ImageOptions;
  /** Options of both, overridden by any other. */
  common_kwargs?: { return_tensors?: string };
  /** Ignored: rows are always arrays of numbers. */
  return_tensors?: string;
}

/** Options of Hugging Face with only one supported value, so that a call with explicit defaults works. */
const FIXED: Readonly<Record<string, unknown>> = {
  stride: 0,
  is_split_into_words: false,
  return_attention_mask: true,
  return_token_type_ids: false,
  return_overflowing_tokens: false,
  return_special_tokens_mask: false,
  return_offsets_mapping: false,
  return_length: false,
  return_mm_token_type_ids: false,
  return_text_replacement_offsets: false,
  return_metadata: false,
  do_sample_frames: false,
  default_to_square: true,
  do_center_crop: false,
  do_pad: false,
  data_format: "channels_first",
};
/** Options of Hugging Face that do not change the values of the result. */
const WITHOUT_EFFECT = ["return_tensors", "verbose", "device", "disable_grouping"];
const OTHER_OPTIONS = ["images", "text", "text_kwargs", "images_kwargs", ...Object.keys(FLAGS)];

/** The checked arguments of a call. */
export interface Request {
  /** The images that each row of the batch is about: one, or the frames of a video. */
  readonly rows: readonly (readonly ImageInput[])[] | undefined;
  /** Whether `images` has a list for each text. */
  readonly several: boolean;
  readonly prompts: readonly string[] | undefined;
  readonly text: EncodeOptions;
  readonly image: ImageOptions;
  readonly exif_transpose: boolean;
  readonly allow_image_token: boolean;
}

/**
 * Divides and copies the arguments of a call, before images are decoded.
 *
 * @param given its arguments: options, in one object or in two
 * @param rowsOf converts `images` to rows
 * @throws InputError NO_INPUT, BAD_PROMPT, BAD_PIXELS, BATCH_MISMATCH, UNKNOWN_OPTION, PARAM_RANGE, ARGUMENTS
 */
export function requestOf(
  given: readonly unknown[],
  rowsOf: (images: unknown) => readonly (readonly ImageInput[])[],
): Request {
  const [{ images, text, ...options }, flags] = withFlags(argumentsOf(given));
  const { allow_image_token, exif_transpose } = flags;
  const rows = images === undefined || images === null ? undefined : rowsOf(images);
  const prompts = text === undefined || text === null ? undefined : listOf<string>(text);
  if (!rows && !prompts) throw new InputError("NO_INPUT", "give the processor images, text, or both");
  const [textOptions, imageOptions] = divide(options);
  if (prompts && (prompts.length === 0 || !prompts.every((prompt) => typeof prompt === "string"))) {
    throw new InputError("BAD_PROMPT", "text must be a string or a list of strings");
  }
  if (rows?.length === 0) throw new InputError("BAD_PIXELS", "the list of images is empty");
  if (rows && prompts && rows.length !== prompts.length) {
    throw new InputError("BATCH_MISMATCH", `${count(rows, "image")} but ${count(prompts, "text")}`, {
      hint: "the model takes one text for each image; of several images for a text give a list: images: [[image, image]]",
    });
  }
  const several = Array.isArray(images) && images.some(Array.isArray);
  return { rows, several, prompts, text: textOptions, image: imageOptions, exif_transpose, allow_image_token };
}

const count = ({ length }: readonly unknown[], what: string) => `${length} ${what}${length === 1 ? "" : "s"}`;

/** As `optionsOf`, except for images, which {@link pixelsOf} copies. */
function argumentsOf(given: readonly unknown[]): Record<string, unknown> {
  const [first] = given;
  const isOther = typeof first === "object" && first !== null && !["Object", "Promise"].includes(classOf(first));
  if (typeof first === "string" || isOther || isPixels(first)) {
    throw new InputError("ARGUMENTS", "a processor is called with an object", {
      hint: 'write processor({ images: [image], text: ["What is this?"] })',
    });
  }
  let taken: unknown;
  const others = given.map((options) => {
    if (typeof options !== "object" || options === null || !("images" in options)) return options;
    const { images, ...rest } = options;
    if (taken !== undefined && images !== undefined)
      throw new InputError("ARGUMENTS", "the processor was given images twice");
    taken ??= classOf(images) === "FileList" ? Array.from(images as ArrayLike<unknown>) : images; // of an <input>
    return rest;
  });
  return { ...optionsOf("processor", others), images: taken };
}

/** Separates the options of tokenizers and image processor from the processor's own. @throws InputError PARAM_RANGE */
function withFlags({ allow_image_token, exif_transpose, ...options }: Record<string, unknown>) {
  return [options, readOptions(FLAGS, { allow_image_token, exif_transpose } as OptionsOf<typeof FLAGS>)] as const;
}

/**
 * Prompts in the language model's vocabulary, with `count` placeholders in front of everything, the
 * beginning-of-sequence token and left padding included.
 *
 * @param queries tokens that max_length includes besides the text
 * @throws InputError TOKENIZER_LENGTH and those of {@link Tokenizer.encode_batch}
 */
export function encodePrompts(
  tokenizer: Tokenizer,
  prompts: readonly string[],
  options: EncodeOptions,
  { queries, token, count }: { queries: number; token: string; count: number },
): Encoding {
  const max_length = options.max_length == null ? undefined : options.max_length - queries;
  if (max_length !== undefined && max_length < 0) {
    throw new InputError(
      "TOKENIZER_LENGTH",
      `max_length ${options.max_length} leaves no room for the ${queries} queries of the image`,
    );
  }
  const prompt = tokenizer.encode_batch(prompts, { ...options, max_length });
  const placeholder = tokenizer.convert_tokens_to_ids(token)!;
  return {
    input_ids: prompt.input_ids.map((row) => [...new Array<number>(count).fill(placeholder), ...row]),
    attention_mask: prompt.attention_mask.map((row) => [...new Array<number>(count).fill(1), ...row]),
  };
}

/** The placeholder's text, which is added to the tokenizer if needed. `kind` is `image` or `video`. */
export function placeholderOf(tokenizer: Tokenizer, kind: "image" | "video"): string {
  const token = tokenizer.special_tokens_map[`${kind}_token`] ?? `<${kind}>`;
  if (!tokenizer.hasAddedToken(token)) tokenizer.addSpecialToken(token);
  return token;
}

/**
 * Pixels of images. Files are decoded one after the other, so that only one is held at a time; images in memory are copied
 * before the promise is returned.
 *
 * @throws InputError BATCH_LIMIT, BAD_PIXELS, those of the platform's readImage
 */
export async function pixelsOf(
  image_processor: BlipImageProcessor,
  images: readonly ImageInput[],
  options: ImageOptions,
  exif_transpose: boolean,
): Promise<PixelValues> {
  if (images.length > MAX_IMAGES) {
    throw new InputError("BATCH_LIMIT", `${images.length} images in one batch, the limit is ${MAX_IMAGES}`);
  }
  const preprocess = (image: RgbImage | RgbaImage | PixelTensor, i: number) =>
    image_processor.preprocess([image], options, i);
  const taken = images.map((given, i) => {
    const image = take(given, `image ${i}`, { exif_transpose });
    return typeof image === "function" ? image : preprocess(image, i);
  });
  const values: PixelValues[] = [];
  for (const [i, image] of taken.entries()) {
    values.push(typeof image === "function" ? preprocess(await image(), i) : image);
  }
  return stack(values);
}

/**
 * An image of any kind as bytes, those of a file decoded. Pixels in memory are copied before the promise is returned.
 *
 * @returns u8[H, W, 3], RGB
 * @throws InputError BAD_PIXELS, also for a tensor, and those of the platform's readImage
 */
export async function readImageInput(image: ImageInput, name: string, options: DecodeOptions): Promise<RgbImage> {
  const taken = take(image, name, options);
  if (typeof taken === "function") return taken();
  if (!("width" in taken)) throw new InputError("BAD_PIXELS", `${name} is a tensor, not bytes with width and height`);
  const { width, height, data } = taken;
  const channels = data.length / (width * height);
  if (!ArrayBuffer.isView(data) || data.BYTES_PER_ELEMENT !== 1 || (channels !== 3 && channels !== 4)) {
    throw new InputError(
      "BAD_PIXELS",
      `${name} must have 3 or 4 bytes for each of ${shown(width)} x ${shown(height)} pixels`,
    );
  }
  return { width, height, data: channels === 4 ? withoutAlpha(data) : Uint8Array.from(data) };
}

const isPixels = (value: unknown): value is RgbImage | RgbaImage | PixelTensor =>
  typeof value === "object" && value !== null && "data" in value;

function listOf<T>(value: unknown): readonly T[] {
  return Array.isArray(value) ? value : [value as T];
}

/** A row for each image, or for each list of images. @throws InputError BAD_PIXELS */
export function rowsOfImages(images: unknown): readonly (readonly ImageInput[])[] {
  const all = listOf<ImageInput | readonly ImageInput[]>(images);
  if (!all.some(Array.isArray)) return Array.from(all, (image) => [image as ImageInput]); // no holes
  if (!all.every((row) => Array.isArray(row) && row.length > 0)) {
    throw new InputError("BAD_PIXELS", "images must be one for each text, or a list with at least one for each text");
  }
  return all.map((row) => Array.from(row as readonly ImageInput[]));
}

/** Pixels, or a function that decodes them; what the caller may change later is copied. @throws InputError BAD_PIXELS */
function take(
  image: ImageInput,
  name: string,
  options: DecodeOptions,
): RgbImage | RgbaImage | PixelTensor | (() => Promise<RgbImage>) {
  expectImage(image, name);
  if (typeof image === "string") return () => readImage(image, name, options);
  // By class name: an object of another window is not an instance of this window's classes.
  switch (classOf(image)) {
    case "URL": {
      const { href } = image as URL;
      return () => readImage(href, name, options);
    }
    case "Blob":
    case "File":
      return async () => readImage(await bytesOfBody(image as Blob, (image as Blob).size, name), name, options);
    case "Response":
      return async () => readImage(await bytesOfResponse(image as Response, name), name, options);
    case "ArrayBuffer":
    case "SharedArrayBuffer":
      return fileOf(new Uint8Array(image as ArrayBuffer));
    case "Uint8Array":
    case "Uint8ClampedArray":
    case "DataView": {
      const { buffer, byteOffset, byteLength } = image as Uint8Array;
      return fileOf(new Uint8Array(buffer, byteOffset, byteLength));
    }
  }
  if (isDrawable(image)) {
    const pixels = readDrawable(image, name, options);
    pixels.catch(() => {}); // thrown where it is awaited, which may be later, or never if another image fails first
    return () => pixels;
  }
  return image as RgbImage | RgbaImage | PixelTensor;

  function fileOf(bytes: Uint8Array): () => Promise<RgbImage> {
    const copy = bytes.slice();
    return () => readImage(copy, name, options);
  }
}

/** The classes of files, by name. */
const FILES = [
  ...["URL", "Blob", "File", "Response", "ArrayBuffer", "SharedArrayBuffer"],
  ...["Uint8Array", "Uint8ClampedArray", "DataView"],
];

/** Whether it is of a kind that images are given as; reads nothing. @throws InputError BAD_PIXELS */
export function expectImage(image: unknown, name: string): void {
  const isKnown = FILES.includes(classOf(image)) || isDrawable(image) || isPixels(image);
  if (typeof image === "string" ? image === "" : !isKnown) throw notAnImage(image, name);
}

function notAnImage(image: unknown, name: string): InputError {
  const kind = classOf(image);
  let hint = "a path or URL, the bytes of a file (Uint8Array, ArrayBuffer, Blob), or pixels { data, width, height }";
  if (typeof (image as PromiseLike<unknown> | null)?.then === "function") hint = "it is a promise: await it";
  else if (ArrayBuffer.isView(image)) hint = "numbers need their shape: { data, shape: [height, width, 3] }";
  else if (typeof (image as { getContext?: unknown } | null)?.getContext === "function") {
    hint = 'of a canvas give canvas.getContext("2d").getImageData(0, 0, width, height)';
  } else if (kind === "SVGSVGElement" || kind === "SVGImageElement") hint = "draw it on a canvas, and give that";
  const isPlain = typeof image !== "object" || ["Null", "Object", "Array"].includes(kind);
  return new InputError("BAD_PIXELS", `${name} cannot be ${isPlain ? shown(image) : kind}`, { hint });
}

/** @throws InputError IMAGE_NOT_FOUND, IMAGE_TOO_LARGE, BAD_PIXELS */
async function bytesOfResponse(response: Response, name: string): Promise<Uint8Array> {
  if (!response.ok) throw new InputError("IMAGE_NOT_FOUND", `${name}: a response with HTTP status ${response.status}`);
  if (response.bodyUsed) throw new InputError("BAD_PIXELS", `${name}: the response's body has been read already`);
  return bytesOfBody(response, Number(response.headers.get("content-length") ?? 0), name);
}

/** @param size its size, if known @throws InputError IMAGE_TOO_LARGE, IO */
async function bytesOfBody(body: Blob | Response, size: number, name: string): Promise<Uint8Array> {
  checkImageBytes(size, name);
  const bytes = await body.arrayBuffer().catch((cause: unknown) => {
    throw new InputError("IO", `${name}: its bytes cannot be read (any more)`, { cause });
  });
  checkImageBytes(bytes.byteLength, name);
  return new Uint8Array(bytes);
}

/** Options of the tokenizers and of the image processor; others are refused, as they would have no effect. */
function divide(options: Record<string, unknown>): [EncodeOptions, ImageOptions] {
  const { text_kwargs, images_kwargs, common_kwargs, ...flat } = options;
  const parts: Record<"text" | "image", Record<string, unknown>> = { text: {}, image: {} };
  const take = (name: string, value: unknown, where: readonly ("text" | "image")[]) => {
    if (value === undefined || value === null || WITHOUT_EFFECT.includes(name)) return;
    const part = where.find((kind) => (kind === "text" ? ENCODE_OPTIONS : IMAGE_OPTIONS).includes(name));
    if (part) parts[part][name] = value;
    else if (!Object.hasOwn(FIXED, name) || FIXED[name] !== value) throw unknownOption(name, value);
  };
  for (const [nested, where] of [
    [common_kwargs, ["text", "image"]],
    [text_kwargs, ["text"]],
    [images_kwargs, ["image"]],
  ] as const) {
    for (const [name, value] of Object.entries(nested ?? {})) {
      if (nested !== common_kwargs && (flat[name] ?? null) !== null && !WITHOUT_EFFECT.includes(name)) {
        throw new InputError(
          "UNKNOWN_OPTION",
          `${quote(name)} was given twice: by itself and in ${where[0]}'s options`,
        );
      }
      take(name, value, where);
    }
  }
  for (const [name, value] of Object.entries(flat)) take(name, value, ["text", "image"]);
  return [parts.text, parts.image];
}

function unknownOption(name: string, value: unknown): InputError {
  if (Object.hasOwn(FIXED, name)) {
    const only = shown(FIXED[name]);
    return new InputError("UNKNOWN_OPTION", `${name} can only be ${only} here, got ${shown(value)}`);
  }
  return unknownName("the processor", name, [...ENCODE_OPTIONS, ...IMAGE_OPTIONS, ...OTHER_OPTIONS]);
}

/** Checks that rows have equal lengths, as a batch needs. */
export function refuseRagged(...batches: readonly number[][][]): void {
  for (const rows of batches) {
    const lengths = rows.map((row) => row.length);
    if (lengths.every((length) => length === lengths[0])) continue;
    throw new InputError(
      "RAGGED_BATCH",
      `the texts have ${lengths.join(", ").slice(0, 60)} tokens, must be as many in each`,
      {
        hint: "padding: true makes them equal",
      },
    );
  }
}

export function refusePlaceholder(prompts: readonly string[], token: string): void {
  const at = prompts.findIndex((prompt) => prompt.includes(token));
  if (at < 0) return;
  throw new InputError(
    "IMAGE_TOKEN_IN_TEXT",
    `text ${at} contains ${quote(token)}, which stands for the image itself`,
    {
      hint: "the processor puts the placeholders in; leave them out of the text",
    },
  );
}
