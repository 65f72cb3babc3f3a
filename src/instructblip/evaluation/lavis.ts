/**
 * What LAVIS does to questions and prompts before its models see them, and to answers.
 *
 * Source: salesforce/LAVIS at 506965b, lavis/processors/blip_processors.py and
 * lavis/models/blip2_models/blip2_vicuna_instruct.py, with transformers 4.33.2, which it pins.
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

/** Python's spaces, which are four control characters more than JavaScript's, and no U+FEFF. */
const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACES = new RegExp(`[${SPACE}]{2,}`, "g");
const OUTER_SPACES = new RegExp(`^[${SPACE}]+|[${SPACE}]+$`, "g");

const lowered = (text: string) => text.toLowerCase();

/** Most tokens of the instruction that the Q-Former reads. */
const MOST_INSTRUCTION_TOKENS = 128;
/** Of a LLaMA model, whose generate() there begins rows with it; LAVIS changes the tokenizer's alone. */
const LLAMA_START = 1;

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

/**
 * What the Q-Former reads of one prompt, cut to its last tokens: the first, [CLS], stays, as LAVIS's tokenizer truncates on
 * the left. Its prompts for the language model are never cut.
 *
 * @param rows ids or mask, not padded: the prompt, once for each image
 */
export function lastInstructionTokens(
  rows: readonly (readonly number[])[],
  most = MOST_INSTRUCTION_TOKENS,
): number[][] {
  return rows.map((row) => (row.length > most ? [row[0]!, ...row.slice(1 - most)] : [...row]));
}

type Rows = readonly (readonly number[])[];
/** The ids of one prompt; BLIP-2's Q-Former reads none. */
interface PromptInputs {
  readonly input_ids: Rows;
  readonly qformer_input_ids?: Rows;
  readonly qformer_attention_mask?: Rows;
}

/** The inputs of one prompt as LAVIS makes them, of what a processor gives. */
export function lavisInputs<I extends PromptInputs>(
  inputs: I,
  tokenizer: Pick<Tokenizer, "bos_token_id" | "eos_token_id">,
  image_token: number | null,
): I {
  const { qformer_input_ids: words, qformer_attention_mask: mask } = inputs;
  return {
    ...inputs,
    input_ids: withEndInFront(inputs.input_ids, tokenizer, image_token),
    ...(words && { qformer_input_ids: lastInstructionTokens(words) }),
    ...(mask && { qformer_attention_mask: lastInstructionTokens(mask) }),
  };
}

/** The special ids of Vicuna. */
export interface SpecialIds {
  /** What LAVIS's rows begin with. */
  readonly start: number;
  /** What ends an answer. */
  readonly end: number | readonly number[] | undefined;
}

/** Vicuna's special ids as LAVIS's language model has them; undefined of any other language model. */
export function specialIds(
  { model_type }: { readonly model_type: string },
  { eos_token_id }: Pick<Tokenizer, "eos_token_id">,
): SpecialIds | undefined {
  // Configs of published checkpoints have another end than Vicuna's tokenizer: see config/vicuna.ts.
  return model_type === "llama" ? { start: LLAMA_START, end: eos_token_id } : undefined;
}

/**
 * The options of an answer as LAVIS's generate() takes them. Repetition is penalised of what the language model has generated
 * alone, and of its start token.
 */
export function lavisOptions(generation: GenerationOptions, ids: SpecialIds | undefined): GenerationOptions {
  const penalizes = (generation.repetition_penalty ?? 1) !== 1;
  return {
    ...(penalizes && { penalize_prompt: ids ? [ids.start] : false }),
    ...((generation.num_beams ?? 1) > 1 && { beam_rules: "4.33" }),
    ...(ids?.end !== undefined && { eos_token_id: ids.end }),
    ...generation,
  };
}

/**
 * The text of an answer's ids. Of Vicuna's, id 0 is read as the end token, which is left out: sentencepiece would write it as
 * " ⁇ ". T5's text is not stripped of spaces.
 */
export function lavisText(tokenizer: Tokenizer, answer: readonly number[], ids: SpecialIds | undefined): string {
  const read = ids ? answer.filter((id) => id !== 0 && id !== ids.start) : answer;
  const text = tokenizer.decode(read, { skip_special_tokens: true });
  return ids ? text.replace(OUTER_SPACES, "") : text;
}

/**
 * The order in which LAVIS's Vicuna ranks candidates in several segments: losses are means over the padded length of a
 * segment's rows, image and prompt included, so that they differ between segments. T5's are sums.
 *
 * @param sums [C] NLL of each candidate
 * @param lengths [C] its tokens
 * @param prompt tokens of image and prompt
 * @returns [C] losses, which are ranked from the least up
 */
export function segmentLosses(
  sums: readonly number[],
  lengths: readonly number[],
  { prompt, n_segments }: { readonly prompt: number; readonly n_segments: number },
): number[] {
  const size = Math.floor(sums.length / n_segments);
  const segment = (c: number) => (size === 0 ? n_segments - 1 : Math.min(Math.floor(c / size), n_segments - 1));
  const longest = new Array<number>(n_segments).fill(0);
  for (const [c, length] of lengths.entries()) longest[segment(c)] = Math.max(longest[segment(c)]!, length);
  return sums.map((sum, c) => sum / (prompt + longest[segment(c)]! - 1));
}
