/** InstructBLIP for videos with Hugging Face's methods; model/instructblip_video.ts is the model. */
import type { StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import { sizes } from "../../tensor/shape.ts";
import { InstructBlipVideoConfig } from "../config/instructblip_video.ts";
import { InstructBlipVideo, type InstructedFrames } from "../model/instructblip_video.ts";
import type { Ids } from "../model/language_model.ts";
import type { InstructBlipQFormerModel } from "../model/qformer.ts";
import { type ImageFeatures, languageModel } from "../model/vision_language.ts";
import type { InputRules } from "./base/prompted_model.ts";
import type { ForwardOptions } from "./forward_options.ts";
import {
  blankImages,
  EXAMPLE_TEXT,
  examplePrompt,
  expectWords,
  type ModelInputs,
  type QFormerInputs,
  type VisionInputs,
} from "./inputs.ts";
import { INSTRUCTED, uploadInstruction } from "./instructblip.ts";
import { VisionLanguageModel } from "./vision_language_model.ts";

/** Model inputs from the processor: pixel_values f32[B, F, 3, H, W], F·Q placeholders in every row. */
export interface InstructBlipVideoInputs extends ModelInputs, QFormerInputs {
  input_ids: Ids;
}

/** Every frame is an image with its video's instruction. */
export const INSTRUCTED_FRAMES: InputRules<InstructBlipVideoConfig, InstructBlipVideoInputs, InstructedFrames> = {
  names: INSTRUCTED.names,
  pixel_layout: ["B", "F", "3", "H", "W"],
  featuresOf: ({ num_query_tokens }, { shape }) => framesIn(shape) * num_query_tokens,
  rowsOf: ({ qformer_input_ids }, B) => B ?? qformer_input_ids?.length,
  checkWords: (inputs, qformer: InstructBlipQFormerModel, B) => expectWords(inputs, qformer.embeddings, B),
  uploadWords: (device, { num_query_tokens }, { pixel_values, qformer_input_ids, qformer_attention_mask }) => {
    const F = framesIn(pixel_values.shape);
    const perFrame = (rows: Ids) => rows.flatMap((row) => new Array<readonly number[]>(F).fill(row));
    const instructed = {
      qformer_input_ids: perFrame(qformer_input_ids),
      ...(qformer_attention_mask && { qformer_attention_mask: perFrame(qformer_attention_mask) }),
    };
    return { ...uploadInstruction(device, instructed, num_query_tokens), frames: F };
  },
  exampleInputs: (config) => {
    const { data, shape } = blankImages(config, 1);
    const pixel_values = { data, shape: [1, ...shape] };
    return { pixel_values, qformer_input_ids: [EXAMPLE_TEXT], input_ids: [examplePrompt(config)] };
  },
};

/** F of pixel_values [B, F, 3, H, W]. */
function framesIn(shape: readonly number[]): number {
  return sizes(shape, 5)[1];
}

export class InstructBlipVideoForConditionalGeneration extends VisionLanguageModel<
  InstructBlipVideoConfig,
  InstructBlipVideoInputs,
  InstructedFrames
> {
  static readonly config_class = InstructBlipVideoConfig;

  constructor(weights: Weights, config: InstructBlipVideoConfig) {
    super(weights, config, new InstructBlipVideo(weights, config, languageModel), INSTRUCTED_FRAMES);
  }

  override get qformer(): InstructBlipQFormerModel {
    return super.qformer as InstructBlipQFormerModel;
  }

  /** Features of videos for an instruction, f32[B, F·Q, D]; outputs of vision model and Q-Former are f32[B·F, …]. */
  async get_video_features(
    inputs: VisionInputs & QFormerInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<ImageFeatures>;
  async get_video_features(...given: unknown[]): Promise<ImageFeatures> {
    return this.look("get_video_features", given, (features) => features);
  }
}
