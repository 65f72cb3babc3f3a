/**
 * T5 and Flan-T5: an encoder of the prompt, and a decoder with cross-attention to it. Pre-norm with RMS norms, no biases;
 * positions enter only as a relative bias on the attention scores.
 *
 * B rows, L prompt tokens, T decoder tokens of this call, S keys, D wide, H heads, d a head (H·d need not be D).
 *
 *   inputs_embeds ─ encoder ─► states ─ k, v of every decoder layer, once
 *   start, answer ─ shared ─► decoder: self-attention ─ cross-attention to the states ─ feed-forward ─► lm_head ─► logits
 *
 * Source: Raffel et al. 2020; Chung et al. 2022 (Flan); transformers 5.18, modeling_t5.py.
 */
import { Embedding, tiedTable } from "../../modules/embedding.ts";
import { KVCache, toF16 } from "../../modules/kv_cache.ts";
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { observedStates } from "../../modules/observer.ts";
import { ReplayedStep } from "../../modules/replay.ts";
import type { KVCacheDType } from "../../modules/storage_dtype.ts";
import type { Weights } from "../../modules/weights.ts";
import { ConfigError, InputError, WeightError } from "../../tensor/errors.ts";
import type { KeysOrValues } from "../../tensor/ops/attention.ts";
import { scale } from "../../tensor/ops/scale.ts";
import { takeRows } from "../../tensor/ops/take_rows.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Weight } from "../../tensor/weight.ts";
import type { T5Config } from "../config/t5.ts";
import {
  type BaseLanguageModel,
  type BaseLanguageModelOutput,
  type Decoding,
  type EmbeddedPrompt,
  type Ids,
  type LanguageModel,
  type LanguageModelInputs,
  type LanguageModelOutput,
  type LanguageModelStates,
  lastTokens,
  maskTensor,
  type TextStates,
  upload,
} from "./language_model.ts";
import { type CrossKeys, T5Stack, type T5StackStep } from "./t5_stack.ts";

/** The names of the embedding table, in the order in which HF ties them. */
const TABLES = ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"];

/**
 * One table has four names, whatever the config says about tying, and a file has some of them. If it has several, HF ties those
 * that are equal; the encoder's is never used, as prompts are given as embeddings.
 */
function tableOf(weights: Weights, name: string, D: number): Weight {
  return tiedTable(weights, [name, ...TABLES], D);
}

/** T5 without its head: the token embeddings, encoder and decoder. */
export class T5Model extends Module implements BaseLanguageModel {
  readonly is_encoder_decoder = true;
  readonly shared: Embedding;
  readonly encoder: T5Stack;
  readonly decoder: T5Stack;
  /** `decoder.embed_tokens`: the table of `shared`, under another name. */
  readonly decoder_embed_tokens: Embedding;
  readonly config: T5Config;

  constructor(weights: Weights, config: T5Config) {
    super(weights);
    this.config = config;
    const D = config.d_model;
    this.shared = new Embedding(weights.at("shared"), D, { weight: tableOf(weights, "shared", D) });
    const decoder = weights.at("decoder.embed_tokens");
    this.decoder_embed_tokens = new Embedding(decoder, D, { weight: tableOf(weights, "decoder.embed_tokens", D) });
    this.encoder = new T5Stack(weights.at("encoder"), config, { is_decoder: false });
    this.decoder = new T5Stack(weights.at("decoder"), config, { is_decoder: true });
    if (TABLES.find((name) => weights.has(`${name}.weight`)) === "lm_head" && !config.scalesLmHeadInput) {
      weights.warn("there are no token embeddings but lm_head's, which in T5 1.1 and Flan-T5 is another table");
    }
    this.expectRows(this.decoder_embed_tokens);
  }

  /** @throws WeightError SHAPE_EXPECTED unless the table has a row for every token of `shared` */
  protected expectRows({ weight, path }: Embedding | Linear): void {
    if (weight.shape[0] === this.num_embeddings) return;
    throw new WeightError(
      "SHAPE_EXPECTED",
      `${path}.weight: expected ${this.num_embeddings} rows, as ${this.shared.path}.weight, the checkpoint has ${weight.shape[0]}`,
    );
  }

  get num_embeddings(): number {
    return this.shared.num_embeddings;
  }

  embed(ids: Tensor<"u32">): Tensor {
    return this.shared.forward(ids);
  }

  states(
    prompt: EmbeddedPrompt,
    { decoder_input_ids }: Pick<LanguageModelInputs, "decoder_input_ids"> = {},
  ): BaseLanguageModelOutput {
    const ids = this.checkIds(decoder_input_ids, prompt.inputs_embeds.shape[0]!);
    const { states, cross } = this.encode(prompt);
    const last_hidden_state = this.observe(this.decoded(upload(prompt.inputs_embeds.device, ids), { cross }));
    return { last_hidden_state, encoder_last_hidden_state: states, ...this.observed() };
  }

  textStates({ inputs_embeds, attention_mask }: EmbeddedPrompt): TextStates {
    const { device } = inputs_embeds;
    const { encoder } = this;
    const last_hidden_state = encoder.forward(inputs_embeds, { mask: maskTensor(device, attention_mask) }); // [B, L, D]
    return {
      last_hidden_state,
      hidden_states: observedStates(device, "hidden_states", encoder.path),
      attentions: observedStates(device, "attentions", encoder.path),
    };
  }

  observed(): LanguageModelStates {
    const { device } = this.shared.weight;
    const { encoder, decoder } = this;
    return {
      encoder_hidden_states: observedStates(device, "hidden_states", encoder.path),
      encoder_attentions: observedStates(device, "attentions", encoder.path),
      decoder_hidden_states: observedStates(device, "hidden_states", decoder.path),
      decoder_attentions: observedStates(device, "attentions", decoder.path),
      cross_attentions: observedStates(device, "cross_attentions", decoder.path),
    };
  }

  /**
   * Encodes the prompt. Padding is masked, but counts as positions: padding between image and text shifts them.
   *
   * @param stored converts the keys and values of the decoder's layers, f32[B, L, H, d], for storage. Default: identity
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

  /** The decoder's states of its own tokens. @param ids u32[B, T] @returns f32[B, T, D] */
  decoded(ids: Tensor<"u32">, step: T5StackStep): Tensor {
    return this.decoder.forward(this.decoder_embed_tokens.forward(ids), step);
  }

  /** @throws InputError NO_DECODER_IDS, BAD_INPUT, TOKEN_ID */
  protected checkIds(ids: Ids | undefined, B: number): Ids {
    if (!ids) {
      throw new InputError("NO_DECODER_IDS", "T5's forward needs decoder_input_ids", {
        hint: "[[0], …] for one start token a row",
      });
    }
    const rows = this.decoder_embed_tokens.num_embeddings;
    const T = ids[0]?.length ?? 0;
    const whole = ids.length === B && T > 0 && ids.every((row) => row.length === T);
    if (!whole) throw new InputError("BAD_INPUT", `decoder_input_ids must be ${B} rows of one length, of 1 or more`);
    const wrong = ids.flat().find((id) => !Number.isInteger(id) || id < 0 || id >= rows);
    if (wrong !== undefined) {
      throw new InputError("TOKEN_ID", `decoder_input_ids: ${wrong} is not a token id below ${rows}`);
    }
    return ids;
  }
}

/** T5 with its head, which is the token embedding unless the checkpoint has one. */
export class T5ForConditionalGeneration extends T5Model implements LanguageModel {
  kvCacheDtype: KVCacheDType = "f32";
  readonly lm_head: Linear;

  constructor(weights: Weights, config: T5Config) {
    super(weights, config);
    const head = tableOf(weights, "lm_head", config.d_model);
    this.lm_head = new Linear(weights.at("lm_head"), head.shape, { bias: false, weight: head });
    this.expectRows(this.lm_head);
  }

  get cacheShape() {
    const { decoderLayers: layers, num_heads: heads, d_kv: head_dim } = this.config;
    return { layers, heads, head_dim };
  }

  get vocabulary(): number {
    return this.lm_head.weight.shape[0];
  }

  /** The start token of the decoder. @throws ConfigError NO_DECODER_START */
  get decoder_start_token_id(): number {
    const id = this.config.decoderStartTokenId;
    if (id !== null && id >= 0 && id < this.num_embeddings) return id;
    throw new ConfigError("NO_DECODER_START", "text_config has no decoder_start_token_id, which decoding needs", {
      hint: "T5's is 0",
    });
  }

  forward(
    prompt: EmbeddedPrompt,
    { decoder_input_ids, logits_to_keep }: LanguageModelInputs = {},
  ): LanguageModelOutput {
    const ids = this.checkIds(decoder_input_ids, prompt.inputs_embeds.shape[0]!);
    const { states, cross } = this.encode(prompt);
    const logits = this.observe(this.decode(upload(prompt.inputs_embeds.device, ids), { cross }, logits_to_keep));
    return { logits, encoder_last_hidden_state: states, ...this.observed() };
  }

  begin(batch: number, capacity: number): Decoding {
    return new T5Decoding(this, batch, capacity);
  }

  /** @param ids u32[B, T] @returns logits f32[B, T, V], or of the last tokens only */
  decode(ids: Tensor<"u32">, step: T5StackStep, logits_to_keep?: number): Tensor {
    return this.#head(lastTokens(this.decoded(ids, step), logits_to_keep)); // states [B, T, D]
  }

  readout(states: Tensor): Tensor {
    return this.#head(this.decoder.final_layer_norm.forward(states));
  }

  #head(states: Tensor): Tensor {
    return this.lm_head.forward(this.config.scalesLmHeadInput ? scale(states, this.config.d_model ** -0.5) : states);
  }
}

/** Decoding with an encoder-decoder: the decoder's own cache, and the prompt's keys and values, computed once. */
class T5Decoding implements Decoding {
  readonly #model: T5ForConditionalGeneration;
  readonly #cache: KVCache;
  readonly #replayed: ReplayedStep;
  #cross: CrossKeys | undefined;
  /** The relative position bias of each distance: f32[2·capacity - 1, H]. */
  #distances: Tensor | undefined;
  /** The prompt's keys and values for every row. */
  #prompts: readonly number[];

  constructor(model: T5ForConditionalGeneration, batch: number, capacity: number) {
    const { cacheShape, kvCacheDtype: dtype } = model;
    this.#model = model;
    this.#cache = new KVCache(model.lm_head.weight.device, { ...cacheShape, batch, capacity, dtype });
    this.#replayed = new ReplayedStep(this.#cache.past.device, (tokens) => this.#step(tokens));
    this.#prompts = Array.from({ length: batch }, (_, b) => b);
  }

  prefill(prompt: EmbeddedPrompt): Tensor {
    const { device } = prompt.inputs_embeds;
    this.#keep(this.#model.encode(prompt, this.#model.kvCacheDtype === "f16" ? toF16 : undefined).cross);
    this.#distances = this.#model.decoder.distances(device, this.#cache.capacity);
    device.memory.keep(this.#distances.storage);
    const start = this.#prompts.map(() => this.#model.decoder_start_token_id);
    return this.step(device.tensor(Uint32Array.from(start), [start.length]));
  }

  step(tokens: Tensor<"u32">): Tensor {
    const logits = this.#replayed.run(tokens);
    this.#cache.commitAdvance(1);
    return logits;
  }

  extend(tokens: Tensor<"u32">): Tensor {
    const [, T] = sizes(tokens.shape, 2);
    const step = { cache: this.#cache, cross: this.#cross, distances: this.#distances };
    const logits = this.#model.decode(tokens, step); // [R, T, V]
    this.#cache.advance(T);
    return logits;
  }

  crop(tokens: number): void {
    this.#cache.crop(tokens);
  }

  reorder(rows: readonly number[]): void {
    this.#cache.reorder(rows);
    const prompts = rows.map((row) => this.#prompts[row]!);
    // Beams of one prompt share its keys: most reorderings do not change them.
    const same = prompts.length === this.#prompts.length && prompts.every((prompt, i) => prompt === this.#prompts[i]);
    this.#prompts = prompts;
    if (same || !this.#cross) return;
    this.#replayed.forget();
    const old = this.#cross;
    const index = this.#cache.past.device.tensor(Uint32Array.from(rows), [rows.length]);
    this.#keep(mapTensors(old, (x) => pick(x, index)));
    for (const tensor of tensorsOf(old)) tensor.dispose();
    index.dispose();
  }

  continuationLogits(rows: readonly number[], tokens: Tensor<"u32">): Tensor {
    const { device } = tokens;
    const row = rows[0]!;
    const index = device.tensor(Uint32Array.from(rows), [rows.length]);
    // Continuations of one prompt share its keys, which are many times larger than their own.
    const cross = rows.every((other) => other === row)
      ? mapTensors(this.#cross!, (x) => x.narrow(0, row, 1).expand([rows.length, ...x.shape.slice(1)]))
      : mapTensors(this.#cross!, (x) => pick(x, index));
    const cache = this.#cache.copyRows(rows);
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

  /** u32[R] -> f32[R, V], by launches alone, so that it can be captured. */
  #step(tokens: Tensor<"u32">): Tensor {
    const step = { cache: this.#cache, cross: this.#cross, distances: this.#distances };
    const logits = this.#model.decode(tokens.reshape([tokens.size, 1]), step); // [R, 1, V]
    this.#cache.launchAdvance(1);
    return logits.reshape([tokens.size, -1]);
  }

  /** Keeps the keys beyond the scope they were allocated in: every step reads them. */
  #keep(cross: CrossKeys): void {
    for (const tensor of tensorsOf(cross)) tensor.device.memory.keep(tensor.storage);
    this.#cross = cross;
  }
}

/** Rows of a tensor's first dimension. */
function pick<D extends "f32" | "u32">(x: Tensor<D>, rows: Tensor<"u32">): Tensor<D> {
  return takeRows(x.reshape([x.shape[0]!, -1]), rows).reshape([rows.size, ...x.shape.slice(1)]);
}

function mapTensors({ layers, mask }: CrossKeys, fn: <D extends "f32" | "u32">(x: Tensor<D>) => Tensor<D>): CrossKeys {
  return { layers: layers.map(([k, v]) => [fn(k), fn(v)] as const), mask: mask && fn(mask) };
}

function tensorsOf({ layers, mask }: CrossKeys): KeysOrValues[] {
  return [...layers.flat(), ...(mask ? [mask] : [])];
}
