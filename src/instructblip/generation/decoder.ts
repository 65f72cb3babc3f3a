/**
 * The model's interface for searches: rows of logits for rows of tokens, and a state of each row that can be copied to
 * another. It does not depend on a GPU, so that tests can use a table.
 */
import type { EncoderStates, LayerStates, StepStates } from "./types.ts";

/** f32[R, V], on the host or a device. A Tensor is one. */
export interface Logits {
  /** A copy on the host, the caller's to change. */
  read(): Promise<Float32Array>;
}

/** u32[R], on the host or a device. A Tensor<"u32"> is one. */
export interface Tokens {
  read(): Promise<Uint32Array>;
  dispose(): void;
}

/** The most probable id of every row. */
export interface ArgmaxResult<T extends Tokens = Tokens> {
  /** u32[R] */
  readonly tokens: T;
  read(): Promise<{
    /** u32[R] */
    readonly ids: Uint32Array;
    /** Rows whose largest score is NaN or infinite; their id is not valid. */
    readonly undecided: readonly number[];
  }>;
}

/** The best continuations of all beams of a prompt, best first: [prompts][K]. */
export interface Candidates {
  /** f32[prompts * K]: log probability of the token plus score of its beam. NaN, if there is any, comes first. */
  readonly scores: Float32Array;
  /** u32[prompts * K]: beam * V + token, beams counted from 0 for each prompt. */
  readonly indices: Uint32Array;
}

/** Changes to a few scores of every row: first the penalty, then the bans. */
export interface ScoreEdits {
  /** Divides what is positive and multiplies what is negative; 1 does nothing. */
  readonly penalty: number;
  /** Distinct ids below V, [R][…]. */
  readonly penalised: readonly (readonly number[])[];
  /** Ids that become -Infinity, [R][…]. */
  readonly banned: readonly (readonly number[])[];
}

/** Hidden states and attentions of one prefill or step, on the host, under the names of the search's output. */
export type HostStates = { [name in keyof StepStates]: LayerStates[] } & EncoderStates;

/** Prefill, then steps. Rows are prompts at first; {@link Decoder.reorder} makes them beams or samples. */
export interface Decoder<L extends Logits = Logits, T extends Tokens = Tokens> {
  /** Logits f32[B, V] of the token after the prompt, one row a prompt. */
  prefill(): L;
  /** Logits f32[R, V] of the token after `tokens` u32[R]. */
  step(tokens: T): L;
  /** u32[R] from the host. */
  upload(tokens: readonly number[]): T;
  /** Argmax of every row of f32[R, V], the lowest on ties. */
  argmax(logits: L): ArgmaxResult<T>;
  /** Several steps of a single row in one pass: logits f32[T, V] of the token after each of `tokens` u32[T]. */
  extend?(tokens: T): L;
  /** Forgets the last `tokens` tokens, at most those read since prefill. */
  crop?(tokens: number): void;
  /** Reorders rows: row i continues row `rows[i]`. There may be more rows than before, never fewer. */
  reorder?(rows: readonly number[]): void;
  /** Hidden states and attentions of the last prefill or step; to be called in the scope that it ran in. */
  readStates?(): Promise<HostStates>;

  /** Steps in flight: launched before the ids of the first of them are read. Default: 0 */
  readonly inFlight?: number;

  // These spare reading back f32[R, V]. A decoder without them is slower, with the same results.

  /** Log probabilities f32[R, V]; NaN throughout for a row with a NaN or plus infinity. */
  logSoftmax?(logits: L): L;
  /** Changes a few scores of every row: f32[R, V] -> f32[R, V], perhaps in place. */
  edit?(logits: L, edits: ScoreEdits): L;
  /**
   * The K best of logProbs + scores over all beams of each prompt, lowest index first on ties.
   *
   * @param scores of the beams, f32[R]
   * @param beams of each prompt, R / prompts
   */
  topK?(logProbs: L, scores: Float32Array, beams: number, K: number): Promise<Candidates>;

  /** Rejects the pending wait for the device, if there is one, with `reason`. */
  interrupt?(reason: unknown): void;

  /** Frees what `fn` allocated and does not return. */
  scope<T>(fn: () => T): T;
}
