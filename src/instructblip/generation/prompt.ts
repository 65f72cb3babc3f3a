/** A prompt on the host, checked, and what answers to it begin with. */
import type { Ids, LanguageModel } from "../model/language_model.ts";

/** Stands for an image feature in the prompts of legacy checkpoints, which have no id for it. */
export const NO_ID = -1;

/** What the language model is to read. */
export interface Prompt {
  readonly B: number;
  readonly L: number;
  /** [B][L], with placeholders where image features go */
  readonly ids: Ids;
  /** [B][L], 1 = not padding */
  readonly mask: Ids;
}

/** What rows of ids begin with: the prompt, or the start token of a model whose encoder reads the prompt. */
export function startOfRows(
  { ids }: Prompt,
  { decoder_start_token_id }: LanguageModel,
  image_token: number | null,
): Ids {
  if (decoder_start_token_id !== undefined) return ids.map(() => [decoder_start_token_id]);
  return image_token === null ? ids.map(() => []) : ids;
}
