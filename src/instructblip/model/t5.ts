/**
 * T5 and Flan-T5: an encoder that reads the prompt and a decoder that writes the answer while it looks at what was read.
 * Pre-norm with RMS norms, no biases; where a token stands shows only in a bias on the attention scores.
 *
 * B rows, L prompt tokens, T decoder tokens of this call, S keys, D wide, H heads, d a head (H·d need not be D).
 *
 *   inputs_embeds ─ encoder ─► states ─ k, v of every decoder layer, once
 *   start, answer ─ shared ─► decoder: self-attention ─ cross-attention to the states ─ feed-forward ─► lm_head ─► logits
 *
 * Source: Raffel et al. 2020; Chung et al. 2022 (Flan); transformers 5.18, modeling_t5.py.
 */
import { Embedding, tiedTable } from "../../modules/embedding.ts";
import { GatedLinear } from "../../modules/gated_linear.ts";
import { halvesOf, KVCache } from "../../modules/kv_cache.ts";
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { RMSNorm } from "../../modules/norm.ts";
import { observedStates } from "../../modules/observer.ts";
import { ReplayedStep } from "../../modules/replay.ts";
import { StackedLinear } from "../../modules/stacked_linear.ts";
import type { CacheDType } from "../../modules/storage_dtype.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Activation } from "../../tensor/activation.ts";
import type { Device } from "../../tensor/device/device.ts";
import { ConfigError, InputError, WeightError } from "../../tensor/errors.ts";
import { activation } from "../../tensor/ops/activation.ts";
import { add } from "../../tensor/ops/add.ts";
import {
  type AttentionOptions,
  attention,
  attentionProbabilities,
  type KeysOrValues,
} from "../../tensor/ops/attention.ts";
import { mul } from "../../tensor/ops/gated_activation.ts";
import { relativeBias } from "../../tensor/ops/relative_bias.ts";
import { scale } from "../../tensor/ops/scale.ts";
import { takeRows } from "../../tensor/ops/take_rows.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { HIDDEN_ACTS } from "../config/fields.ts";
import type { T5Config } from "../config/t5.ts";
import {
  type Decoding,
  type EmbeddedPrompt,
  type Ids,
  type LanguageModel,
  type LanguageModelInputs,
  type LanguageModelOutput,
  type LanguageModelStates,
  lastTokens,
  maskTensor,
  upload,
} from "./language_model.ts";

export interface RelativePositions {
  /** Whether queries also see keys behind them, as in the encoder. */
  readonly bidirectional: boolean;
  readonly num_buckets: number;
  readonly max_distance: number;
}

/**
 * The bucket of every query's distance to every key: u32[T, S], the queries standing at past … past + T - 1.
 *
 * Near keys have a bucket each, far ones share buckets that grow with the logarithm of the distance; all from max_distance
 * on share the last. Keys behind the query share bucket 0 in the decoder, and have half of the buckets in the encoder.
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
    // Rounded to f32 where PyTorch rounds: at powers of the ratio the exact result is a whole number, and a bit decides.
    const part = Math.fround(Math.fround(Math.log(Math.fround(distance / exact))) / span);
    return Math.min(buckets - 1, exact + Math.trunc(Math.fround(part * (buckets - exact))));
  });
  return Uint32Array.from({ length: T * S }, (_, i) => {
    const relative = (i % S) - (past + Math.floor(i / S)); // key - query
    if (relative <= 0) return byDistance[-relative];
    return bidirectional ? buckets + byDistance[relative] : 0;
  });
}

/** What a stack needs besides its input. */
export interface T5StackStep extends Omit<T5Step, "position_bias"> {
  /** f32[2P - 1, H], P at least the positions there can be; looked up anew if not given. See T5Stack.distances. */
  readonly distances?: Tensor | undefined;
}

/** What every layer of a stack needs besides its input. */
export interface T5Step {
  /** f32[1, H, T, S] */
  readonly position_bias: Tensor;
  /** u32[B, S], 1 = visible: the padding of an encoder's prompt */
  readonly mask?: Tensor<"u32"> | undefined;
  /** Keys and values of earlier tokens; without one, T is the whole sequence. */
  readonly cache?: KVCache | undefined;
  /** Of a decoder: the prompt, as each layer sees it. */
  readonly cross?: CrossKeys | undefined;
}

/** What a decoder looks at while it writes. */
export interface CrossKeys {
  /** Of every layer: keys and values f32[B, L, H, d], or halves as the decoder's own */
  readonly layers: readonly (readonly [KeysOrValues, KeysOrValues])[];
  /** u32[B, L], 1 = not padding */
  readonly mask: Tensor<"u32"> | undefined;
}

/** What attention to the stack's own tokens and to the encoder's share. The scores are not scaled. */
abstract class T5Attention extends Module {
  readonly o: Linear;
  readonly d_kv: number;

  constructor(weights: Weights, { d_model: D, num_heads: H, d_kv }: T5Config) {
    super(weights);
    this.o = new Linear(weights.at("o"), [D, H * d_kv], { bias: false });
    this.d_kv = d_kv;
  }

  /**
   * @param q f32[B, T, H, d]
   * @param k f32[B, S, H, d], or halves; so v
   * @param observed as what the probabilities are observed, and of how many keys: S may be a cache's capacity
   * @returns f32[B, T, D]
   */
  forward(
    q: Tensor,
    [k, v]: readonly [KeysOrValues, KeysOrValues],
    given: Omit<AttentionOptions, "scale">,
    observed: { kind: "attentions" | "cross_attentions"; keys: number },
  ): Tensor {
    const [B, T] = q.shape;
    const options = { ...given, scale: 1 };
    const heads = attention(q, k, v, options); // [B, T, H, d]
    this.observeState(observed.kind, q, () => attentionProbabilities(q, k, options).narrow(3, 0, observed.keys));
    return this.observe(this.o.forward(heads.reshape([B, T, -1])));
  }

  /** f32[B, T, H·d] -> f32[B, T, H, d] */
  protected heads(x: Tensor): Tensor {
    return x.unflatten(2, [-1, this.d_kv]);
  }
}

/** Attention to the stack's own tokens. */
export class T5SelfAttention extends T5Attention {
  /** q, k and v */
  readonly qkv: StackedLinear;
  /** In the first block of a stack, which all its blocks use. */
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
    const width = qkv.shape[2] / 3;
    const part = (i: number) => this.heads(qkv.narrow(2, i * width, width));
    return [part(0), part(1), part(2)];
  }
}

/** Attention to what the encoder has read. */
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

  /** Keys and values of all heads, which serve every step. f32[B, S, D] -> two of f32[B, S, H, d] */
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
    const options = { bias: position_bias, causal: this.causal, ...(cache ? cache.seen : { mask }) };
    const observed = { kind: "attentions", keys: (cache?.length ?? 0) + x.shape[1] } as const;
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
    const observed = { kind: "cross_attentions", keys: keys[0].shape[1] } as const;
    const q = this.EncDecAttention.queries(this.layer_norm.forward(x)); // [B, T, H, d]
    return this.observe(add(x, this.EncDecAttention.forward(q, keys, { mask }, observed)));
  }
}

/** wo(act(wi_0(x)) * wi_1(x)), or wo(act(wi(x))) without a gate. f32[B, T, D] -> f32[B, T, D] */
export class T5DenseActDense extends Module {
  /** wi_0 and wi_1 if there is a gate */
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
    const [wi, up] = [this.wi.forward(x)].flat();
    const activated = this.observe(activation(wi, this.activation), "act"); // [B, T, F]
    return this.observe(this.wo.forward(up ? mul(activated, up) : activated));
  }
}

/** x + DenseReluDense(layer_norm(x)), whatever the activation. f32[B, T, D] -> f32[B, T, D] */
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

/** Transformer block; the checkpoint counts its sublayers. f32[B, T, D] -> f32[B, T, D] */
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
    x = this.self_attention.forward(x, step);
    if (this.cross_attention) x = this.cross_attention.forward(x, step.cross!.layers[this.index], step.cross!.mask);
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
      { length: is_decoder ? config.decoder_layers : config.num_layers },
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
    const position_bias = this.positionBias(x.device, x.shape[1], step.cache, distances);
    for (const block of this.block) {
      this.observeState("hidden_states", x);
      x = x.device.scope(() => block.forward(x, { ...step, position_bias }));
    }
    x = this.final_layer_norm.forward(x);
    this.observeState("hidden_states", x);
    return this.observe(x);
  }

  /** What distance adds to the scores of T queries behind a cache's tokens. f32[1, H, T, S] */
  positionBias(device: Device, T: number, cache: KVCache | undefined, distances: Tensor | undefined): Tensor {
    const S = cache?.capacity ?? T;
    const table = this.block[0].self_attention.SelfAttention.relative_attention_bias!;
    // PyTorch's Embedding is asked for every pair of tokens; here for every distance, once.
    const replaced = table.observeIfWanted(device, () => {
      const buckets = relativePositionBuckets(T, S, cache?.length ?? 0, this.positions);
      return table.rows(device.tensor(buckets, [T, S])); // [T, S, H]
    });
    if (replaced) return replaced.permute([2, 0, 1]).unflatten(0, [1, -1]);
    return relativeBias(distances ?? this.distances(device, S), { T, S, past: cache?.past });
  }

  /** What each distance adds to a score, of keys up to P - 1 before and behind the query. f32[2P - 1, H] */
  distances(device: Device, P: number): Tensor {
    const buckets = relativePositionBuckets(1, 2 * P - 1, P - 1, this.positions);
    const table = this.block[0].self_attention.SelfAttention.relative_attention_bias!;
    return table.rows(device.tensor(buckets, [2 * P - 1]));
  }
}

/** The names of the table, in the order in which HF looks for one to tie the others to. */
const TABLES = ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"];

/** T5 with its head, which is the token embedding unless the checkpoint has one. */
export class T5ForConditionalGeneration extends Module implements LanguageModel {
  readonly is_encoder_decoder = true;
  cache_dtype: CacheDType = "f32";
  readonly shared: Embedding;
  readonly encoder: T5Stack;
  readonly decoder: T5Stack;
  /** `decoder.embed_tokens`: shared's table, under another name. */
  readonly decoder_embed_tokens: Embedding;
  readonly lm_head: Linear;
  readonly config: T5Config;

  constructor(weights: Weights, config: T5Config) {
    super(weights);
    this.config = config;
    const D = config.d_model;
    // One table has four names, whatever the config says of tying, and which of them a file keeps depends on its writer.
    // Where it has several, HF ties only those that are equal; the encoder's is never looked up, as prompts come embedded.
    const table = (name: string) => tiedTable(weights, [name, ...TABLES], D);
    this.shared = new Embedding(weights.at("shared"), D, { weight: table("shared") });
    const decoder = weights.at("decoder.embed_tokens");
    this.decoder_embed_tokens = new Embedding(decoder, D, { weight: table("decoder.embed_tokens") });
    this.encoder = new T5Stack(weights.at("encoder"), config, { is_decoder: false });
    this.decoder = new T5Stack(weights.at("decoder"), config, { is_decoder: true });
    const head = table("lm_head");
    this.lm_head = new Linear(weights.at("lm_head"), head.shape, { bias: false, weight: head });
    if (TABLES.find((name) => weights.has(`${name}.weight`)) === "lm_head" && !config.scales_head_input) {
      weights.warn("there are no token embeddings but lm_head's, which in T5 1.1 and Flan-T5 is another table");
    }
    for (const { weight, path } of [this.decoder_embed_tokens, this.lm_head]) {
      if (weight.shape[0] === this.num_embeddings) continue;
      throw new WeightError(
        "SHAPE_EXPECTED",
        `${path}.weight: expected ${this.num_embeddings} rows, as ${this.shared.path}.weight, the checkpoint has ${weight.shape[0]}`,
      );
    }
  }

  get cache_shape() {
    const { decoder_layers: layers, num_heads: heads, d_kv: head_dim } = this.config;
    return { layers, heads, head_dim };
  }

  get num_embeddings(): number {
    return this.shared.num_embeddings;
  }

  get vocabulary(): number {
    return this.lm_head.weight.shape[0];
  }

  /** What an answer begins with. @throws ConfigError NO_DECODER_START */
  get decoder_start_token_id(): number {
    const id = this.config.decoder_start;
    if (id !== null && id >= 0 && id < this.num_embeddings) return id;
    throw new ConfigError("NO_DECODER_START", "text_config has no decoder_start_token_id: an answer cannot begin", {
      hint: "T5's is 0",
    });
  }

  embed(ids: Tensor<"u32">): Tensor {
    return this.shared.forward(ids);
  }

  forward(
    prompt: EmbeddedPrompt,
    { decoder_input_ids, logits_to_keep }: LanguageModelInputs = {},
  ): LanguageModelOutput {
    const ids = this.#checkIds(decoder_input_ids, prompt.inputs_embeds.shape[0]);
    const { states, cross } = this.encode(prompt);
    const logits = this.observe(this.decode(upload(prompt.inputs_embeds.device, ids), { cross }, logits_to_keep));
    return { logits, encoder_last_hidden_state: states, ...this.observed() };
  }

  observed(): LanguageModelStates {
    const { device } = this.lm_head.weight;
    const { encoder, decoder } = this;
    return {
      encoder_hidden_states: observedStates(device, "hidden_states", encoder.path),
      encoder_attentions: observedStates(device, "attentions", encoder.path),
      decoder_hidden_states: observedStates(device, "hidden_states", decoder.path),
      decoder_attentions: observedStates(device, "attentions", decoder.path),
      cross_attentions: observedStates(device, "cross_attentions", decoder.path),
    };
  }

  begin(batch: number, capacity: number): Decoding {
    return new T5Decoding(this, batch, capacity);
  }

  /**
   * Reads the prompt. Padding is not seen, but counts as positions: pads between image and text shift them.
   *
   * @param stored what is made of the keys and values of the decoder's layers, f32[B, L, H, d]. Default: themselves
   */
  encode(
    { inputs_embeds, attention_mask }: EmbeddedPrompt,
    stored: (x: Tensor) => KeysOrValues = (x) => x,
  ): { states: Tensor; cross: CrossKeys } {
    const mask = maskTensor(inputs_embeds.device, attention_mask);
    const states = this.encoder.forward(inputs_embeds, { mask }); // [B, L, D]
    const layers = this.decoder.block.map((block) => {
      const [k, v] = block.cross_attention!.EncDecAttention.keys(states);
      return [stored(k), stored(v)] as const;
    });
    return { states, cross: { layers, mask } };
  }

  /** @param ids u32[B, T] @returns logits f32[B, T, V], or of the last tokens only */
  decode(ids: Tensor<"u32">, step: T5StackStep, logits_to_keep?: number): Tensor {
    const all = this.decoder.forward(this.decoder_embed_tokens.forward(ids), step); // [B, T, D]
    const states = lastTokens(all, logits_to_keep);
    return this.lm_head.forward(this.config.scales_head_input ? scale(states, this.config.d_model ** -0.5) : states);
  }

  #checkIds(ids: Ids | undefined, B: number): Ids {
    if (!ids) {
      throw new InputError("NO_DECODER_IDS", "T5's forward needs decoder_input_ids: what the answer is to begin with", {
        hint: "[[0], …] for one start token a row",
      });
    }
    const rows = this.decoder_embed_tokens.num_embeddings;
    const whole = ids.length === B && ids[0].length > 0 && ids.every((row) => row.length === ids[0].length);
    if (!whole) throw new InputError("BAD_INPUT", `decoder_input_ids must be ${B} rows of one length, of 1 or more`);
    const wrong = ids.flat().find((id) => !Number.isInteger(id) || id < 0 || id >= rows);
    if (wrong !== undefined) {
      throw new InputError("TOKEN_ID", `decoder_input_ids: ${wrong} is not a token id below ${rows}`);
    }
    return ids;
  }
}

/** An answer under way: the decoder's own cache, and the prompt's keys and values, computed once. */
class T5Decoding implements Decoding {
  readonly #model: T5ForConditionalGeneration;
  readonly #cache: KVCache;
  readonly #replayed: ReplayedStep;
  #cross: CrossKeys | undefined;
  /** What each distance adds to a score: f32[2·capacity - 1, H]. */
  #distances: Tensor | undefined;
  /** The prompt of every row. */
  #prompts: readonly number[];

  constructor(model: T5ForConditionalGeneration, batch: number, capacity: number) {
    const { cache_shape, cache_dtype: dtype } = model;
    this.#model = model;
    this.#cache = new KVCache(model.lm_head.weight.device, { ...cache_shape, batch, capacity, dtype });
    this.#replayed = new ReplayedStep(this.#cache.past.device, (tokens) => this.#step(tokens));
    this.#prompts = Array.from({ length: batch }, (_, b) => b);
  }

  prefill(prompt: EmbeddedPrompt): Tensor {
    const { device } = prompt.inputs_embeds;
    this.#keep(this.#model.encode(prompt, this.#model.cache_dtype === "f16" ? halvesOf : undefined).cross);
    this.#distances = this.#model.decoder.distances(device, this.#cache.capacity);
    device.memory.keep(this.#distances.storage);
    const start = this.#prompts.map(() => this.#model.decoder_start_token_id);
    return this.step(device.tensor(Uint32Array.from(start), [start.length]));
  }

  step(tokens: Tensor<"u32">): Tensor {
    const logits = this.#replayed.run(tokens);
    this.#cache.advanceOnHost(1);
    return logits;
  }

  reorder(rows: readonly number[]): void {
    this.#cache.reorder(rows);
    const prompts = rows.map((row) => this.#prompts[row]);
    // Beams of one prompt look at the same keys: most reorderings leave these as they are.
    const same = prompts.length === this.#prompts.length && prompts.every((prompt, i) => prompt === this.#prompts[i]);
    this.#prompts = prompts;
    if (same || !this.#cross) return;
    this.#replayed.forget();
    const old = this.#cross;
    const index = old.layers[0][0].device.tensor(Uint32Array.from(rows), [rows.length]);
    this.#keep(mapTensors(old, (x) => pick(x, index)));
    for (const tensor of tensorsOf(old)) tensor.dispose();
    index.dispose();
  }

  lookAhead(rows: readonly number[], tokens: Tensor<"u32">): Tensor {
    const { device } = tokens;
    const [row] = rows;
    const index = device.tensor(Uint32Array.from(rows), [rows.length]);
    // Continuations of one prompt share its keys, which are many times larger than their own.
    const cross = rows.every((other) => other === row)
      ? mapTensors(this.#cross!, (x) => x.narrow(0, row, 1).expand([rows.length, ...x.shape.slice(1)]))
      : mapTensors(this.#cross!, (x) => pick(x, index));
    const cache = this.#cache.fork(rows);
    try {
      return this.#model.decode(tokens, { cache, cross });
    } finally {
      cache.dispose();
    }
  }

  dispose(): void {
    this.#replayed.forget();
    this.#distances?.dispose();
    this.#cache.dispose();
    if (this.#cross) for (const tensor of tensorsOf(this.#cross)) tensor.dispose();
  }

  /** u32[R] -> f32[R, V], by launches alone. */
  #step(tokens: Tensor<"u32">): Tensor {
    const step = { cache: this.#cache, cross: this.#cross, distances: this.#distances };
    const logits = this.#model.decode(tokens.reshape([tokens.size, 1]), step); // [R, 1, V]
    this.#cache.advanceOnDevice(1);
    return logits.reshape([tokens.size, -1]);
  }

  /** Takes the keys out of the scopes they were made in: they serve every step. */
  #keep(cross: CrossKeys): void {
    for (const tensor of tensorsOf(cross)) tensor.device.memory.keep(tensor.storage);
    this.#cross = cross;
  }
}

/** Rows of a tensor's first dimension. */
function pick<D extends "f32" | "u32">(x: Tensor<D>, rows: Tensor<"u32">): Tensor<D> {
  return takeRows(x.reshape([x.shape[0], -1]), rows).reshape([rows.size, ...x.shape.slice(1)]);
}

function mapTensors({ layers, mask }: CrossKeys, fn: <D extends "f32" | "u32">(x: Tensor<D>) => Tensor<D>): CrossKeys {
  return { layers: layers.map(([k, v]) => [fn(k), fn(v)] as const), mask: mask && fn(mask) };
}

function tensorsOf({ layers, mask }: CrossKeys): KeysOrValues[] {
  return [...layers.flat(), ...(mask ? [mask] : [])];
}
