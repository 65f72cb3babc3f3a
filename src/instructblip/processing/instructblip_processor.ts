/**
 * InstructBLIP's processor.
 *
 * Source: transformers 5.18, models/instructblip/processing_instructblip.py.
 */

import { INSTRUCTBLIP } from "../config/families.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { PixelValues } from "./image.ts";
import type { Page } from "./image_drawable.ts";
import type { BlipImageProcessor } from "./image_processor.ts";
import { ProcessorBase, type ProcessorTraits } from "./processor.ts";
import type { ImageInput, ProcessorOptions } from "./processor_input.ts";

/** Images and text, and options by Hugging Face's names. */
export interface ProcessorInput extends ProcessorOptions {
  /**
   * One image, or one for each text: see {@link ImageInput}. In a browser also the `files` of an `<input>`. Of several images
   * for a text a list for each text, which has `<image>` where each stands, or nowhere: they are then in front.
   */
  images?: ImageInput | readonly ImageInput[] | readonly (readonly ImageInput[])[] | Page<"FileList">;
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

/** The parts of an InstructBlipProcessor. */
export interface InstructBlipProcessorParts {
  readonly image_processor: BlipImageProcessor;
  /** The language model's. */
  readonly tokenizer: Tokenizer;
  readonly qformer_tokenizer: Tokenizer;
  /** Placeholders per image. Null (default): images cannot be given together with text. */
  readonly num_query_tokens?: number | null;
}

/** A processor is called: `await processor({ images: ["photo.jpg"], text: ["What is this?"] })`. */
export class InstructBlipProcessor extends ProcessorBase<ProcessorInput, BatchFeature, InstructBlipProcessorParts> {
  static readonly family = INSTRUCTBLIP;
  static readonly traits: ProcessorTraits = {
    has_qformer_tokenizer: true,
    has_tokenizer_defaults: true,
    requires_query_count: true,
  };
  readonly processor_class = "InstructBlipProcessor";

  get image_processor(): BlipImageProcessor {
    return this.pixels;
  }

  get qformer_tokenizer(): Tokenizer {
    return this.qformer!;
  }

  /** The placeholder's text, `<image>`. */
  get image_token(): string {
    return this.placeholder;
  }
}
