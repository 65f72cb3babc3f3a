/** Types shared by options, searches and outputs. */

/** Changes `scores` (f32[V] of every row) in place, given the ids of every row so far. */
export interface LogitsProcessor {
  (rows: readonly (readonly number[])[], scores: readonly Float32Array[]): void;
  /** Set if it is a repetition penalty and nothing else. */
  readonly penalty?: number;
  /** Of a repetition penalty: the ids that it counts. */
  readonly counted?: (ids: readonly number[]) => readonly number[];
  /** Set if it bans these ids after a row and does nothing else. */
  readonly bans?: Bans;
  /** Set if it keeps the order of scores. */
  readonly ordered?: true;
  /** Set if it keeps this many of the best scores, and ties with the last of them, and does nothing else. */
  readonly best?: number;
  /** Set if it depends on ids, so that it needs whole rows of scores. */
  readonly byId?: true;
}

/**
 * A logits processor of the caller's: changes `scores` (f32[V] of every row) in place, given the ids of every row so far, or
 * returns others of the same shape.
 */
export type CustomLogitsProcessor = (rows: readonly (readonly number[])[], scores: readonly Float32Array[]) => void;

/** A model that drafts tokens for another: of a class with from_pretrained(). */
export interface AssistantModel {
  readonly language_model: object;
}

export type Bans = (ids: readonly number[]) => Iterable<number>;

/** Whether a row is finished. `ids` includes the new token. */
export interface StoppingCriterion {
  (ids: readonly number[]): boolean;
  /** Set if it counts instead of what generate() makes of this option. */
  readonly replaces?: "max_length" | "eos_token_id" | "stop_strings" | "max_time";
  /** Set if it replaces `max_length`: ids of a whole row. */
  readonly max_length?: number;
}

/** f32 of one layer, on the host: the device's memory is reused by the next step. */
export interface LayerStates {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/**
 * Hidden states and attentions, [step][layer]; R rows as in StepScores, before beams are reordered. T, the tokens of a step,
 * is the prompt's length at the first and 1 at the others; S counts all tokens so far.
 */
export interface StepStates {
  /** With output_attentions: f32[R, H, T, S]. */
  attentions?: LayerStates[][];
  /** With output_hidden_states: f32[R, T, D], the input of each layer and the output of the final norm. */
  hidden_states?: LayerStates[][];
  // Other names for an encoder-decoder.
  decoder_attentions?: LayerStates[][];
  decoder_hidden_states?: LayerStates[][];
  /** f32[R, H, 1, L]: attention of the decoder to the prompt. */
  cross_attentions?: LayerStates[][];
}

/** Of an encoder, which runs once: [layer]. */
export interface EncoderStates {
  /** f32[B, H, L, L], one row per prompt */
  encoder_attentions?: LayerStates[];
  /** f32[B, L, D] */
  encoder_hidden_states?: LayerStates[];
}

export interface TokenLogprob {
  readonly id: number;
  /** Natural logarithm; -Infinity for a token that the processors have banned. */
  readonly logprob: number;
}

/** A token of an answer. */
export interface AnswerToken extends TokenLogprob {
  /** The most probable tokens of the step, best first, the chosen one among them or not; banned ones are left out. */
  readonly top: readonly TokenLogprob[];
}

/** One answer, up to its end token, without padding. */
export interface AnswerLogprobs {
  /** Log-probability of the answer. */
  readonly sum: number;
  readonly tokens: readonly AnswerToken[];
}

/** Receives a warning, one line of text. */
export type WarningListener = (message: string) => void;
