/**
 * InstructBLIP: a frozen image encoder, a Q-Former that attends to the image and reads the instruction, a projection into
 * the language model's embeddings, and the language model.
 *
 *   pixels ─ vision_model ─► image states ─┐
 *   query_tokens, instruction ──────────► qformer ─ first Q outputs ─ language_projection ─► image features
 *   [<image> x Q][instruction] ─ embed_tokens ─ <image> rows replaced by image features ─► language_model ─► logits
 *
 *                                                      ViT-g/14, Vicuna-7B
 *   pixels                              [B, 3, h, w]     [B, 3, 224, 224]
 *   image states: class token, patches  [B, N + 1, Dv]   [B, 257, 1408]
 *   queries, instruction                [B, Q + T, Dq]   [B, 32 + T, 768]
 *   image features                      [B, Q, D]        [B, 32, 4096]
 *   prompt: image features, tokens      [B, L, D]        [B, L, 4096]
 *   logits                              [B, L, V]        [B, L, 32001]
 *
 *   attention of                        sees
 *   ViT                                 every image state
 *   Q-Former, queries and instruction   every query, and the instruction without its padding
 *   Q-Former, queries to the image      every image state
 *   LLaMA, OPT                          itself and what is before it in the prompt and the answer, without padding
 *   T5 encoder                          the prompt, without padding
 *   T5 decoder                          itself and what is before it in the answer; the prompt, without padding
 *
 * B rows, N patches, Q queries, T instruction tokens, L prompt tokens with the Q placeholders, V vocabulary; hidden sizes:
 * Dv of the image encoder, Dq of the Q-Former, D of the language model. Prompts come here padded, on the left unless the
 * processor was told otherwise.
 * Source: Dai et al. 2023, InstructBLIP, figure 3; transformers 5.18, modeling_instructblip.py.
 */
import type { Weights } from "../../modules/weights.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { InstructBlipConfig } from "../config/instructblip.ts";
import type { InstructBlipVideoConfig } from "../config/instructblip_video.ts";
import type { EmbeddingLanguageModel, LanguageModel } from "./language_model.ts";
import { InstructBlipQFormerModel } from "./qformer.ts";
import {
  type ImageFeatures,
  type ImageParts,
  type ImageTensors,
  type MakeLanguageModel,
  VisionLanguage,
  visionOutputs,
} from "./vision_language.ts";

/** Images, and the instruction in the Q-Former's vocabulary. */
export interface InstructedImages extends ImageTensors {
  /** u32[B, T] */
  readonly qformer_input_ids: Tensor<"u32">;
  /** u32[B, Q + T], 1 = not padding: Hugging Face's [B, T] behind a 1 for every query */
  readonly qformer_attention_mask: Tensor<"u32">;
}

type InstructedParts = ImageParts & { readonly qformer: InstructBlipQFormerModel };
/** The instruction. */
export type Instruction = Omit<InstructedImages, keyof ImageTensors>;

/** The image encoder, the Q-Former with the instruction, and the projection. */
export function instructBlipImageFeatures(parts: InstructedParts, inputs: InstructedImages): ImageFeatures {
  const vision_outputs = visionOutputs(parts, inputs); // states [B, N + 1, Dv]
  return { vision_outputs, ...qformerFeatures(parts, vision_outputs.last_hidden_state, inputs) };
}

/** The Q-Former with the instruction, and the projection: what depends on the question. */
function qformerFeatures(
  parts: InstructedParts,
  image: Tensor, // [B, N + 1, Dv]
  { qformer_input_ids, qformer_attention_mask }: Instruction,
): Omit<ImageFeatures, "vision_outputs"> {
  const { qformer, language_projection } = parts;
  const queries = VisionLanguage.queries(parts, image.shape[0]!); // [B, Q, Dq]
  const [, Q] = sizes(queries.shape, 3);
  const qformer_outputs = qformer.forward(qformer_input_ids, qformer_attention_mask, queries, image); // [B, Q + T, Dq]
  const query_outputs = contiguous(qformer_outputs.last_hidden_state.narrow(1, 0, Q)); // [B, Q, Dq]
  const image_features = language_projection.forward(query_outputs); // [B, Q, D]
  return { qformer_outputs, image_features };
}

export class InstructBlip<L extends EmbeddingLanguageModel = LanguageModel> extends VisionLanguage<
  InstructedImages,
  L
> {
  readonly qformer: InstructBlipQFormerModel;

  constructor(weights: Weights, config: InstructBlipConfig | InstructBlipVideoConfig, language: MakeLanguageModel<L>) {
    super(weights, config, language);
    this.qformer = new InstructBlipQFormerModel(weights.at("qformer"), config.qformer_config);
  }

  imageFeatures(inputs: InstructedImages): ImageFeatures {
    return instructBlipImageFeatures(this, inputs);
  }

  imageStates({ pixels, interpolate_pos_encoding }: ImageTensors): Tensor {
    return this.vision_model.forward(pixels, interpolate_pos_encoding).last_hidden_state; // [B, N + 1, Dv]
  }

  featuresOfStates(image: Tensor, instruction: Instruction): Tensor {
    return qformerFeatures(this, image, instruction).image_features; // [B, Q, D]
  }
}
