/** Types that options, searches and what they give have in common. */

/** Changes `scores` (f32[V] of every row) in place, given the ids of every row so far. */
export interface LogitsProcessor {
  (rows: readonly (readonly number[])[], scores: readonly Float32Array[]): void;
  /** Set if all it does is a repetition penalty. */
  readonly penalty?: number;
  /** Set if all it does is to forbid these ids after a row. */
  readonly bans?: Bans;
  /** Set if it keeps the order of scores. */
  readonly ordered?: true;
  /** Set if all it does is to keep this many of the best scores, and ties with the last of them. */
  readonly best?: number;
  /** Set if it looks at ids, so that scores must not have lost their places. */
  readonly byId?: true;
}

/** A processor of the caller's own: changes `scores` (f32[V] of every row) in place, given the ids of every row so far. */
export type CustomLogitsProcessor = (rows: readonly (readonly number[])[], scores: readonly Float32Array[]) => void;

export type Bans = (ids: readonly number[]) => Iterable<number>;

/** Whether a row that now reads `ids`, its last one new, goes no further. */
export type StoppingCriterion = (ids: readonly number[]) => boolean;

/** f32 of one layer, on the host: the device's memory is needed for the next step. */
export interface LayerStates {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/**
 * What happened inside, [step][layer]; R rows as in StepScores, before beams are reordered. T, the tokens of a step, is
 * the prompt's length at the first and 1 at the others; S counts all tokens so far.
 */
export interface StepStates {
  /** With output_attentions: f32[R, H, T, S]. */
  attentions?: LayerStates[][];
  /** With output_hidden_states: f32[R, T, D], what enters each layer and leaves the last one's norm. */
  hidden_states?: LayerStates[][];
  // Under other names where an encoder has read the prompt.
  decoder_attentions?: LayerStates[][];
  decoder_hidden_states?: LayerStates[][];
  /** f32[R, H, 1, L]: where in the prompt the decoder looked. */
  cross_attentions?: LayerStates[][];
}

/** Of an encoder, which runs once: [layer]. */
export interface EncoderStates {
  /** f32[B, H, L, L], a row a prompt, whatever comes of it */
  encoder_attentions?: LayerStates[];
  /** f32[B, L, D] */
  encoder_hidden_states?: LayerStates[];
}

/** Hears a warning, a line of text. */
export type WarningListener = (message: string) => void;
