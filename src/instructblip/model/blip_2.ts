/**
 * BLIP-2: InstructBLIP's predecessor. Its Q-Former has queries only, so image features do not depend on the prompt.
 *
 *   pixels ─ vision_model ─► image states ─┐
 *   query_tokens ───────────────────────► qformer ─ language_projection ─► image features
 *   [<image> x Q][prompt] ─ embed_tokens ─ <image> rows replaced by image features ─► language_model ─► logits
 *
 * B rows, N patches, Q queries, L prompt tokens, D hidden size, V vocabulary.
 * Source: Li et al. 2023, BLIP-2; transformers 5.18, modeling_blip_2.py.
 */
import type { Weights } from "../../modules/weights.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Blip2Config } from "../config/blip_2.ts";
import { Blip2QFormer } from "./qformer.ts";
import {
  type ImageFeatures,
  type ImageParts,
  type ImageTensors,
  languageModel,
  VisionLanguage,
  visionOutputs,
} from "./vision_language.ts";

/** The image encoder, the Q-Former and the projection. */
export function blip2ImageFeatures(
  parts: ImageParts & { readonly qformer: Blip2QFormer },
  images: ImageTensors,
): ImageFeatures {
  const { qformer, language_projection } = parts;
  const vision_outputs = visionOutputs(parts, images); // states [B, N + 1, Dv]
  const queries = VisionLanguage.queries(parts, vision_outputs.last_hidden_state.shape[0]!); // [B, Q, Dq]
  const qformer_outputs = qformer.forward(queries, { encoder_hidden_states: vision_outputs.last_hidden_state }); // [B, Q, Dq]
  const image_features = language_projection.forward(qformer_outputs.last_hidden_state); // [B, Q, D]
  return { vision_outputs, qformer_outputs, image_features };
}

export class Blip2 extends VisionLanguage {
  /** Stored at full precision in a model of lower precision, as in Hugging Face. */
  readonly qformer: Blip2QFormer;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config, languageModel);
    this.qformer = new Blip2QFormer(weights.at("qformer").lossless(), config.qformer_config);
  }

  imageFeatures(inputs: ImageTensors): ImageFeatures {
    return blip2ImageFeatures(this, inputs);
  }

  override readonly image_parts = ["vision_model", "qformer", "language_projection"];

  /** The image features: this Q-Former reads no instruction. */
  imageStates(images: ImageTensors): Tensor {
    return this.imageFeatures(images).image_features; // [B, Q, D]
  }

  featuresOfStates(image_features: Tensor): Tensor {
    return image_features;
  }
}
