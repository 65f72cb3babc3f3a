/**
 * T5's stacks: the encoder's blocks, and the decoder's, which also have cross-attention to the encoder. Pre-norm with RMS
 * norms, no biases; positions enter only as a relative bias on the attention scores, which are not scaled.
 *
 * B rows, L prompt tokens, T tokens of this call, S keys, D wide, H heads, d a head (H·d need not be D).
 * Source: Raffel et al. 2020; transformers 5.18, modeling_t5.py.
 */
import { Attention } from "../../modules/attention.ts";
import { Embedding } from "../../modules/embedding.ts";
import { GatedLinear } from "../../modules/gated_linear.ts";
import type { KVCache } from "../../modules/kv_cache.ts";
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { RMSNorm } from "../../modules/norm.ts";
import { StackedLinear } from "../../modules/stacked_linear.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Activation } from "../../tensor/activation.ts";
import type { Device } from "../../tensor/device/device.ts";
import { activation } from "../../tensor/ops/activation.ts";
import { add } from "../../tensor/ops/add.ts";
import type { AttentionOptions, KeysOrValues } from "../../tensor/ops/attention.ts";
import { mul } from "../../tensor/ops/gated_activation.ts";
import { relativeBias } from "../../tensor/ops/relative_bias.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { HIDDEN_ACTS } from "../config/fields.ts";
import type { T5Config } from "../config/t5.ts";

export interface RelativePositions {
  /** Whether queries also attend to later keys, as in the encoder. */
  readonly bidirectional: boolean;
  readonly num_buckets: number;
  readonly max_distance: number;
}

/**
 * The bucket of every query's distance to every key: u32[T, S], the queries at positions past … past + T - 1.
 *
 * Near keys have a bucket each; far keys share buckets whose size grows with the logarithm of the distance; keys at
 * max_distance or more share the last. Later keys share bucket 0 in the decoder, and have half of the buckets in the
 * encoder.
 * Source: T5Attention._relative_position_bucket.
 */
export function relativePositionBuckets(
  T: number,
  S: number,
  past: number,
  { bidirectional, num_buckets, max_distance }: RelativePositions,
): Uint32Array {
  const buckets = bidirectional ? Math.floor(num_buckets / 2) : num_buckets;
  const exact = Math.floor(buckets / 2);
  const span = Math.fround(Math.log(max_distance / exact));
  const byDistance = Uint32Array.from({ length: Math.max(past + T, S) }, (_, distance) => {
    if (distance < exact) return distance;
    // Rounded to f32 where PyTorch rounds: at powers of the ratio the exact result is a whole number, and the last bit
    // decides.
    const part = Math.fround(Math.fround(Math.log(Math.fround(distance / exact))) / span);
    return Math.min(buckets - 1, exact + Math.trunc(Math.fround(part * (buckets - exact))));
  });
  return Uint32Array.from({ length: T * S }, (_, i) => {
    const relative = (i % S) - (past + Math.floor(i / S)); // key - query
    if (relative <= 0) return byDistance[-relative]!;
    return bidirectional ? buckets + byDistance[relative]! : 0;
  });
}

/** The arguments of a stack, besides its input. */
export interface T5StackStep extends Omit<T5Step, "position_bias"> {
  /** f32[2P - 1, H], P at least the number of positions; computed if not given. See T5Stack.distances. */
  readonly distances?: Tensor | undefined;
}

/** The arguments of every layer of a stack, besides its input. */
export interface T5Step {
  /** f32[1, H, T, S] */
  readonly position_bias: Tensor;
  /** u32[B, S], 1 = visible: the padding of an encoder's prompt */
  readonly mask?: Tensor<"u32"> | undefined;
  /** Keys and values of earlier tokens; without one, T is the whole sequence. */
  readonly cache?: KVCache | undefined;
  /** Of a decoder: the prompt's keys and values for each layer. */
  readonly cross?: CrossKeys | undefined;
}

/** The input of the decoder's cross-attention. */
export interface CrossKeys {
  /** Of every layer: keys and values f32[B, L, H, d], or f16 as the decoder's own */
  readonly layers: readonly (readonly [KeysOrValues, KeysOrValues])[];
  /** u32[B, L], 1 = not padding */
  readonly mask: Tensor<"u32"> | undefined;
}

/** Shared by self-attention and cross-attention. The scores are not scaled. */
abstract class T5Attention extends Attention {
  readonly o: Linear;
  readonly d_kv: number;

  constructor(weights: Weights, { d_model: D, num_heads: H, d_kv }: T5Config) {
    super(weights);
    this.o = new Linear(weights.at("o"), [D, H * d_kv], { bias: false });
    this.d_kv = d_kv;
  }

  /**
   * @param q f32[B, T, H, d]
   * @param k f32[B, S, H, d], or f16; v alike
   * @param observed name under which the probabilities are observed, and the number of their keys: S may be a cache's
   *   capacity
   * @returns f32[B, T, D]
   */
  forward(
    q: Tensor,
    [k, v]: readonly [KeysOrValues, KeysOrValues],
    given: Omit<AttentionOptions, "scale">,
    observed: { kind: "attentions" | "cross_attentions"; keys: number },
  ): Tensor {
    const [B, T] = sizes(q.shape, 4);
    const heads = this.attend({ q, k, v }, { ...given, scale: 1 }, observed); // [B, T, H, d]
    return this.observe(this.o.forward(heads.reshape([B, T, -1])));
  }

  /** f32[B, T, H·d] -> f32[B, T, H, d] */
  protected heads(x: Tensor): Tensor {
    return x.unflatten(2, [-1, this.d_kv]);
  }
}

/** Self-attention. */
export class T5SelfAttention extends T5Attention {
  /** q, k and v */
  readonly qkv: StackedLinear;
  /** In the first block of a stack; all its blocks use it. */
  readonly relative_attention_bias: Embedding | undefined;

  constructor(weights: Weights, config: T5Config, { has_relative_attention_bias = false } = {}) {
    super(weights, config);
    const { d_model: D, num_heads: H, d_kv: d, relative_attention_num_buckets: buckets } = config;
    this.qkv = new StackedLinear(weights, { q: H * d, k: H * d, v: H * d }, D, { bias: false });
    if (has_relative_attention_bias) {
      const table = weights.at("relative_attention_bias");
      this.relative_attention_bias = new Embedding(table, H, { weight: table.matrix("weight", [buckets, H]) });
    }
  }

  /** Queries, keys and values of all heads. f32[B, T, D] -> three of f32[B, T, H, d] */
  project(x: Tensor): [q: Tensor, k: Tensor, v: Tensor] {
    const qkv = this.qkv.forward(x); // [B, T, 3·H·d]
    const width = sizes(qkv.shape, 3)[2] / 3;
    const part = (i: number) => this.heads(qkv.narrow(2, i * width, width));
    return [part(0), part(1), part(2)];
  }
}

/** Cross-attention to the encoder's output. */
export class T5CrossAttention extends T5Attention {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;

  constructor(weights: Weights, config: T5Config) {
    super(weights, config);
    const { d_model: D, num_heads: H, d_kv: d } = config;
    this.q = new Linear(weights.at("q"), [H * d, D], { bias: false });
    this.k = new Linear(weights.at("k"), [H * d, D], { bias: false });
    this.v = new Linear(weights.at("v"), [H * d, D], { bias: false });
  }

  /** f32[B, T, D] -> f32[B, T, H, d] */
  queries(x: Tensor): Tensor {
    return this.heads(this.q.forward(x));
  }

  /** Keys and values of all heads, computed once. f32[B, S, D] -> two of f32[B, S, H, d] */
  keys(states: Tensor): [Tensor, Tensor] {
    return [this.heads(this.k.forward(states)), this.heads(this.v.forward(states))];
  }
}

/** x + SelfAttention(layer_norm(x)). f32[B, T, D] -> f32[B, T, D] */
export class T5LayerSelfAttention extends Module {
  readonly SelfAttention: T5SelfAttention;
  readonly layer_norm: RMSNorm;
  readonly index: number;
  readonly causal: boolean;

  constructor(weights: Weights, config: T5Config, index: number, causal: boolean) {
    super(weights);
    const has_relative_attention_bias = index === 0;
    this.SelfAttention = new T5SelfAttention(weights.at("SelfAttention"), config, { has_relative_attention_bias });
    this.layer_norm = new RMSNorm(weights.at("layer_norm"), config.d_model, config.layer_norm_epsilon);
    this.index = index;
    this.causal = causal;
  }

  forward(x: Tensor, { position_bias, mask, cache }: T5Step): Tensor {
    const [q, ...own] = this.SelfAttention.project(this.layer_norm.forward(x)); // [B, T, H, d]
    const keys = cache ? cache.append(this.index, ...own) : own; // [rows, capacity, H, d]
    const options = { bias: position_bias, causal: this.causal, ...(cache ? cache.attentionView : { mask }) };
    const [, T] = sizes(x.shape, 3);
    const observed = { kind: "attentions", keys: (cache?.length ?? 0) + T } as const;
    return this.observe(add(x, this.SelfAttention.forward(q, keys, options, observed)));
  }
}

/** x + EncDecAttention(layer_norm(x), encoder states). f32[B, T, D] -> f32[B, T, D] */
export class T5LayerCrossAttention extends Module {
  readonly EncDecAttention: T5CrossAttention;
  readonly layer_norm: RMSNorm;

  constructor(weights: Weights, config: T5Config) {
    super(weights);
    this.EncDecAttention = new T5CrossAttention(weights.at("EncDecAttention"), config);
    this.layer_norm = new RMSNorm(weights.at("layer_norm"), config.d_model, config.layer_norm_epsilon);
  }

  forward(x: Tensor, keys: readonly [KeysOrValues, KeysOrValues], mask: Tensor<"u32"> | undefined): Tensor {
    const [, S] = sizes(keys[0].shape, 4);
    const observed = { kind: "cross_attentions", keys: S } as const;
    const q = this.EncDecAttention.queries(this.layer_norm.forward(x)); // [B, T, H, d]
    return this.observe(add(x, this.EncDecAttention.forward(q, keys, { mask }, observed)));
  }
}

/** wo(act(wi_0(x)) * wi_1(x)) if gated, else wo(act(wi(x))). f32[B, T, D] -> f32[B, T, D] */
export class T5DenseActDense extends Module {
  /** wi_0 and wi_1 if gated */
  readonly wi: Linear | GatedLinear;
  readonly wo: Linear;
  readonly activation: Activation;

  constructor(weights: Weights, { d_model: D, d_ff: F, gated, activation }: T5Config) {
    super(weights);
    this.wi = gated
      ? new GatedLinear(weights, { gate: "wi_0", up: "wi_1" }, [F, D], { bias: false })
      : new Linear(weights.at("wi"), [F, D], { bias: false });
    this.wo = new Linear(weights.at("wo"), [D, F], { bias: false });
    this.activation = HIDDEN_ACTS[activation];
  }

  forward(x: Tensor): Tensor {
    const [wi, up] = this.wi instanceof GatedLinear ? this.wi.forward(x) : [this.wi.forward(x), undefined];
    const activated = this.observe(activation(wi, this.activation), "act"); // [B, T, F]
    return this.observe(this.wo.forward(up ? mul(activated, up) : activated));
  }
}

/** x + DenseReluDense(layer_norm(x)), with any activation. f32[B, T, D] -> f32[B, T, D] */
export class T5LayerFF extends Module {
  readonly DenseReluDense: T5DenseActDense;
  readonly layer_norm: RMSNorm;

  constructor(weights: Weights, config: T5Config) {
    super(weights);
    this.DenseReluDense = new T5DenseActDense(weights.at("DenseReluDense"), config);
    this.layer_norm = new RMSNorm(weights.at("layer_norm"), config.d_model, config.layer_norm_epsilon);
  }

  forward(x: Tensor): Tensor {
    return this.observe(add(x, this.DenseReluDense.forward(this.layer_norm.forward(x))));
  }
}

/** Transformer block; the checkpoint numbers its sublayers. f32[B, T, D] -> f32[B, T, D] */
export class T5Block extends Module {
  readonly self_attention: T5LayerSelfAttention;
  readonly cross_attention: T5LayerCrossAttention | undefined;
  readonly feed_forward: T5LayerFF;
  readonly index: number;

  constructor(weights: Weights, config: T5Config, index: number, is_decoder: boolean) {
    super(weights);
    const layer = weights.at("layer");
    this.self_attention = new T5LayerSelfAttention(layer.at(0), config, index, is_decoder);
    this.cross_attention = is_decoder ? new T5LayerCrossAttention(layer.at(1), config) : undefined;
    this.feed_forward = new T5LayerFF(layer.at(is_decoder ? 2 : 1), config);
    this.index = index;
  }

  forward(x: Tensor, step: T5Step): Tensor {
    x = this.self_attention.forward(this.observeInput(x), step);
    if (this.cross_attention) {
      const { layers, mask } = step.cross!;
      x = this.cross_attention.forward(x, layers[this.index]!, mask);
    }
    return this.observe(this.feed_forward.forward(x));
  }
}

/** Encoder or decoder. f32[B, T, D] -> f32[B, T, D] */
export class T5Stack extends Module {
  readonly block: readonly T5Block[];
  readonly final_layer_norm: RMSNorm;
  readonly positions: RelativePositions;

  constructor(weights: Weights, config: T5Config, { is_decoder }: { is_decoder: boolean }) {
    super(weights);
    this.block = Array.from(
      { length: is_decoder ? config.decoderLayers : config.num_layers },
      (_, i) => new T5Block(weights.at("block").at(i), config, i, is_decoder),
    );
    this.final_layer_norm = new RMSNorm(weights.at("final_layer_norm"), config.d_model, config.layer_norm_epsilon);
    this.positions = {
      bidirectional: !is_decoder,
      num_buckets: config.relative_attention_num_buckets,
      max_distance: config.relative_attention_max_distance,
    };
  }

  forward(x: Tensor, { distances, ...step }: T5StackStep): Tensor {
    const [, T] = sizes(x.shape, 3);
    const position_bias = this.positionBias(x.device, T, step.cache, distances);
    for (const block of this.block) {
      this.observeState("hidden_states", x);
      x = x.device.scope(() => block.forward(x, { ...step, position_bias }));
    }
    x = this.final_layer_norm.forward(x);
    this.observeState("hidden_states", x);
    return this.observe(x);
  }

  /** The relative position bias of T queries after the cache's tokens. f32[1, H, T, S] */
  positionBias(device: Device, T: number, cache: KVCache | undefined, distances: Tensor | undefined): Tensor {
    const S = cache?.capacity ?? T;
    const table = this.#bias;
    // PyTorch looks the embedding up for every pair of tokens; here it is looked up for every distance, once.
    const replaced = table.observeIfWanted(device, () => {
      const buckets = relativePositionBuckets(T, S, cache?.length ?? 0, this.positions);
      return table.rows(device.tensor(buckets, [T, S])); // [T, S, H]
    });
    if (replaced) return replaced.permute([2, 0, 1]).unflatten(0, [1, -1]);
    return relativeBias(distances ?? this.distances(device, S), { T, S, past: cache?.past });
  }

  /** The relative position bias of each distance, of keys up to P - 1 before and after the query. f32[2P - 1, H] */
  distances(device: Device, P: number): Tensor {
    const buckets = relativePositionBuckets(1, 2 * P - 1, P - 1, this.positions);
    return this.#bias.rows(device.tensor(buckets, [2 * P - 1]));
  }

  /** That of the first block, shared by all. */
  get #bias(): Embedding {
    return this.block[0]!.self_attention.SelfAttention.relative_attention_bias!;
  }
}
