/**
 * InstructBLIP for videos: the same model, shown every frame as an image with the same instruction. The frames' features
 * follow one another in the prompt, [<video> x F·Q][instruction].
 *
 * B videos, F frames (any number; the processor of Hugging Face gives 4), Q queries a frame, D hidden size.
 * Source: transformers 5.18, modeling_instructblipvideo.py; LAVIS, blip2_vicuna_instruct.py, which looks at frames so.
 */
import type { StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import { InstructBlipVideoConfig } from "../config/config.ts";
import {
  blankImages,
  EXAMPLE_TEXT,
  examplePrompt,
  expectPixelShape,
  expectPixels,
  expectRectangle,
  expectSameRows,
  type ModelInputs,
  type Prompt,
  type QFormerInputs,
  type VisionInputs,
} from "../pretrained/inputs.ts";
import { type ForwardOptions, type ImageFeatures, VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import { instructedFeatures } from "./instructblip.ts";
import type { Ids } from "./language_model.ts";
import { InstructBlipQFormerModel } from "./qformer.ts";

/** What the processor makes of videos and text: pixel_values f32[B, F, 3, H, W], F·Q placeholders in every row. */
export interface InstructBlipVideoInputs extends ModelInputs, QFormerInputs {
  input_ids: Ids;
}

const LAYOUT = ["B", "F", "3", "H", "W"];

export class InstructBlipVideoForConditionalGeneration extends VisionLanguageModel<
  InstructBlipVideoConfig,
  InstructBlipVideoInputs
> {
  static readonly config_class = InstructBlipVideoConfig;
  readonly qformer: InstructBlipQFormerModel;
  protected override readonly pixel_layout = LAYOUT;
  protected readonly input_names = [
    "pixel_values",
    "qformer_input_ids",
    "qformer_attention_mask",
    "input_ids",
    "attention_mask",
    "interpolate_pos_encoding",
  ];

  constructor(weights: Weights, config: InstructBlipVideoConfig) {
    super(weights, config);
    this.qformer = new InstructBlipQFormerModel(weights.at("qformer"), config.qformer_config);
  }

  /** Features of videos for an instruction, f32[B, F·Q, D]; what vision and Q-Former say of them is f32[B·F, …]. */
  async get_video_features(
    inputs: VisionInputs & QFormerInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<ImageFeatures>;
  async get_video_features(...given: unknown[]): Promise<ImageFeatures> {
    return this.look("get_video_features", given, (features) => features);
  }

  protected imageFeatures({
    pixel_values,
    qformer_input_ids,
    qformer_attention_mask,
    ...rest
  }: VisionInputs & QFormerInputs): ImageFeatures {
    expectRectangle("qformer_input_ids", qformer_input_ids);
    expectPixels(pixel_values, LAYOUT, qformer_input_ids.length);
    const [B, F, ...image] = pixel_values.shape;
    const perFrame = (rows: Ids) => rows.flatMap((row) => new Array<readonly number[]>(F).fill(row));
    const features = instructedFeatures(this, {
      pixel_values: { data: pixel_values.data, shape: [B * F, ...image] },
      qformer_input_ids: perFrame(qformer_input_ids),
      ...(qformer_attention_mask && { qformer_attention_mask: perFrame(qformer_attention_mask) }),
      ...rest,
    });
    const [, Q, D] = features.image_features.shape;
    return { ...features, image_features: features.image_features.reshape([B, F * Q, D]) };
  }

  protected exampleInputs(): InstructBlipVideoInputs {
    const { data, shape } = blankImages(this.config, 1);
    const pixel_values = { data, shape: [1, ...shape] };
    return { pixel_values, qformer_input_ids: [EXAMPLE_TEXT], input_ids: [examplePrompt(this.config)] };
  }

  protected override readPrompt(inputs: InstructBlipVideoInputs): Prompt {
    expectPixelShape(inputs.pixel_values, LAYOUT);
    const prompt = super.readPrompt(inputs, inputs.pixel_values.shape[1] * this.config.num_query_tokens);
    expectSameRows(prompt, inputs.qformer_input_ids);
    return prompt;
  }
}
