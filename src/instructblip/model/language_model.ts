/**
 * The interface of a language model: embed a prompt, one forward pass over it, decode an answer. Decoder-only models (LLaMA,
 * OPT) continue the prompt; encoder-decoders (T5) encode the prompt and decode from a start token.
 *
 * B prompts of L tokens, R rows (prompts, or the beams of all prompts), D wide, V rows of the head.
 */
import type { Embedding } from "../../modules/embedding.ts";
import { KVCache, type KVCacheShape } from "../../modules/kv_cache.ts";
import type { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { observedStates } from "../../modules/observer.ts";
import { ReplayedStep } from "../../modules/replay.ts";
import type { KVCacheDType } from "../../modules/storage_dtype.ts";
import type { Device } from "../../tensor/device/device.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { increment } from "../../tensor/ops/increment.ts";
import { takeRows } from "../../tensor/ops/take_rows.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** Token ids, masks or positions, [B][T]. */
export type Ids = readonly (readonly number[])[];

/** The embeddings of a prompt with its image features. */
export interface EmbeddedPrompt {
  /** f32[B, L, D] */
  readonly inputs_embeds: Tensor;
  /** [B][L], 1 = not padding */
  readonly attention_mask: Ids;
}

/**
 * Hidden states and attentions of each layer, by Hugging Face's names, as far as they were observed (modules/observer.ts).
 */
export interface LanguageModelStates {
  /** f32[B, L, D]: the input of each layer, and the output of the final norm */
  readonly hidden_states?: readonly Tensor[] | undefined;
  /** f32[B, H, L, L] */
  readonly attentions?: readonly Tensor[] | undefined;
  // Of an encoder-decoder, with L prompt tokens and T decoder tokens:
  readonly encoder_hidden_states?: readonly Tensor[] | undefined;
  readonly encoder_attentions?: readonly Tensor[] | undefined;
  readonly decoder_hidden_states?: readonly Tensor[] | undefined;
  readonly decoder_attentions?: readonly Tensor[] | undefined;
  /** f32[B, H, T, L] */
  readonly cross_attentions?: readonly Tensor[] | undefined;
}

/** The outputs of a language model without its head. */
export interface BaseLanguageModelOutput extends LanguageModelStates {
  /** f32[B, L, D], after the final norm; with an encoder f32[B, T, D], the decoder's */
  readonly last_hidden_state: Tensor;
  /** With an encoder: f32[B, L, D] */
  readonly encoder_last_hidden_state?: Tensor;
}

/** The states of a text: of a decoder-only model behind its layers, of an encoder-decoder the encoder's. */
export type TextStates = Pick<BaseLanguageModelOutput, "last_hidden_state" | "hidden_states" | "attentions">;

export interface LanguageModelOutput extends LanguageModelStates {
  /** f32[B, L, V]; with an encoder f32[B, T, V] */
  readonly logits: Tensor;
  /** With an encoder: f32[B, L, D] */
  readonly encoder_last_hidden_state?: Tensor;
}

export interface LanguageModelInputs {
  /** [B][T], needed with an encoder and ignored without */
  readonly decoder_input_ids?: Ids | undefined;
  /** Number of last tokens whose logits are computed; 0: all */
  readonly logits_to_keep?: number | undefined;
}

/** A language model, with or without a head. */
export interface EmbeddingLanguageModel extends Module {
  /** Whether the model is an encoder-decoder: answers then begin with a start token instead of the prompt. */
  readonly is_encoder_decoder: boolean;
  /** Rows of the token embedding in the checkpoint: ids at or above it cannot be looked up. */
  readonly num_embeddings: number;

  /** Token embeddings. u32[B, T] -> f32[B, T, D] */
  embed(ids: Tensor<"u32">): Tensor;
}

/** A language model without a head: LlamaModel, OPTModel, T5Model. */
export interface BaseLanguageModel extends EmbeddingLanguageModel {
  /**
   * One pass, as Hugging Face's forward(): states of the prompt's tokens, with an encoder of decoder_input_ids.
   *
   * @throws InputError NO_DECODER_IDS, TOKEN_ID, TOO_MANY_POSITIONS
   */
  states(prompt: EmbeddedPrompt, inputs?: Pick<LanguageModelInputs, "decoder_input_ids">): BaseLanguageModelOutput;
}

/** A language model with its head. */
export interface LanguageModel extends EmbeddingLanguageModel {
  /** The start token of an encoder-decoder. @throws ConfigError NO_DECODER_START */
  readonly decoder_start_token_id: number | undefined;
  /** Rows of the head: ids at or above it cannot be generated. */
  readonly vocabulary: number;
  readonly cacheShape: Pick<KVCacheShape, "layers" | "heads" | "head_dim">;
  /** Number type of the key/value cache of answers begun from now on. */
  kvCacheDtype: KVCacheDType;

  /**
   * One pass, as Hugging Face's forward(): logits of the prompt's tokens, with an encoder of decoder_input_ids.
   *
   * @throws InputError NO_DECODER_IDS, TOKEN_ID, TOO_MANY_POSITIONS
   */
  forward(prompt: EmbeddedPrompt, inputs?: LanguageModelInputs): LanguageModelOutput;

  /** The states of a text, without the head. @throws InputError TOO_MANY_POSITIONS */
  textStates(text: EmbeddedPrompt): TextStates;

  /**
   * Logits of a state between two layers (of an encoder-decoder: of the decoder) as if it were the last layer's output: the
   * final norm and projection, if the model has them, and the head. f32[R, D] -> f32[R, V]
   */
  readout(states: Tensor): Tensor;

  /** Returns the states observed since the last call, if there is an observer of them. */
  observed(): LanguageModelStates;

  /** Begins to decode an answer of at most `capacity` tokens, the prompt's (or the start token) included. */
  begin(batch: number, capacity: number): Decoding;
}

/** The state of decoding a batch of answers. */
export interface Decoding {
  /**
   * Prefill: reads the prompt, once, before any step.
   *
   * @param positions of a decoder-only model: as generate() counts them, visible tokens only, or as forward() does
   * @returns logits f32[B, V] of the answer's first token
   */
  prefill(prompt: EmbeddedPrompt, positions?: "generate" | "forward"): Tensor;
  /** @param tokens u32[R] @returns logits f32[R, V] of the token after these */
  step(tokens: Tensor<"u32">): Tensor;
  /** Several steps in one pass. @param tokens u32[R, T] @returns logits f32[R, T, V] of the token after each */
  extend(tokens: Tensor<"u32">): Tensor;
  /** Forgets the last `tokens` tokens of every row, at most those read since prefill. */
  crop(tokens: number): void;
  /** Reorders rows: row i continues row `rows[i]`. There may be more rows than before. */
  reorder(rows: readonly number[]): void;
  /**
   * The logits after each token of R given continuations of T tokens, for scoring them. The state is not changed.
   *
   * @param rows continuation i continues row `rows[i]`
   * @param tokens u32[R, T]; a row may end in padding, to which tokens before it do not attend
   * @returns logits f32[R, T, V] of the token after each
   */
  continuationLogits(rows: readonly number[], tokens: Tensor<"u32">): Tensor;
  dispose(): void;
}

/** The arguments of every layer of a decoder-only model, besides its input. S: the T tokens of this call. */
export interface CausalStep {
  /** u32[B, T]: each token's position, or its row in the table of positions */
  readonly positions: Tensor<"u32">;
  /** u32[B, S], 1 = visible. With a cache the mask is in its block table. */
  readonly mask?: Tensor<"u32"> | undefined;
  /** Keys and values of earlier tokens; without one, T is the whole sequence. */
  readonly cache: KVCache | undefined;
}

/** The layers of a decoder-only model, with its embeddings and without its head. */
export abstract class CausalModel extends Module implements BaseLanguageModel {
  readonly is_encoder_decoder = false;
  abstract readonly embed_tokens: Embedding;

  /** All layers. f32[B, T, D] -> f32[B, T, D] */
  abstract forward(inputs_embeds: Tensor, step: CausalStep): Tensor;

  /** The positions of a prompt in Hugging Face's forward(), which count padding; generation has its own. */
  promptPositions(attention_mask: Ids): Ids {
    return attention_mask.map((row) => row.map((_, slot) => slot));
  }

  /** Refuses positions beyond the model's table. [B][T] @throws InputError */
  checkPositions(_positions: Ids): void {}

  /** Offset of position 0 in the table of positions. */
  readonly position_offset: number = 0;

  /** Positions on the GPU, for `forward`. [B][T] -> u32[B, T] */
  positionTensor(positions: Ids): Tensor<"u32"> {
    this.checkPositions(positions);
    const rows = positions.map((row) => row.map((position) => position + this.position_offset));
    return upload(this.embed_tokens.weight.device, rows);
  }

  get num_embeddings(): number {
    return this.embed_tokens.num_embeddings;
  }

  embed(ids: Tensor<"u32">): Tensor {
    return this.embed_tokens.forward(ids);
  }

  /** All layers of a whole prompt. f32[B, L, D] */
  readPrompt({ inputs_embeds, attention_mask }: EmbeddedPrompt): Tensor {
    const positions = this.positionTensor(this.promptPositions(attention_mask));
    const mask = maskTensor(inputs_embeds.device, attention_mask);
    return this.forward(inputs_embeds, { positions, mask, cache: undefined });
  }

  states(prompt: EmbeddedPrompt): BaseLanguageModelOutput & TextStates {
    return { last_hidden_state: this.readPrompt(prompt), ...this.observed() };
  }

  observed(): Pick<LanguageModelStates, "hidden_states" | "attentions"> {
    const { device } = this.embed_tokens.weight;
    return {
      hidden_states: observedStates(device, "hidden_states", this.path),
      attentions: observedStates(device, "attentions", this.path),
    };
  }
}

/** A decoder-only model with its head. */
export abstract class CausalLanguageModel extends Module implements LanguageModel {
  readonly is_encoder_decoder = false;
  readonly decoder_start_token_id = undefined;
  abstract readonly model: CausalModel;
  abstract readonly lm_head: Linear;
  abstract readonly cacheShape: LanguageModel["cacheShape"];
  kvCacheDtype: KVCacheDType = "f32";

  abstract readout(states: Tensor): Tensor;

  /** Chunk size of prefill, in tokens: a launch over a long prompt could exceed a driver's time limit. */
  prefill_chunk = 512;

  /** All layers before the head. f32[B, T, D] -> f32[B, T, D] */
  hiddenStates(inputs_embeds: Tensor, step: CausalStep): Tensor {
    return this.model.forward(inputs_embeds, step);
  }

  get embed_tokens(): Embedding {
    return this.model.embed_tokens;
  }

  get num_embeddings(): number {
    return this.model.num_embeddings;
  }

  get vocabulary(): number {
    return this.lm_head.weight.shape[0];
  }

  embed(ids: Tensor<"u32">): Tensor {
    return this.model.embed(ids);
  }

  forward(prompt: EmbeddedPrompt, { logits_to_keep }: LanguageModelInputs = {}): LanguageModelOutput {
    const states = this.model.readPrompt(prompt); // [B, L, D]
    const logits = this.observe(this.lm_head.forward(lastTokens(states, logits_to_keep)));
    return { logits, ...this.observed() };
  }

  textStates(text: EmbeddedPrompt): TextStates {
    return this.model.states(text);
  }

  observed(): LanguageModelStates {
    return this.model.observed();
  }

  /** Logits of every row's last token. f32[B, T, D] -> f32[B, V] */
  lastLogits(states: Tensor): Tensor {
    const [B, T, D] = sizes(states.shape, 3);
    if (T === 1) return this.lm_head.forward(states.reshape([B, D]));
    const last = Uint32Array.from({ length: B }, (_, b) => b * T + T - 1);
    return this.lm_head.forward(takeRows(states.reshape([B * T, D]), states.device.tensor(last, [B])));
  }

  begin(batch: number, capacity: number): Decoding {
    const shape = { ...this.cacheShape, batch, capacity, dtype: this.kvCacheDtype };
    return new CausalDecoding(this, new KVCache(this.lm_head.weight.device, shape));
  }
}

/** Decoding with a decoder-only model. */
class CausalDecoding implements Decoding {
  readonly #model: CausalLanguageModel;
  readonly #cache: KVCache;
  readonly #replayed: ReplayedStep;
  /** Position of every row's next token. */
  #next: readonly number[] = [];
  /** The same on the GPU, for `hiddenStates`: u32[R, 1]. */
  #positions: Tensor<"u32"> | undefined;

  constructor(model: CausalLanguageModel, cache: KVCache) {
    this.#model = model;
    this.#cache = cache;
    this.#replayed = new ReplayedStep(cache.past.device, (tokens) => this.#step(tokens));
  }

  prefill({ inputs_embeds, attention_mask }: EmbeddedPrompt, counted: "generate" | "forward" = "generate"): Tensor {
    const { positions, next } = counted === "forward" ? this.#byForward(attention_mask) : this.#byMask(attention_mask);
    this.#next = next;
    this.#cache.setPromptMask(attention_mask);
    const { device } = inputs_embeds;
    const [, L] = sizes(inputs_embeds.shape, 3);
    // An observer gets the prompt in one pass.
    const chunk = device.observers.length > 0 ? L : this.#model.prefill_chunk;
    let start = 0;
    for (; start + chunk < L; start += chunk) device.scope(() => this.#read(inputs_embeds, positions, start, chunk));
    return this.#model.lastLogits(this.#read(inputs_embeds, positions, start, L - start));
  }

  #byMask(attention_mask: Ids): { positions: Ids; next: readonly number[] } {
    // Positions count visible tokens only, so that left padding does not shift them; padding gets 0. The answer continues from
    // the last column: after right padding from 0 + 1, as in HF (which is why prompts are padded left).
    const positions = attention_mask.map((row) => {
      let seen = 0;
      return row.map((visible) => (visible ? seen++ : 0));
    });
    return { positions, next: positions.map((row) => row.at(-1)! + 1) };
  }

  /** The answer's first token is one more visible token of the prompt. */
  #byForward(attention_mask: Ids): { positions: Ids; next: readonly number[] } {
    const withNext = this.#model.model.promptPositions(attention_mask.map((row) => [...row, 1]));
    return { positions: withNext.map((row) => row.slice(0, -1)), next: withNext.map((row) => row.at(-1)!) };
  }

  /** Hidden states of a chunk of the prompt, whose keys and values are appended to the cache. @returns f32[B, T, D] */
  #read(inputs_embeds: Tensor, positions: Ids, start: number, T: number): Tensor {
    const part = contiguous(inputs_embeds.narrow(1, start, T)); // [B, T, D]
    const at = this.#model.model.positionTensor(positions.map((row) => row.slice(start, start + T)));
    const states = this.#model.hiddenStates(part, { positions: at, cache: this.#cache });
    this.#cache.advance(T);
    return states;
  }

  step(tokens: Tensor<"u32">): Tensor {
    this.#model.model.checkPositions(this.#next.map((position) => [position]));
    this.#positions ??= this.#upload();
    const logits = this.#replayed.run(tokens);
    this.#cache.commitAdvance(1);
    this.#next = this.#next.map((position) => position + 1);
    return logits;
  }

  extend(tokens: Tensor<"u32">): Tensor {
    const [, T] = sizes(tokens.shape, 2);
    const positions = this.#model.model.positionTensor(
      this.#next.map((next) => Array.from({ length: T }, (_, t) => next + t)),
    );
    const states = this.#model.hiddenStates(this.#model.embed(tokens), { positions, cache: this.#cache });
    const logits = this.#model.lm_head.forward(states); // first, as in a step
    this.#move(T);
    return logits;
  }

  crop(tokens: number): void {
    this.#move(-tokens);
  }

  /** The cache and the next positions, on the host and on the GPU. */
  #move(by: number): void {
    if (by < 0) this.#cache.crop(-by);
    else this.#cache.advance(by);
    this.#next = this.#next.map((position) => position + by);
    if (this.#positions) increment(this.#positions, by >>> 0);
  }

  reorder(rows: readonly number[]): void {
    this.#cache.reorder(rows);
    const before = this.#next;
    this.#next = rows.map((row) => before[row]!);
    // Beams of one prompt have the same position: most reorderings change only the cache's block table.
    if (rows.length === before.length && this.#next.every((position, i) => position === before[i])) return;
    this.#replayed.forget();
    this.#positions?.dispose();
    this.#positions = undefined;
  }

  continuationLogits(rows: readonly number[], tokens: Tensor<"u32">): Tensor {
    const [, T] = sizes(tokens.shape, 2);
    const positions = this.#model.model.positionTensor(
      rows.map((row) => Array.from({ length: T }, (_, t) => this.#next[row]! + t)),
    );
    const cache = this.#cache.copyRows(rows);
    try {
      const step = { positions, cache };
      return this.#model.lm_head.forward(this.#model.hiddenStates(this.#model.embed(tokens), step));
    } finally {
      cache.dispose();
    }
  }

  dispose(): void {
    this.#replayed.forget();
    this.#positions?.dispose();
    this.#cache.dispose();
  }

  /** u32[R] -> f32[R, V], by launches alone, so that it can be captured. */
  #step(tokens: Tensor<"u32">): Tensor {
    const embeds = this.#model.embed(tokens.reshape([tokens.size, 1])); // [R, 1, D]
    const states = this.#model.hiddenStates(embeds, { positions: this.#positions!, cache: this.#cache }); // [R, 1, D]
    const logits = this.#model.lastLogits(states); // first, for its product computes the norm of the states
    increment(this.#positions!, 1);
    this.#cache.launchAdvance(1);
    return logits;
  }

  #upload(): Tensor<"u32"> {
    const positions = this.#model.model.positionTensor(this.#next.map((position) => [position]));
    positions.device.memory.keep(positions.storage);
    return positions;
  }
}

/** [B][T] -> u32[B, T] */
export function upload(device: Device, rows: Ids): Tensor<"u32"> {
  return device.tensor(Uint32Array.from(rows.flat()), [rows.length, rows[0]!.length]);
}

/** The last `keep` tokens, or all where that is 0 or more than there are. f32[B, T, D] -> f32[B, keep, D] */
export function lastTokens(states: Tensor, keep = 0): Tensor {
  const [, T] = sizes(states.shape, 3);
  return keep === 0 || keep >= T ? states : contiguous(states.narrow(1, T - keep, keep));
}

/** A mask for attention, or undefined if everything is visible. [B][S] -> u32[B, S] */
export function maskTensor(device: Device, mask: Ids): Tensor<"u32"> | undefined {
  return mask.every((row) => row.every((visible) => visible === 1)) ? undefined : upload(device, mask);
}
