/**
 * What changes the scores before a token is chosen, one row [V] at a time, in Hugging Face's order.
 *
 * Source: transformers 5.18, generation/logits_process.py; spec 5.5.
 */
import type { GenerationConfig } from "./configuration.ts";

/** Changes `scores` (f32[V], raw logits) in place, given the ids of the row so far. */
export type LogitsProcessor = (ids: readonly number[], scores: Float32Array) => void;

/** Divides positive and multiplies negative scores of every id in the row: prompt and image ids count too. */
export function repetitionPenalty(penalty: number): LogitsProcessor {
  const p = Math.fround(penalty);
  return (ids, scores) => {
    for (const id of new Set(ids)) {
      if (id < scores.length) scores[id] = scores[id] < 0 ? scores[id] * p : scores[id] / p;
    }
  };
}

/** Forbids the end of the sequence while the row is shorter than `length`. */
export function minLength(length: number, eos: readonly number[]): LogitsProcessor {
  return (ids, scores) => {
    if (ids.length < length) for (const id of eos) scores[id] = Number.NEGATIVE_INFINITY;
  };
}

/** The processors a greedy search needs; none in the common case, and then the logits never leave the GPU. */
export function logitsProcessors(config: GenerationConfig, promptLength: number): LogitsProcessor[] {
  const { repetition_penalty, min_length, min_new_tokens, eos_token_id } = config;
  const processors: LogitsProcessor[] = [];
  if (repetition_penalty !== 1) processors.push(repetitionPenalty(repetition_penalty));
  if (min_length > promptLength && eos_token_id.length) processors.push(minLength(min_length, eos_token_id));
  if (min_new_tokens > 0 && eos_token_id.length)
    processors.push(minLength(promptLength + min_new_tokens, eos_token_id));
  return processors;
}

/** Index of the largest score, the lowest on ties. */
export function argmaxOf(scores: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  return best;
}
