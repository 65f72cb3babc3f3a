/** The lines of `generate --json`. */
import type { AssistedCounts } from "../../generation/output.ts";
import type { AnyProcessor } from "../../pretrained/auto_processor.ts";
import { type NamedLogprobs, namedLogprobs } from "../logprobs.ts";
import type { Timing } from "../timing.ts";
import type { Answer } from "./batches.ts";
import type { RequestId } from "./requests.ts";

/** A line of `--json`. */
export interface Result {
  readonly id: RequestId;
  /** As Hugging Face's generate() returns them, with image tokens and prompt. */
  readonly sequences: number[][];
  /** With beams, as Hugging Face gives them: one score for each sequence. */
  readonly sequences_scores?: readonly number[];
  /** With drafts: passes of the model, and tokens drafted and accepted. */
  readonly assisted?: AssistedCounts;
  /** With `logprobs`: one for each sequence. */
  readonly logprobs?: readonly NamedLogprobs[];
  /** `batch_decode(sequences, skip_special_tokens=True)` */
  readonly text: string[];
  readonly timing: Timing;
  /** Batch size in rows, if above that of the request. */
  readonly batch_rows?: number;
}

/** A line of `--json` for a request with candidates. */
export interface RankedResult {
  readonly id: RequestId;
  /**
   * For each prompt its candidates, the most probable first, with the negative log-likelihood summed and averaged over
   * tokens.
   */
  readonly ranked: readonly (readonly { readonly text: string; readonly sum: number; readonly mean: number }[])[];
  /** The most probable candidate of each prompt. */
  readonly text: string[];
  readonly timing: Timing;
}

/** A line of `--json` for a request that failed. */
export interface Failure {
  readonly id: RequestId;
  /**
   * With --out, of a request without an id that is worth a retry, among all requests from 0; its answer, which --resume
   * appends, has it too.
   */
  readonly position?: number;
  readonly error: { readonly code: string; readonly message: string };
}

/** Drops -1, with which beams of a model without an end id are padded, as in Hugging Face. */
export function readable(sequences: readonly (readonly number[])[]): number[][] {
  return sequences.map((ids) => ids.filter((id) => id >= 0));
}

export function resultOf(
  processor: AnyProcessor,
  id: RequestId,
  { sequences, sequences_scores, logprobs, assisted, timing, rows }: Answer,
): Result {
  const text = processor.batch_decode(readable(sequences), { skip_special_tokens: true });
  const together = rows > sequences.length ? { batch_rows: rows } : {};
  const scores = {
    ...(sequences_scores && { sequences_scores }),
    ...(assisted && { assisted }),
    ...(logprobs && { logprobs: logprobs.map((answer) => namedLogprobs(answer, processor.tokenizer)) }),
  };
  return { id, sequences, ...scores, text, timing, ...together };
}
