/** Operations and bytes of a model's steps, counted from its modules: multiply-adds of matrices and attention, weights. */
import { Embedding } from "../src/modules/embedding.ts";
import type { Module } from "../src/modules/module.ts";
import { modulesOf } from "../src/modules/module_calls.ts";
import { Weight } from "../src/tensor/weight.ts";

/** The sizes of a model. */
export interface SizedModel {
  readonly config: {
    readonly num_query_tokens: number;
    readonly vision_config: {
      readonly num_patches: number;
      readonly hidden_size: number;
      readonly num_hidden_layers: number;
    };
    readonly qformer_config: {
      readonly hidden_size: number;
      readonly num_hidden_layers: number;
      readonly cross_attention_frequency: number;
    };
    readonly text_config: {
      readonly sizes: {
        readonly num_hidden_layers: number;
        readonly num_encoder_layers: number;
        readonly num_attention_heads: number;
        readonly num_key_value_heads: number;
        readonly head_dim: number;
      };
    };
  };
}

/** Operations (a multiply-add is two) and bytes of weights and key/value caches. */
export interface StepWork {
  readonly flops: number;
  readonly bytes: number;
}

interface Matrix {
  /** Of its module. */
  readonly path: string;
  readonly weight: Weight;
}

/** Every matrix of a product, once; embedding tables only if they are also a head. */
export function matricesOf(model: Module): Matrix[] {
  const found = new Map<Weight, Matrix>();
  for (const module of modulesOf(model)) {
    if (module instanceof Embedding) continue;
    for (const value of Object.values(module)) {
      if (value instanceof Weight && !found.has(value)) found.set(value, { path: module.path, weight: value });
    }
  }
  return [...found.values()];
}

/**
 * @param L prompt tokens, the image's included
 * @param T tokens of the Q-Former's instruction
 * @param S tokens in the cache when a token is decoded
 */
export function workOf(
  model: SizedModel & { readonly model: Module },
  { L, T, S }: { L: number; T: number; S: number },
): Record<"load" | "image features" | "prefill" | "first token" | "decode", StepWork> {
  const { num_query_tokens: Q, vision_config: vision, qformer_config: qformer, text_config } = model.config;
  const N = vision.num_patches + 1;
  const {
    num_hidden_layers: layers,
    num_encoder_layers: encoders,
    num_attention_heads: H,
    ...text
  } = text_config.sizes;
  const hasEncoder = encoders > 0;

  /** Rows of the product: of an image, of a prompt, of one new token. */
  const rowsOf = (path: string): [image: number, prompt: number, token: number] => {
    if (path.startsWith("language_model.")) {
      if (path.includes(".encoder.")) return [0, L, 0];
      if (path.includes("EncDecAttention.k") || path.includes("EncDecAttention.v")) return [0, L, 0];
      return [0, hasEncoder || path.endsWith("lm_head") ? 1 : L, 1];
    }
    if (path.startsWith("language_projection")) return [Q, 0, 0];
    if (path.startsWith("vision_model.")) return [path.endsWith("patch_embedding") ? N - 1 : N, 0, 0];
    if (/crossattention\.attention\.(key|value)$/.test(path)) return [N, 0, 0];
    if (/crossattention|_query\./.test(path)) return [Q, 0, 0];
    return [/\.attention\./.test(path) ? Q + T : T, 0, 0];
  };
  const sums = [
    { flops: 0, bytes: 0 },
    { flops: 0, bytes: 0 },
    { flops: 0, bytes: 0 },
  ];
  let allBytes = 0;
  for (const { path, weight } of matricesOf(model.model)) {
    const [n, k] = weight.shape;
    allBytes += weight.bytes;
    for (const [i, rows] of rowsOf(path).entries()) {
      sums[i].flops += 2 * rows * n * k;
      if (rows > 0) sums[i].bytes += weight.bytes;
    }
  }
  const [image, prompt, token] = sums;
  const crossing = Math.ceil(qformer.num_hidden_layers / qformer.cross_attention_frequency);
  image.flops += 4 * vision.num_hidden_layers * N * N * vision.hidden_size;
  image.flops += 4 * qformer.hidden_size * (qformer.num_hidden_layers * (Q + T) ** 2 + crossing * Q * N);
  const width = H * text.head_dim;
  prompt.flops += hasEncoder ? 4 * encoders * L * L * width : 2 * layers * L * (L + 1) * width;
  token.flops += 4 * layers * S * width;
  token.bytes += 8 * layers * S * text.num_key_value_heads * text.head_dim;
  const both = { flops: image.flops + prompt.flops, bytes: image.bytes + prompt.bytes };
  return {
    load: { flops: 0, bytes: allBytes },
    "image features": image,
    prefill: prompt,
    "first token": both,
    decode: token,
  };
}
