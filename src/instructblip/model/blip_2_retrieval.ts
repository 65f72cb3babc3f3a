/**
 * BLIP-2's first stage: image and text in one space, and whether a text describes an image. There is no language model; the
 * Q-Former reads images by its queries, texts as the BERT that it began as, or both at once.
 *
 *   contrastive (ITC)
 *     pixels ─ vision_model ─► image states ─► qformer(queries) ─ vision_projection, ÷ length ─► image embeds  [I, Q, P]
 *     text ─ embeddings ─────────────────────► qformer(text), first token ─ text_projection, ÷ length ─► text embeds  [T, P]
 *     similarity of an image and a text: the largest of the Q products                                  [I, T]
 *   matching (ITM), a better judge, of one pair at a time
 *     image states ─► qformer(queries and text) ─ first Q outputs ─ itm_head ─ mean over Q ─► no, yes   [B, 2]
 *
 *   attention of        sees
 *   ITC, queries        every query; every image state
 *   ITC, text           the text without its padding
 *   ITM, both           every query, and the text without its padding; queries also every image state
 *
 * I images, T texts or B pairs, L tokens of a text, Q queries, N patches, P wide embeds (image_text_hidden_size); Dv and Dq
 * wide states of image encoder and Q-Former.
 * Source: Li et al. 2023, BLIP-2, 3.2 and figure 2; transformers 5.18, modeling_blip_2.py.
 */
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import type { Weights } from "../../modules/weights.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { matmulNaive } from "../../tensor/ops/linear.ts";
import { rmsNorm } from "../../tensor/ops/rms_norm.ts";
import { rowMaximum } from "../../tensor/ops/top_k.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Blip2Config } from "../config/blip_2.ts";
import { Blip2QFormer, Blip2TextEmbeddings, type QFormerOutput } from "./qformer.ts";
import { type ImageTensors, VisionLanguage, visionOutputs } from "./vision_language.ts";
import { InstructBlipVisionModel, type VisionOutput } from "./vision_model.ts";

/** Texts on the device. */
export interface TextTensors {
  /** u32[B, L] */
  readonly input_ids: Tensor<"u32">;
  /** u32[B, L], 1 = not padding; absent: all of it is text */
  readonly attention_mask?: Tensor<"u32"> | undefined;
  /** u32[B, L]; default 0 … L - 1 */
  readonly position_ids?: Tensor<"u32"> | undefined;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface EmbeddedImages {
  /** f32[I, Q, P], each of length 1 */
  readonly image_embeds: Tensor;
  readonly vision_outputs: VisionOutput;
  readonly qformer_outputs: QFormerOutput;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface EmbeddedTexts {
  /** f32[B, L, P], each of length 1; the first token's stands for the text */
  readonly text_embeds: Tensor;
  readonly qformer_outputs: QFormerOutput;
}

/** What embeds images. */
export interface ImageEncoder {
  readonly vision_model: InstructBlipVisionModel;
  /** f32[1, Q, Dq], learned */
  readonly query_tokens: Tensor;
  readonly qformer: Blip2QFormer;
  readonly vision_projection: Linear;
}

/** What embeds texts. */
export interface TextEncoder {
  readonly embeddings: Blip2TextEmbeddings;
  readonly qformer: Blip2QFormer;
  readonly text_projection: Linear;
}

/** Embeds of images. */
export function embedImages(parts: ImageEncoder, images: ImageTensors): EmbeddedImages {
  const vision_outputs = visionOutputs(parts, images); // states [I, N + 1, Dv]
  return { vision_outputs, ...embedStates(parts, vision_outputs.last_hidden_state) };
}

/** Embeds of images whose states, f32[I, N + 1, Dv], are known. */
export function embedStates(parts: ImageEncoder, image: Tensor): Omit<EmbeddedImages, "vision_outputs"> {
  const { qformer, vision_projection } = parts;
  const queries = VisionLanguage.queries(parts, image.shape[0]!); // [I, Q, Dq]
  const qformer_outputs = qformer.forward(queries, { encoder_hidden_states: image }); // [I, Q, Dq]
  const image_embeds = unit(vision_projection.forward(qformer_outputs.last_hidden_state)); // [I, Q, P]
  return { image_embeds, qformer_outputs };
}

/** Embeds of texts. */
export function embedTexts(
  parts: TextEncoder,
  { input_ids, attention_mask, position_ids }: TextTensors,
): EmbeddedTexts {
  const { embeddings, qformer, text_projection } = parts;
  const words = embeddings.forward(input_ids, undefined, position_ids); // [B, L, Dq]
  const qformer_outputs = qformer.forward(words, { attention_mask, query_length: 0 }); // [B, L, Dq]
  const text_embeds = unit(text_projection.forward(qformer_outputs.last_hidden_state)); // [B, L, P]
  return { text_embeds, qformer_outputs };
}

/** Cosine similarity of every image to every text. f32[I, Q, P], f32[T, P] -> f32[I, T] */
export function similarity(image_embeds: Tensor, text_embeds: Tensor): Tensor {
  const [I, Q, P] = sizes(image_embeds.shape, 3);
  const [T] = sizes(text_embeds.shape, 2);
  const none = image_embeds.device.tensor(new Float32Array(T), [T]);
  // Not `linear`, whose matrix is one of a checkpoint, with padded rows.
  const products = matmulNaive(image_embeds.reshape([I * Q, P]), text_embeds, none); // [I·Q, T]
  return rowMaximum(contiguous(products.unflatten(0, [I, Q]).permute([0, 2, 1])).reshape([I * T, Q])).reshape([I, T]);
}

/** x / |x|, as rmsNorm with 1 / sqrt(P) for gains has it. f32[..., P] -> f32[..., P] */
function unit(x: Tensor): Tensor {
  const P = x.shape.at(-1)!;
  const gains = x.device.tensor(new Float32Array(P).fill(P ** -0.5), [P]);
  return rmsNorm(x, gains, 1e-24 / P); // torch divides by 1e-12 at least
}

/** The mean over Q, as a product: no op sums rows, and B · K sums of Q numbers are not worth one. f32[B, Q, K] -> f32[B, K] */
function meanOfQueries(x: Tensor): Tensor {
  const [B, Q, K] = sizes(x.shape, 3);
  const { device } = x;
  const shares = device.tensor(new Float32Array(Q).fill(1 / Q), [1, Q]);
  const columns = contiguous(x.permute([0, 2, 1])).reshape([B * K, Q]);
  return matmulNaive(columns, shares, device.tensor(new Float32Array(1), [1])).reshape([B, K]);
}

/** The learned queries, f32[1, Q, Dq]. */
function queryTokens(weights: Weights, { num_query_tokens: Q, qformer_config }: Blip2Config): Tensor {
  return weights.get("query_tokens", [1, Q, qformer_config.hidden_size]);
}

/** The Q-Former, stored at full precision in a model of lower precision, as in Hugging Face. */
function fullQFormer(weights: Weights, config: Blip2Config): Blip2QFormer {
  return new Blip2QFormer(weights.at("qformer").lossless(), config.qformer_config);
}

function projection(weights: Weights, { image_text_hidden_size: P, qformer_config }: Blip2Config): Linear {
  return new Linear(weights, [P, qformer_config.hidden_size]);
}

/** The part that embeds images: Blip2VisionModelWithProjection. */
export class Blip2ImageEncoder extends Module implements ImageEncoder {
  readonly vision_model: InstructBlipVisionModel;
  readonly query_tokens: Tensor;
  readonly qformer: Blip2QFormer;
  readonly vision_projection: Linear;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights);
    this.vision_model = new InstructBlipVisionModel(weights.at("vision_model"), config.vision_config);
    this.query_tokens = queryTokens(weights, config);
    this.qformer = fullQFormer(weights, config);
    this.vision_projection = projection(weights.at("vision_projection"), config);
  }
}

/** The part that embeds texts: Blip2TextModelWithProjection. */
export class Blip2TextEncoder extends Module implements TextEncoder {
  /** Unused, but in the files. */
  readonly query_tokens: Tensor;
  readonly embeddings: Blip2TextEmbeddings;
  readonly qformer: Blip2QFormer;
  readonly text_projection: Linear;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights);
    this.query_tokens = queryTokens(weights, config);
    this.embeddings = new Blip2TextEmbeddings(weights.at("embeddings"), config.qformer_config);
    this.qformer = fullQFormer(weights, config);
    this.text_projection = projection(weights.at("text_projection"), config);
  }
}

/** Both, and the head that judges pairs: Blip2ForImageTextRetrieval. */
export class Blip2Retrieval extends Blip2ImageEncoder implements TextEncoder {
  readonly embeddings: Blip2TextEmbeddings;
  readonly text_projection: Linear;
  readonly itm_head: Linear;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config);
    this.embeddings = new Blip2TextEmbeddings(weights.at("embeddings"), config.qformer_config);
    this.text_projection = projection(weights.at("text_projection"), config);
    this.itm_head = new Linear(weights.at("itm_head"), [2, config.qformer_config.hidden_size]);
  }

  /**
   * Whether each text describes its image.
   *
   * @param image f32[B, N + 1, Dv], the image states
   * @param text attention_mask u32[B, Q + L], with 1 for every query
   * @returns f32[B, 2] before softmax, no and yes; the Q-Former's outputs f32[B, Q + L, Dq]
   */
  match(image: Tensor, { input_ids, attention_mask }: TextTensors): { logits: Tensor; qformer_outputs: QFormerOutput } {
    const queries = VisionLanguage.queries(this, image.shape[0]!); // [B, Q, Dq]
    const [, Q] = sizes(queries.shape, 3);
    const both = this.embeddings.forward(input_ids, queries); // [B, Q + L, Dq]
    const inputs = { encoder_hidden_states: image, attention_mask, query_length: Q };
    const qformer_outputs = this.qformer.forward(both, inputs); // [B, Q + L, Dq]
    const query_outputs = contiguous(qformer_outputs.last_hidden_state.narrow(1, 0, Q)); // [B, Q, Dq]
    return { logits: this.observe(meanOfQueries(this.itm_head.forward(query_outputs))), qformer_outputs };
  }
}
