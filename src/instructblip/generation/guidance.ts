/**
 * Classifier-free guidance: scores are moved away from those of an unconditional pass, in which the language model reads the
 * negative prompt, or the prompt's last token alone, and then the answer.
 *
 * Source: Ho and Salimans 2022, Classifier-Free Diffusion Guidance; Sanchez et al. 2023, Stay on topic with
 * Classifier-Free Guidance; transformers 5.18, UnbatchedClassifierFreeGuidanceLogitsProcessor.
 */
import { InputError } from "../../tensor/errors.ts";
import { expectIds, expectRectangle, maskOf } from "../pretrained/inputs.ts";
import { logSoftmaxInPlace } from "./arithmetic.ts";
import type { DecodingConfig } from "./configuration.ts";
import type { Decoder, Logits, Tokens } from "./decoder.ts";

/** The language model without images, with a row for every row of the search from the start. */
export type Unconditional<L extends Logits = Logits, T extends Tokens = Tokens> = Pick<
  Decoder<L, T>,
  "prefill" | "step"
>;

/** The prompt of the unconditional rows. */
export interface NegativePrompt {
  /** [R][N] */
  readonly ids: readonly (readonly number[])[];
  /** [R][N], 1 = not padding */
  readonly mask: readonly (readonly number[])[];
}

/**
 * The negative prompt, checked; undefined without guidance.
 *
 * @param prompt [B][L], the prompt of the search
 * @param num_embeddings of the language model
 * @throws InputError BAD_INPUT, RAGGED, TOKEN_ID, BAD_MASK, BATCH_MISMATCH, UNSUPPORTED_OPTION
 */
export function negativePrompt(
  { guidance_scale, negative_prompt_ids, negative_prompt_attention_mask, num_return_sequences }: DecodingConfig,
  prompt: readonly (readonly number[])[],
  { is_encoder_decoder, num_embeddings }: { readonly is_encoder_decoder: boolean; readonly num_embeddings: number },
): NegativePrompt | undefined {
  if (guidance_scale === 1) return undefined;
  if (is_encoder_decoder) {
    const why = "a language model with an encoder (T5) cannot read on without its prompt; transformers fails there too";
    throw new InputError("UNSUPPORTED_OPTION", `guidance_scale: ${why}`);
  }
  if (!negative_prompt_ids && prompt[0]!.length === 0) {
    const why = "rows have no ids of the prompt to begin with (a checkpoint without image_token_index)";
    throw new InputError("UNSUPPORTED_OPTION", `guidance_scale: ${why}`, { hint: "give negative_prompt_ids" });
  }
  const rows = prompt.flatMap((ids) => Array.from({ length: num_return_sequences }, () => ids.slice(-1)));
  const ids = negative_prompt_ids ?? rows;
  expectRectangle("negative_prompt_ids", ids);
  expectIds("negative_prompt_ids", ids, num_embeddings);
  if (ids.length !== rows.length) {
    const answers =
      num_return_sequences > 1 ? `${prompt.length} prompts with ${num_return_sequences} answers each` : "";
    const message = `negative_prompt_ids has ${ids.length} rows for ${answers || `${prompt.length} prompts`}`;
    throw new InputError("BATCH_MISMATCH", message, { hint: `give ${rows.length} rows, one for each answer` });
  }
  return { ids, mask: maskOf("negative_prompt_attention_mask", negative_prompt_attention_mask ?? undefined, ids) };
}

/** Log probabilities become scale · (with - without) + without, in place; f32[V] of every row. */
export function guide(scores: readonly Float32Array[], without: readonly Float32Array[], scale: number): void {
  const factor = Math.fround(scale);
  for (const [r, row] of scores.entries()) {
    logSoftmaxInPlace(row);
    const other = without[r]!;
    logSoftmaxInPlace(other);
    for (let i = 0; i < row.length; i++) {
      const difference = Math.fround(row[i]! - other[i]!);
      row[i] = Math.fround(factor * difference) + other[i]!;
    }
  }
}
