/**
 * Pictures and text to what the model takes: pixels, the instruction in the Q-Former's vocabulary, and the prompt in the
 * language model's with a placeholder for every query in front.
 *
 * Source: transformers 5.18, models/instructblip/processing_instructblip.py and processing_utils.py (_merge_kwargs).
 */
import { refuseMore } from "../../tensor/arguments.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import type { PretrainedFrom } from "../pretrained/from_pretrained.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { DecodeOptions, EncodeOptions } from "../tokenizer/types.ts";
import type { PixelValues } from "./image.ts";
import type { Page } from "./image_drawable.ts";
import { BlipImageProcessor } from "./image_processor.ts";
import {
  openProcessor,
  type ProcessorFromPretrainedOptions,
  readQueryCount,
  requireQueryCount,
  saveProcessor,
} from "./processor_files.ts";
import {
  encodePrompts,
  type ImageInput,
  listOf,
  type ProcessorOptions,
  pixelsOf,
  placeholderOf,
  refusePlaceholder,
  refuseRagged,
  requestOf,
} from "./processor_input.ts";

export type { ImageInput } from "./processor_input.ts";

/** Options by Hugging Face's names, besides what the model shall see. */
export interface ProcessorInput extends ProcessorOptions {
  /** One picture or several: see {@link ImageInput}. In a browser also the `files` of an `<input>`. */
  images?: ImageInput | readonly ImageInput[] | Page<"FileList">;
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

/** What processors can do besides being called. */
export interface ProcessorBase {
  /** The language model's. */
  readonly tokenizer: Tokenizer;
  /** Placeholders a picture takes: none of a legacy model. Null where neither the processor's files nor the model's say. */
  readonly num_query_tokens: number | null;
  /** A row of ids to text. @throws InputError TOKENIZER_ID, TOKENIZER_OPTION, UNKNOWN_OPTION, ARGUMENTS */
  decode(ids: Iterable<number | bigint>, options?: DecodeOptions, ...more: never[]): string;
  /** Rows of ids to texts. */
  batch_decode(rows: Iterable<Iterable<number | bigint>>, options?: DecodeOptions, ...more: never[]): string[];
  /** The texts of what generate() returned, special tokens left out. */
  post_process_image_text_to_text(
    rows: Iterable<Iterable<number | bigint>>,
    options?: DecodeOptions,
    ...more: never[]
  ): string[];
  /**
   * Writes the processor's files as transformers 5 does, for from_pretrained here and there.
   *
   * @param to a path (Node), made if it is not there, or a WritableFolder
   * @throws WeightError IO; InputError NO_FILES
   */
  save_pretrained(to: string | WritableFolder, ...more: never[]): Promise<void>;
}

/** A processor is called: `await processor({ images: ["photo.jpg"], text: ["What is this?"] })`. */
export interface InstructBlipProcessor extends ProcessorBase {
  (
    input: ProcessorInput & { images: object | string; text: string | readonly string[] },
    options?: ProcessorOptions,
    ...more: never[]
  ): Promise<BatchFeature>;
  (input: ProcessorInput, options?: ProcessorInput, ...more: never[]): Promise<Partial<BatchFeature>>;
  readonly processor_class: "InstructBlipProcessor";
  readonly model_input_names: readonly string[];
  readonly image_processor: BlipImageProcessor;
  readonly qformer_tokenizer: Tokenizer;
  /** The placeholder's text, `<image>`. */
  readonly image_token: string;
}

export const InstructBlipProcessor = {
  /**
   * Reads the processor's files of a checkpoint folder: transformers 5's (processor_config.json) or 4's
   * (preprocessor_config.json beside it), tokenizer.json and qformer_tokenizer/.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError, WeightError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION; the signal's reason
   */
  async from_pretrained(
    from: PretrainedFrom,
    options: ProcessorFromPretrainedOptions = {},
  ): Promise<InstructBlipProcessor> {
    const { folder, backend } = await openProcessor(from, options);
    const num_query_tokens = await readQueryCount(folder);
    return makeProcessor(
      await BlipImageProcessor.from_pretrained(folder, backend),
      await Tokenizer.from_pretrained(folder),
      await Tokenizer.from_pretrained(folder, "qformer_tokenizer"),
      num_query_tokens,
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
  const processor_class = "InstructBlipProcessor";
  const image_token = placeholderOf(tokenizer, "image");

  const process = async (...given: unknown[]): Promise<Partial<BatchFeature>> => {
    const request = requestOf(given, listOf<ImageInput>);
    const { pictures, prompts } = request;
    const feature: Partial<BatchFeature> = {};
    if (prompts) {
      if (!request.allow_image_token) refusePlaceholder(prompts, image_token);
      // What tokenizer_config.json says of padding_side and the like is passed on to both tokenizers, so that the
      // Q-Former's text may come out padded on the left, which changes its positions.
      const shared: EncodeOptions = { ...tokenizer.processor_defaults, ...request.text };
      const qformer = qformer_tokenizer.encode_batch(prompts, shared);
      // The queries count towards the language model's max_length, not towards the Q-Former's.
      const queries = num_query_tokens ?? 0;
      const count = pictures ? requireQueryCount(num_query_tokens) : 0;
      const prompt = encodePrompts(tokenizer, prompts, shared, { queries, token: image_token, count });
      refuseRagged(qformer.input_ids, prompt.input_ids);
      feature.qformer_input_ids = qformer.input_ids;
      feature.qformer_attention_mask = qformer.attention_mask;
      feature.input_ids = prompt.input_ids;
      feature.attention_mask = prompt.attention_mask;
    }
    if (pictures) {
      feature.pixel_values = await pixelsOf(image_processor, pictures, request.image, request.exif_transpose);
    }
    return feature;
  };

  return Object.assign(
    process as unknown as InstructBlipProcessor,
    {
      processor_class,
      model_input_names: [
        "input_ids",
        "attention_mask",
        "pixel_values",
        "qformer_input_ids",
        "qformer_attention_mask",
      ] as const,
      image_processor,
      qformer_tokenizer,
      image_token,
      ...baseOf(tokenizer, num_query_tokens, (to) =>
        saveProcessor(to, {
          processor_class,
          pixels: { image_processor: image_processor.toJSON() },
          num_query_tokens,
          tokenizer,
          qformer_tokenizer,
        }),
      ),
    } as const,
  );
}

/** What every processor takes over from its tokenizer. */
export function baseOf(
  tokenizer: Tokenizer,
  num_query_tokens: number | null,
  save_pretrained: (to: string | WritableFolder) => Promise<void>,
): ProcessorBase {
  return {
    tokenizer,
    num_query_tokens,
    decode: (...given) => tokenizer.decode(...given),
    batch_decode: (...given) => tokenizer.batch_decode(...given),
    post_process_image_text_to_text: (rows, options = { skip_special_tokens: true }, ...more) => {
      const isObject = typeof options === "object" && options !== null;
      return tokenizer.batch_decode(rows, isObject ? { skip_special_tokens: true, ...options } : options, ...more);
    },
    async save_pretrained(to, ...more) {
      refuseMore("save_pretrained", more, 0, 1);
      await save_pretrained(to);
    },
  };
}
