/** A checked prompt on the host, and the rows that answers begin with. */
import { InputError } from "../../tensor/errors.ts";
import type { Ids, LanguageModel } from "../model/language_model.ts";

/** The placeholder id for legacy checkpoints, which have none. */
export const NO_ID = -1;

/** The input of the language model. */
export interface Prompt {
  readonly B: number;
  readonly L: number;
  /** [B][L], with placeholders where image features go */
  readonly ids: Ids;
  /** [B][L], 1 = not padding */
  readonly mask: Ids;
}

/** The ids that rows begin with: the prompt, or the start token of an encoder-decoder. */
export function startOfRows(
  { ids }: Prompt,
  { decoder_start_token_id }: LanguageModel,
  image_token: number | null,
): Ids {
  if (decoder_start_token_id !== undefined) return ids.map(() => [decoder_start_token_id]);
  return image_token === null ? ids.map(() => []) : ids;
}

/** Interventions find a row's images by counting: rows must have equally many. @throws InputError UNSUPPORTED_OPTION */
export function expectEvenImages({ ids }: Prompt, image_token: number | null): void {
  const counts = new Set(ids.map((row) => row.filter((id) => id === image_token).length));
  if (counts.size > 1) {
    throw new InputError(
      "UNSUPPORTED_OPTION",
      "interventions: not with unequal numbers of images in the rows of a batch",
    );
  }
}
