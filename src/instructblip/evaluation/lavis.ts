/**
 * What LAVIS does to questions and prompts before its models see them.
 *
 * Source: salesforce/LAVIS at 506965b, lavis/processors/blip_processors.py and
 * lavis/models/blip2_models/blip2_vicuna_instruct.py.
 */
import type { GenerationOptions } from "../generation/options.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/** Most words of a question or caption. */
const MOST_WORDS = 50;
const PUNCTUATION = /[.!"()*#:;~]/g;

const firstWords = (text: string) => text.split(" ").slice(0, MOST_WORDS).join(" ");

/** Text processors by LAVIS's names. */
export const TEXT_PROCESSORS = {
  /** Lower case, some punctuation left out, at most 50 words. */
  blip_question: (text: string) => firstWords(lowered(text).replace(PUNCTUATION, "").replace(/ +$/, "")),
  /** As a question, with spaces for punctuation, and no two spaces in a row. */
  blip_caption: (text: string) =>
    firstWords(
      lowered(text)
        .replace(PUNCTUATION, " ")
        .replace(SPACES, " ")
        .replace(/\n+$/, "")
        .replace(/^ +| +$/g, ""),
    ),
} as const;

/** Python's \s, which has four control characters more than JavaScript's, and no U+FEFF. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are spaces in Python
const SPACES = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]{2,}/g;

const lowered = (text: string) => text.toLowerCase();

/** A prompt's ids with the end token, if they begin with the beginning-of-sequence token: LAVIS gives Vicuna's both one name. */
export function withEndInFront(
  rows: readonly (readonly number[])[],
  { bos_token_id, eos_token_id }: Pick<Tokenizer, "bos_token_id" | "eos_token_id">,
  image_token: number | null,
): number[][] {
  return rows.map((row) => {
    const at = row.findIndex((id) => id !== image_token);
    const begins = at >= 0 && row[at] === bos_token_id && eos_token_id !== undefined;
    return begins ? row.with(at, eos_token_id) : [...row];
  });
}

/** The options of an answer as LAVIS's generate() takes them. */
export function lavisOptions(generation: GenerationOptions): GenerationOptions {
  return "repetition_penalty" in generation ? { penalize_prompt: false, ...generation } : generation;
}
