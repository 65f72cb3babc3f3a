/**
 * BLIP-2's processor: InstructBLIP's without the Q-Former's text, as its Q-Former reads none.
 *
 * Source: transformers 5.18, models/blip_2/processing_blip_2.py.
 */

import { BLIP_2 } from "../config/families.ts";
import type { BlipImageProcessor } from "./image_processor.ts";
import type { BatchFeature, InstructBlipProcessorParts, ProcessorInput } from "./instructblip_processor.ts";
import { ProcessorBase, type ProcessorTraits } from "./processor.ts";

/** In Hugging Face's order; text or pixels are absent where none were given. Rows of one kind have one length. */
export interface Blip2BatchFeature extends Pick<BatchFeature, "input_ids" | "attention_mask" | "pixel_values"> {}

/** The parts of a Blip2Processor. */
export interface Blip2ProcessorParts extends Pick<InstructBlipProcessorParts, "image_processor" | "tokenizer"> {
  /** Placeholders per image. Null (default): none. */
  readonly num_query_tokens?: number | null;
}

/** A processor is called: `await processor({ images: ["photo.jpg"], text: ["Question: what is this? Answer:"] })`. */
export class Blip2Processor extends ProcessorBase<ProcessorInput, Blip2BatchFeature, Blip2ProcessorParts> {
  static readonly family = BLIP_2;
  static readonly traits: ProcessorTraits = {
    has_qformer_tokenizer: false,
    has_tokenizer_defaults: true,
    requires_query_count: false,
  };
  readonly processor_class = "Blip2Processor";

  get image_processor(): BlipImageProcessor {
    return this.pixels;
  }

  /** The placeholder's text, `<image>`. */
  get image_token(): string {
    return this.placeholder;
  }
}
