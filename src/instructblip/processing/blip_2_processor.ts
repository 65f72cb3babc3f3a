/**
 * BLIP-2's processor: InstructBLIP's without the Q-Former's text, for its Q-Former reads none.
 *
 * Source: transformers 5.18, models/blip_2/processing_blip_2.py.
 */

import type { PretrainedFrom } from "../pretrained/from_pretrained.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { EncodeOptions } from "../tokenizer/types.ts";
import { BlipImageProcessor } from "./image_processor.ts";
import { type BatchFeature, baseOf, type ProcessorBase, type ProcessorInput } from "./processor.ts";
import {
  openProcessor,
  type ProcessorFromPretrainedOptions,
  readQueryCount,
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

/** In Hugging Face's order; text or pixels are absent where none were given. Rows of one kind have one length. */
export interface Blip2BatchFeature extends Pick<BatchFeature, "input_ids" | "attention_mask" | "pixel_values"> {}

/** A processor is called: `await processor({ images: ["photo.jpg"], text: ["Question: what is this? Answer:"] })`. */
export interface Blip2Processor extends ProcessorBase {
  (
    input: ProcessorInput & { images: object | string; text: string | readonly string[] },
    options?: ProcessorOptions,
    ...more: never[]
  ): Promise<Blip2BatchFeature>;
  (input: ProcessorInput, options?: ProcessorInput, ...more: never[]): Promise<Partial<Blip2BatchFeature>>;
  readonly processor_class: "Blip2Processor";
  readonly model_input_names: readonly string[];
  readonly image_processor: BlipImageProcessor;
  /** The placeholder's text, `<image>`. */
  readonly image_token: string;
}

export const Blip2Processor = {
  /**
   * Reads processor_config.json, or preprocessor_config.json, and tokenizer.json of a checkpoint folder.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError, WeightError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION; the signal's reason
   */
  async from_pretrained(from: PretrainedFrom, options: ProcessorFromPretrainedOptions = {}): Promise<Blip2Processor> {
    const { folder, backend } = await openProcessor(from, options);
    const num_query_tokens = await readQueryCount(folder);
    return makeBlip2Processor(
      await BlipImageProcessor.from_pretrained(folder, backend),
      await Tokenizer.from_pretrained(folder),
      num_query_tokens,
    );
  },
};

/**
 * Puts a processor together from its parts.
 *
 * @param num_query_tokens null: pictures get no placeholders, as in Hugging Face
 */
export function makeBlip2Processor(
  image_processor: BlipImageProcessor,
  tokenizer: Tokenizer,
  num_query_tokens: number | null,
): Blip2Processor {
  const processor_class = "Blip2Processor";
  const image_token = placeholderOf(tokenizer, "image");

  const process = async (...given: unknown[]): Promise<Partial<Blip2BatchFeature>> => {
    const request = requestOf(given, listOf<ImageInput>);
    const { pictures, prompts } = request;
    const feature: Partial<Blip2BatchFeature> = {};
    if (prompts) {
      if (!request.allow_image_token) refusePlaceholder(prompts, image_token);
      const options: EncodeOptions = { ...tokenizer.processor_defaults, ...request.text };
      const queries = num_query_tokens ?? 0;
      const count = pictures ? queries : 0;
      const prompt = encodePrompts(tokenizer, prompts, options, { queries, token: image_token, count });
      refuseRagged(prompt.input_ids);
      feature.input_ids = prompt.input_ids;
      feature.attention_mask = prompt.attention_mask;
    }
    if (pictures) {
      feature.pixel_values = await pixelsOf(image_processor, pictures, request.image, request.exif_transpose);
    }
    return feature;
  };

  return Object.assign(
    process as unknown as Blip2Processor,
    {
      processor_class,
      model_input_names: ["input_ids", "attention_mask", "pixel_values"] as const,
      image_processor,
      image_token,
      ...baseOf(tokenizer, num_query_tokens, (to) =>
        saveProcessor(to, {
          processor_class,
          pixels: { image_processor: image_processor.toJSON() },
          num_query_tokens,
          tokenizer,
        }),
      ),
    } as const,
  );
}
