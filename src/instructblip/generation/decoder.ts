/**
 * The model as far as a search needs it: rows of logits for rows of tokens, and a memory of each row that can be
 * copied to another. Nothing here knows a GPU, so that tests can put a table in its place.
 */
import type { EncoderStates, LayerStates, StepStates } from "./types.ts";

/** f32[R, V], wherever it is. A Tensor is one. */
export interface Logits {
  /** A copy on the host, the caller's to change. */
  read(): Promise<Float32Array>;
}

/** u32[R], wherever it is. A Tensor<"u32"> is one. */
export interface Tokens {
  read(): Promise<Uint32Array>;
  dispose(): void;
}

/** The likeliest id of every row. */
export interface Likeliest<T extends Tokens = Tokens> {
  /** u32[R] */
  readonly tokens: T;
  read(): Promise<{
    /** u32[R] */
    readonly ids: Uint32Array;
    /** Rows whose largest score is NaN or an infinity, so that their id means nothing. */
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

/** What one prefill or step recorded, layer by layer, under the names that the search's output has. */
export type Recorded = { [name in keyof StepStates]: LayerStates[] } & EncoderStates;

/** Prefill, then steps. Rows are prompts at first; {@link Decoder.reorder} makes them beams or samples. */
export interface Decoder<L extends Logits = Logits, T extends Tokens = Tokens> {
  /** Logits f32[B, V] of the token after the prompt, one row a prompt. */
  prefill(): L;
  /** Logits f32[R, V] of the token after `tokens` u32[R]. */
  step(tokens: T): L;
  /** u32[R] from the host. */
  upload(tokens: readonly number[]): T;
  /** The likeliest id of every row of f32[R, V], the lowest on ties. */
  argmax(logits: L): Likeliest<T>;
  /** Row i goes on from what row `rows[i]` has seen. There may be more rows than before, never fewer. */
  reorder?(rows: readonly number[]): void;
  /** What the last prefill or step recorded besides its logits; asked for in the scope that it ran in. */
  recorded?(): Promise<Recorded>;

  /** Steps that are worth launching before the ids of the first of them are read. Default: 0 */
  readonly inFlight?: number;

  // What spares searches from reading f32[R, V] back. A decoder without them is slower, and gives the same.

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

  /** Ends the wait that is under way, if there is one, for what was launched: it rejects with `reason`. */
  interrupt?(reason: unknown): void;

  /** Frees what `fn` allocated and does not return. */
  scope<T>(fn: () => T): T;
}
