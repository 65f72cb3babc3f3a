/** BLIP-2 with Hugging Face's methods; model/blip_2.ts is the model. */
import type { StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import { Blip2Config } from "../config/blip_2.ts";
import { Blip2 } from "../model/blip_2.ts";
import type { Blip2QFormer } from "../model/qformer.ts";
import type { ImageFeatures, ImageTensors } from "../model/vision_language.ts";
import type { InputRules } from "./base/prompted_model.ts";
import type { ForwardOptions } from "./forward_options.ts";
import { blankImages, examplePrompt, type ModelInputs, type VisionInputs } from "./inputs.ts";
import { VisionLanguageModel } from "./vision_language_model.ts";

/** Model inputs from the processor; without ids for images alone. */
export interface Blip2Inputs extends ModelInputs {}

/** The Q-Former reads no text. */
export const QUERIES_ONLY: InputRules<Blip2Config, Blip2Inputs, ImageTensors> = {
  names: ["pixel_values", "input_ids", "attention_mask", "interpolate_pos_encoding"],
  pixel_layout: ["B", "3", "H", "W"],
  featuresOf: ({ num_query_tokens }) => num_query_tokens,
  rowsOf: (_, B) => B,
  checkWords: () => {},
  uploadWords: () => ({}),
  exampleInputs: (config) => ({ pixel_values: blankImages(config, 1), input_ids: [examplePrompt(config)] }),
};

export class Blip2ForConditionalGeneration extends VisionLanguageModel<Blip2Config, Blip2Inputs> {
  static readonly config_class = Blip2Config;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config, new Blip2(weights, config), QUERIES_ONLY);
  }

  override get qformer(): Blip2QFormer {
    return super.qformer as Blip2QFormer;
  }

  /** Image features: image encoder, Q-Former and projection, without the language model. */
  async get_image_features(
    inputs: VisionInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<ImageFeatures>;
  async get_image_features(...given: unknown[]): Promise<ImageFeatures> {
    return this.look("get_image_features", given, (features) => features);
  }
}
