/** The text of single tokens, for tables and pages. */
import type { Tokenizer } from "./tokenizer.ts";

const AS_IT_IS = { clean_up_tokenization_spaces: false };

/**
 * What a token adds to a text, its leading space included; of a part of a character, and of a token without text, the
 * vocabulary's own spelling (`<0xE2>`).
 */
export function tokenText(tokenizer: Pick<Tokenizer, "decode" | "convert_ids_to_tokens">, id: number): string {
  // Decoders drop the space in front of the first token, so it is decoded as the second.
  const text = tokenizer.decode([id, id], AS_IT_IS).slice(tokenizer.decode([id], AS_IT_IS).length);
  if (text !== "" && !text.includes("\ufffd")) return text;
  return tokenizer.convert_ids_to_tokens(id) ?? `<${id}>`;
}
