/**
 * InstructBLIP: a frozen image encoder, a Q-Former that reads the instruction while it looks at the image, a projection
 * into the language model's embeddings, and the language model.
 *
 *   pixels ─ vision_model ─► image states ─┐
 *   query_tokens, instruction ──────────► qformer ─ first Q outputs ─ language_projection ─► image features
 *   [<image> x Q][instruction] ─ embed_tokens ─ <image> rows replaced by image features ─► language_model ─► logits
 *
 * B rows, Q queries, T instruction tokens, L = prompt tokens with the Q placeholders, D hidden size, V vocabulary.
 * Source: Dai et al. 2023, InstructBLIP, figure 3; transformers 5.18, modeling_instructblip.py.
 */
import type { StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { InstructBlipConfig } from "../config/config.ts";
import {
  blankImages,
  EXAMPLE_TEXT,
  examplePrompt,
  expectIds,
  expectPixels,
  expectRectangle,
  expectSameRows,
  type ModelInputs,
  maskOf,
  type Prompt,
  type QFormerInputs,
  type VisionInputs,
} from "../pretrained/inputs.ts";
import {
  type ForwardOptions,
  type ImageFeatures,
  VisionLanguageModel,
  type VisionLanguageOutput,
} from "../pretrained/vision_language_model.ts";
import { type Ids, upload } from "./language_model.ts";
import { InstructBlipQFormerModel } from "./qformer.ts";

export type { HostTensor } from "../pretrained/inputs.ts";
export type {
  ForwardInputs,
  FromPretrainedOptions,
  GenerateOptions,
  ImageFeatures,
} from "../pretrained/vision_language_model.ts";
export type { Ids } from "./language_model.ts";

/** What the processor makes of images and text. */
export interface InstructBlipInputs extends ModelInputs, QFormerInputs {
  input_ids: Ids;
}
export interface InstructBlipOutput extends VisionLanguageOutput {}

export class InstructBlipForConditionalGeneration extends VisionLanguageModel<InstructBlipConfig, InstructBlipInputs> {
  static readonly config_class = InstructBlipConfig;
  readonly qformer: InstructBlipQFormerModel;
  protected readonly input_names = [
    "pixel_values",
    "qformer_input_ids",
    "qformer_attention_mask",
    "input_ids",
    "attention_mask",
    "interpolate_pos_encoding",
  ];

  constructor(weights: Weights, config: InstructBlipConfig) {
    super(weights, config);
    this.qformer = new InstructBlipQFormerModel(weights.at("qformer"), config.qformer_config);
  }

  /** Image features for an instruction: vision, Q-Former and projection alone. */
  async get_image_features(
    inputs: VisionInputs & QFormerInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<ImageFeatures>;
  async get_image_features(...given: unknown[]): Promise<ImageFeatures> {
    return this.look("get_image_features", given, (features) => features);
  }

  protected imageFeatures(inputs: VisionInputs & QFormerInputs): ImageFeatures {
    return instructedFeatures(this, inputs);
  }

  protected exampleInputs(): InstructBlipInputs {
    const pixel_values = blankImages(this.config, 1);
    return { pixel_values, qformer_input_ids: [EXAMPLE_TEXT], input_ids: [examplePrompt(this.config)] };
  }

  protected override readPrompt(inputs: InstructBlipInputs): Prompt {
    const prompt = super.readPrompt(inputs);
    expectSameRows(prompt, inputs.qformer_input_ids);
    return prompt;
  }
}

/** The parts of a model that looks at images with an instruction in mind: InstructBLIP, and the same for videos. */
type InstructedModel = Pick<
  InstructBlipForConditionalGeneration,
  "device" | "vision_model" | "query_tokens" | "qformer" | "language_projection"
>;

/** Images, each with a row of instruction, to image features. @throws InputError */
export function instructedFeatures(
  { device, vision_model, query_tokens, qformer, language_projection }: InstructedModel,
  { pixel_values, interpolate_pos_encoding, qformer_input_ids, qformer_attention_mask }: VisionInputs & QFormerInputs,
): ImageFeatures {
  const T = expectRectangle("qformer_input_ids", qformer_input_ids);
  const B = qformer_input_ids.length;
  expectIds("qformer_input_ids", qformer_input_ids, qformer.embeddings.word_embeddings.num_embeddings);
  const text_mask = maskOf("qformer_attention_mask", qformer_attention_mask, qformer_input_ids);
  expectPixels(pixel_values, ["B", "3", "H", "W"], B);

  const pixels = device.tensor(pixel_values.data, pixel_values.shape); // [B, 3, H, W]
  const vision_outputs = vision_model.forward(pixels, interpolate_pos_encoding);
  const image_states = vision_outputs.last_hidden_state; // [B, N + 1, Dv]

  const [, Q, Dq] = query_tokens.shape;
  const queries = contiguous(query_tokens.expand([B, Q, Dq])); // [B, Q, Dq]
  const ids = upload(device, qformer_input_ids); // [B, T]
  const mask = text_mask.map((row) => [...new Array<number>(Q).fill(1), ...row]);
  const attention_mask = device.tensor(Uint32Array.from(mask.flat()), [B, Q + T]);
  const qformer_outputs = qformer.forward(ids, attention_mask, queries, image_states);

  const query_output = contiguous(qformer_outputs.last_hidden_state.narrow(1, 0, Q)); // [B, Q, Dq]
  const image_features = language_projection.forward(query_output); // [B, Q, D]
  return { vision_outputs, qformer_outputs, image_features };
}
