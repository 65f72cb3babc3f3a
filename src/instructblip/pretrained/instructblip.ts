/** InstructBLIP with Hugging Face's methods; model/instructblip.ts is the model. */
import type { StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Device } from "../../tensor/device/device.ts";
import { InstructBlipConfig } from "../config/instructblip.ts";
import { InstructBlip, type InstructedImages, type Instruction } from "../model/instructblip.ts";
import { type Ids, upload } from "../model/language_model.ts";
import type { InstructBlipQFormerModel } from "../model/qformer.ts";
import { type ImageFeatures, languageModel, type VisionLanguageOutput } from "../model/vision_language.ts";
import type { InputRules } from "./base/prompted_model.ts";
import type { ForwardOptions } from "./forward_options.ts";
import {
  blankImages,
  EXAMPLE_TEXT,
  examplePrompt,
  expectWords,
  type ModelInputs,
  maskOf,
  type QFormerInputs,
  type VisionInputs,
} from "./inputs.ts";
import { VisionLanguageModel } from "./vision_language_model.ts";

/** Model inputs from the processor. */
export interface InstructBlipInputs extends ModelInputs, QFormerInputs {
  input_ids: Ids;
}
export interface InstructBlipOutput extends VisionLanguageOutput {}

/** The Q-Former reads an instruction. */
export const INSTRUCTED: InputRules<InstructBlipConfig, InstructBlipInputs, InstructedImages> = {
  names: [
    "pixel_values",
    "qformer_input_ids",
    "qformer_attention_mask",
    "input_ids",
    "attention_mask",
    "interpolate_pos_encoding",
  ] satisfies (keyof InstructBlipInputs)[],
  pixel_layout: ["B", "3", "H", "W"],
  featuresOf: ({ num_query_tokens }) => num_query_tokens,
  rowsOf: ({ qformer_input_ids }, B) => B ?? qformer_input_ids?.length,
  checkWords: (inputs, qformer: InstructBlipQFormerModel, B) => expectWords(inputs, qformer.embeddings, B),
  uploadWords: (device, { num_query_tokens }, inputs) => uploadInstruction(device, inputs, num_query_tokens),
  exampleInputs: (config) => ({
    pixel_values: blankImages(config, 1),
    qformer_input_ids: [EXAMPLE_TEXT],
    input_ids: [examplePrompt(config)],
  }),
};

export class InstructBlipForConditionalGeneration extends VisionLanguageModel<
  InstructBlipConfig,
  InstructBlipInputs,
  InstructedImages
> {
  static readonly config_class = InstructBlipConfig;

  constructor(weights: Weights, config: InstructBlipConfig) {
    super(weights, config, new InstructBlip(weights, config, languageModel), INSTRUCTED);
  }

  override get qformer(): InstructBlipQFormerModel {
    return super.qformer as InstructBlipQFormerModel;
  }

  /** Image features for an instruction: image encoder, Q-Former and projection, without the language model. */
  async get_image_features(
    inputs: VisionInputs & QFormerInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<ImageFeatures>;
  async get_image_features(...given: unknown[]): Promise<ImageFeatures> {
    return this.look("get_image_features", given, (features) => features);
  }
}

/**
 * The instruction on the device.
 *
 * @param Q queries, which are always visible
 */
export function uploadInstruction(
  device: Device,
  { qformer_input_ids, qformer_attention_mask }: QFormerInputs,
  Q: number,
): Instruction {
  const words = maskOf("qformer_attention_mask", qformer_attention_mask, qformer_input_ids);
  return {
    qformer_input_ids: upload(device, qformer_input_ids),
    qformer_attention_mask: upload(
      device,
      words.map((row) => [...new Array<number>(Q).fill(1), ...row]),
    ),
  };
}
