/**
 * Pictures and text to what the model takes: pixels, the instruction in the Q-Former's vocabulary, and the prompt in the
 * language model's with a placeholder for every query in front.
 *
 * Source: transformers 5.18, models/instructblip/processing_instructblip.py and processing_utils.py (_merge_kwargs).
 */
import { ConfigError, InputError, nearest } from "../tensor/errors.ts";
import type { Folder } from "../tensor/source.ts";
import {
  BlipImageProcessor,
  IMAGE_OPTIONS,
  type ImageOptions,
  MAX_IMAGES,
  type PixelTensor,
  type PixelValues,
  type RgbImage,
  stack,
} from "./image_processor.ts";
import { readJson } from "./json_file.ts";
import { platform } from "./platform.ts";
import { type DecodeOptions, type EncodeOptions, Tokenizer } from "./tokenizer.ts";

/** A picture: a path (Node) or URL (browser), a file's bytes, decoded pixels, or a tensor of them. */
export type ImageInput = string | URL | Blob | Uint8Array | RgbImage | PixelTensor;

/** Options by Hugging Face's names. Those of the text go to both tokenizers. */
export interface ProcessorInput extends EncodeOptions, ImageOptions {
  images?: ImageInput | readonly ImageInput[];
  /** One prompt, or one for each picture. */
  text?: string | readonly string[];
  /** Takes text that spells the placeholder token as that token, as HF does; otherwise it is refused. */
  allow_image_token?: boolean;
  /** Turn pictures upright by their EXIF orientation, which HF ignores. Default false. */
  exif_transpose?: boolean;
  /** Ignored: rows are always arrays of numbers. */
  return_tensors?: string;
}

/** In Hugging Face's order; text or pixels are absent where none were given. Rows of one kind have one length. */
export interface BatchFeature {
  qformer_input_ids: number[][];
  qformer_attention_mask: number[][];
  input_ids: number[][];
  attention_mask: number[][];
  /** f32[B, 3, H, W] */
  pixel_values: PixelValues;
}

/** A processor is called: `await processor({ images: ["photo.jpg"], text: ["What is this?"] })`. */
export interface InstructBlipProcessor {
  (input: ProcessorInput & { images: object | string; text: string | readonly string[] }): Promise<BatchFeature>;
  (input: ProcessorInput): Promise<Partial<BatchFeature>>;
  readonly image_processor: BlipImageProcessor;
  /** The language model's. */
  readonly tokenizer: Tokenizer;
  readonly qformer_tokenizer: Tokenizer;
  /** Placeholders a picture takes; null in files older than transformers 4.45. */
  readonly num_query_tokens: number | null;
  /** The placeholder's text, `<image>`. */
  readonly image_token: string;
  decode(ids: Iterable<number | bigint>, options?: DecodeOptions): string;
  batch_decode(rows: Iterable<Iterable<number | bigint>>, options?: DecodeOptions): string[];
}

const TEXT_OPTIONS: readonly string[] = [
  "add_special_tokens",
  "padding",
  "truncation",
  "max_length",
  "pad_to_multiple_of",
  "padding_side",
  "truncation_side",
] satisfies (keyof EncodeOptions)[];

export const InstructBlipProcessor = {
  /**
   * Reads the processor's files of a checkpoint folder: transformers 5's (processor_config.json) or 4's
   * (preprocessor_config.json beside it), tokenizer.json and qformer_tokenizer/.
   *
   * @param from a path, or a Folder
   * @throws ConfigError, WeightError
   */
  async from_pretrained(from: string | Folder): Promise<InstructBlipProcessor> {
    const folder = typeof from === "string" ? await platform().openFolder(from) : from;
    const config = (await readJson(folder, "processor_config.json")) ?? {};
    const num_query_tokens = config.num_query_tokens ?? null;
    if (num_query_tokens !== null && !(Number.isInteger(num_query_tokens) && (num_query_tokens as number) > 0)) {
      throw new ConfigError(
        "CONFIG_RANGE",
        `processor_config.json: num_query_tokens must be a whole number from 1, got ${JSON.stringify(num_query_tokens)}`,
      );
    }
    return makeProcessor(
      await BlipImageProcessor.from_pretrained(folder),
      await Tokenizer.from_pretrained(folder),
      await Tokenizer.from_pretrained(folder, "qformer_tokenizer"),
      num_query_tokens as number | null,
    );
  },
};

/** Puts a processor together from its parts. */
export function makeProcessor(
  image_processor: BlipImageProcessor,
  tokenizer: Tokenizer,
  qformer_tokenizer: Tokenizer,
  num_query_tokens: number | null,
): InstructBlipProcessor {
  const image_token = tokenizer.special_tokens_map.image_token ?? "<image>";
  if (!tokenizer.hasAddedToken(image_token)) tokenizer.addSpecialToken(image_token);

  const process = async (input: ProcessorInput): Promise<Partial<BatchFeature>> => {
    const { images, text, allow_image_token = false, exif_transpose = false, return_tensors: _, ...options } = input;
    const pictures = images === undefined || images === null ? undefined : listOf<ImageInput>(images);
    const prompts = text === undefined || text === null ? undefined : listOf<string>(text);
    if (!pictures && !prompts) throw new InputError("NO_INPUT", "give the processor images, text, or both");
    const [textOptions, imageOptions] = divide(options);
    const feature: Partial<BatchFeature> = {};
    if (prompts) {
      if (prompts.length === 0 || !prompts.every((prompt) => typeof prompt === "string")) {
        throw new InputError("BAD_PROMPT", "text must be a string or a list of strings");
      }
      if (pictures && pictures.length !== prompts.length) {
        throw new InputError("BATCH_MISMATCH", `${pictures.length} images but ${prompts.length} texts`, {
          hint: "the model takes one text for each image",
        });
      }
      if (!allow_image_token) refuseImageToken(prompts, image_token);
      // What tokenizer_config.json says of padding_side and the like is passed on to both tokenizers, so that the
      // Q-Former's text may come out padded on the left, which changes its positions.
      const shared: EncodeOptions = { ...tokenizer.processor_defaults, ...textOptions };
      const qformer = qformer_tokenizer.encode_batch(prompts, shared);
      // The queries count towards the language model's max_length, not towards the Q-Former's.
      const max_length = shared.max_length == null ? undefined : shared.max_length - (num_query_tokens ?? 0);
      if (max_length !== undefined && max_length < 0) {
        throw new InputError(
          "TOKENIZER_LENGTH",
          `max_length ${shared.max_length} leaves no room for the ${num_query_tokens} queries of the image`,
        );
      }
      const prompt = tokenizer.encode_batch(prompts, { ...shared, max_length });
      refuseRagged(qformer.input_ids, prompt.input_ids);
      feature.qformer_input_ids = qformer.input_ids;
      feature.qformer_attention_mask = qformer.attention_mask;
      const queries = pictures ? (num_query_tokens ?? noQueries()) : 0;
      const placeholder = tokenizer.convert_tokens_to_ids(image_token)!;
      // In front of everything, the beginning-of-sequence token and left padding included.
      feature.input_ids = prompt.input_ids.map((row) => [...new Array<number>(queries).fill(placeholder), ...row]);
      feature.attention_mask = prompt.attention_mask.map((row) => [...new Array<number>(queries).fill(1), ...row]);
    }
    if (pictures) {
      if (pictures.length === 0) throw new InputError("BAD_PIXELS", "the list of images is empty");
      if (pictures.length > MAX_IMAGES) {
        throw new InputError("BATCH_LIMIT", `${pictures.length} images in one batch, the limit is ${MAX_IMAGES}`);
      }
      // One after the other: only one decoded picture is held at a time.
      const values: PixelValues[] = [];
      for (const [i, picture] of pictures.entries()) {
        const decoded = await decodeInput(picture, i, exif_transpose);
        values.push(image_processor.preprocess([decoded], imageOptions));
      }
      feature.pixel_values = stack(values);
    }
    return feature;
  };

  return Object.assign(process as InstructBlipProcessor, {
    image_processor,
    tokenizer,
    qformer_tokenizer,
    num_query_tokens,
    image_token,
    decode: (ids: Iterable<number | bigint>, options?: DecodeOptions) => tokenizer.decode(ids, options),
    batch_decode: (rows: Iterable<Iterable<number | bigint>>, options?: DecodeOptions) =>
      tokenizer.batch_decode(rows, options),
  });
}

function listOf<T>(value: unknown): readonly T[] {
  return Array.isArray(value) ? value : [value as T];
}

async function decodeInput(image: ImageInput, index: number, exif_transpose: boolean): Promise<RgbImage | PixelTensor> {
  const name = `image ${index}`;
  if (image instanceof Blob) {
    return platform().readImage(new Uint8Array(await image.arrayBuffer()), name, { exif_transpose });
  }
  if (typeof image === "string" || image instanceof URL || image instanceof Uint8Array) {
    return platform().readImage(image, name, { exif_transpose });
  }
  if (typeof image === "object" && image !== null && "data" in image) return image;
  throw new InputError("BAD_PIXELS", `${name} must be a path, a URL, the bytes of a file or pixels`);
}

/** The tokenizers' options and the image processor's; any other is refused, for it would have no effect. */
function divide(options: Record<string, unknown>): [EncodeOptions, ImageOptions] {
  const text: Record<string, unknown> = {};
  const image: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (TEXT_OPTIONS.includes(name)) text[name] = value;
    else if (IMAGE_OPTIONS.includes(name)) image[name] = value;
    else {
      const meant = nearest(name, [...TEXT_OPTIONS, ...IMAGE_OPTIONS, "images", "text", "allow_image_token"]);
      throw new InputError("UNKNOWN_OPTION", `the processor has no option ${name}`, {
        hint: meant && `did you mean ${meant}?`,
      });
    }
  }
  return [text, image];
}

/** A batch is one array for the model, so its rows must have one length. */
function refuseRagged(...batches: number[][][]): void {
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

function refuseImageToken(prompts: readonly string[], image_token: string): void {
  const at = prompts.findIndex((prompt) => prompt.includes(image_token));
  if (at < 0) return;
  throw new InputError(
    "IMAGE_TOKEN_IN_TEXT",
    `text ${at} contains "${image_token}", which stands for the picture itself`,
    {
      hint: "the processor puts the placeholders in; leave them out of the text",
    },
  );
}

function noQueries(): never {
  throw new ConfigError(
    "CONFIG_MISSING",
    "processor_config.json has no num_query_tokens, so the image's placeholders cannot be counted",
    {
      hint: "add it, with config.json's value (32 in the published checkpoints)",
    },
  );
}
