/**
 * BLIP-2: InstructBLIP's elder, whose Q-Former has queries only. It brings back the same of an image whatever is asked.
 *
 *   pixels ─ vision_model ─► image states ─┐
 *   query_tokens ───────────────────────► qformer ─ language_projection ─► image features
 *   [<image> x Q][prompt] ─ embed_tokens ─ <image> rows replaced by image features ─► language_model ─► logits
 *
 * B rows, Q queries, D hidden size.
 * Source: Li et al. 2023, BLIP-2; transformers 5.18, modeling_blip_2.py.
 */
import type { StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { Blip2Config } from "../config/config.ts";
import {
  blankImages,
  examplePrompt,
  expectPixels,
  type ModelInputs,
  type Prompt,
  type VisionInputs,
} from "../pretrained/inputs.ts";
import { type ForwardOptions, type ImageFeatures, VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import { Blip2QFormerModel } from "./qformer.ts";

/** What the processor makes of images and text; of images alone there are no ids. */
export interface Blip2Inputs extends ModelInputs {}

export class Blip2ForConditionalGeneration extends VisionLanguageModel<Blip2Config, Blip2Inputs> {
  static readonly config_class = Blip2Config;
  /** Keeps its precision in a model of lower precision, as in HF. */
  readonly qformer: Blip2QFormerModel;
  protected readonly input_names = ["pixel_values", "input_ids", "attention_mask", "interpolate_pos_encoding"];

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config);
    this.qformer = new Blip2QFormerModel(weights.at("qformer").lossless(), config.qformer_config);
  }

  /** Image features: vision, Q-Former and projection alone. */
  async get_image_features(
    inputs: VisionInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<ImageFeatures>;
  async get_image_features(...given: unknown[]): Promise<ImageFeatures> {
    return this.look("get_image_features", given, (features) => features);
  }

  protected imageFeatures(inputs: VisionInputs): ImageFeatures {
    return uninstructedFeatures(this, inputs);
  }

  protected exampleInputs(): Blip2Inputs {
    return { pixel_values: blankImages(this.config, 1), input_ids: [examplePrompt(this.config)] };
  }

  protected override readPrompt(inputs: Blip2Inputs): Prompt {
    const prompt = super.readPrompt(inputs);
    expectPixels(inputs.pixel_values, ["B", "3", "H", "W"], prompt.B);
    return prompt;
  }
}

/** The parts of a model that looks at images alone. */
type UninstructedModel = Pick<
  Blip2ForConditionalGeneration,
  "device" | "vision_model" | "query_tokens" | "qformer" | "language_projection"
>;

/** Images to image features. @throws InputError */
export function uninstructedFeatures(
  { device, vision_model, query_tokens, qformer, language_projection }: UninstructedModel,
  { pixel_values, interpolate_pos_encoding }: VisionInputs,
): ImageFeatures {
  expectPixels(pixel_values, ["B", "3", "H", "W"]);
  const pixels = device.tensor(pixel_values.data, pixel_values.shape); // [B, 3, H, W]
  const vision_outputs = vision_model.forward(pixels, interpolate_pos_encoding);
  const [, Q, Dq] = query_tokens.shape;
  const queries = contiguous(query_tokens.expand([pixels.shape[0], Q, Dq])); // [B, Q, Dq]
  const qformer_outputs = qformer.forward(queries, vision_outputs.last_hidden_state);
  const image_features = language_projection.forward(qformer_outputs.last_hidden_state); // [B, Q, D]
  return { vision_outputs, qformer_outputs, image_features };
}
