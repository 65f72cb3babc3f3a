/**
 * Log-probabilities of an answer's tokens in the distribution that each was chosen from: the scores after the logits
 * processors, normalised. Sums accumulate in f64.
 * Source: transformers 5.18, compute_transition_scores in generation/utils.py.
 */
import { InputError } from "../../tensor/errors.ts";
import { logSoftmaxInPlace, topIndices } from "./arithmetic.ts";
import { rowsOf, type StepScores } from "./output.ts";
import type { AnswerLogprobs, AnswerToken } from "./types.ts";

/**
 * @param rows processed scores of one step, f32[V] each; they are copied
 * @param top number of alternatives
 * @returns the log-probability of a row's token
 */
export function stepLogprobs(rows: readonly Float32Array[], top: number): (row: number, id: number) => AnswerToken {
  const logprobs = rows.map((scores) => {
    const row = scores.slice();
    logSoftmaxInPlace(row);
    return row;
  });
  const best = logprobs.map((row) =>
    topIndices(row, top)
      .map((id) => ({ id, logprob: row[id]! }))
      .filter(({ logprob }) => logprob > Number.NEGATIVE_INFINITY),
  );
  return (row, id) => ({ id, logprob: logprobs[row]![id]!, top: best[row]! });
}

export function answerLogprobs(tokens: readonly AnswerToken[]): AnswerLogprobs {
  return { sum: tokens.reduce((sum, { logprob }) => sum + logprob, 0), tokens };
}

/**
 * Hugging Face's compute_transition_scores: the score of every token of an answer.
 *
 * @param sequences of generate(), [R][T]
 * @param scores of generate() with output_scores; or `logits`, with output_logits
 * @param beam_indices of generate() with beams
 * @param normalize_logits whether scores are normalised to log-probabilities. Default false
 * @returns [R][new tokens]; after the end of a beam 0, after that of another row the filler's score
 * @throws InputError BAD_INPUT for arrays that do not belong together
 */
export function computeTransitionScores(
  sequences: readonly (readonly number[])[],
  scores: readonly StepScores[],
  beam_indices?: readonly (readonly number[])[] | null,
  normalize_logits = false,
): number[][] {
  const lengths = (beam_indices ?? []).map((row) => row.filter((beam) => beam >= 0).length);
  const steps = beam_indices ? Math.max(...lengths) : scores.length;
  const start = (sequences[0]?.length ?? 0) - steps;
  const shape = `${sequences.length} sequences, ${scores.length} steps of ${scores[0]?.shape[0] ?? 0} rows`;
  const bad = (why: string) => new InputError("BAD_INPUT", `compute_transition_scores: ${why} (${shape})`);
  if (start < 0 || steps > scores.length) throw bad("the scores are not those of the sequences");
  if (beam_indices && beam_indices.length !== sequences.length)
    throw bad(`${beam_indices.length} rows of beam_indices`);
  const rows = scores.map(({ data, shape: [R] }) => rowsOf(normalize_logits ? data.slice() : data, R));
  if (normalize_logits) for (const row of rows.flat()) logSoftmaxInPlace(row);
  return sequences.map((ids, r) =>
    Array.from({ length: steps }, (_, t) => {
      const row = beam_indices ? (beam_indices[r]![t] ?? -1) : r;
      if (row < 0) return 0;
      const score = rows[t]![row]?.[ids[start + t]!];
      if (score === undefined) throw bad(`there is no score of token ${ids[start + t]} of sequence ${r}`);
      return score;
    }),
  );
}
