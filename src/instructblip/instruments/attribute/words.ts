/** The words of an instruction, and the instruction with each of them occluded: removed, or hidden in its place. Pure. */
import { InputError } from "../../../tensor/errors.ts";
import { shown } from "../../../tensor/shown.ts";
import type { Ids } from "../../model/language_model.ts";
import type { ModelInputs, QFormerInputs } from "../../pretrained/inputs.ts";

/**
 * What an occluded word becomes: "remove" tokenizes the instruction without it; "pad" makes its tokens padding, which nothing
 * attends to, so that other tokens keep their positions.
 */
export type WordOcclusion = "remove" | "pad";
export const WORD_OCCLUSIONS: readonly WordOcclusion[] = ["remove", "pad"];

/** The tokens of a row that a word has: from `from` up to, and without, `to`. */
export interface TokenSpan {
  readonly from: number;
  readonly to: number;
}

/** One word of an instruction, and the instruction without it. */
export interface OccludedWord {
  readonly text: string;
  /** Of the word in the prompt's text, in UTF-16 units. */
  readonly start: number;
  readonly end: number;
  /** Its tokens in the language model's prompt. */
  readonly tokens: TokenSpan;
  /** Its tokens in the Q-Former's instruction, if it reads one. */
  readonly qformer_tokens?: TokenSpan;
  /** The ids without it, of one row, and what of them is visible. */
  readonly input_ids: readonly number[];
  readonly attention_mask: readonly number[];
  readonly qformer_input_ids?: readonly number[];
  readonly qformer_attention_mask?: readonly number[];
}

/** Makes ids of texts: a processor. */
export type TextProcessor = (input: { text: string[] }) => Promise<{
  input_ids?: Ids | undefined;
  qformer_input_ids?: Ids | undefined;
}>;

/** Letters and digits with what joins them, or one other character. */
const WORD = /[\p{L}\p{M}\p{N}]+(?:['’\-_.][\p{L}\p{M}\p{N}]+)*|[^\s\p{L}\p{M}\p{N}]/gu;

/**
 * The instruction with each of its words occluded, for `attribute`. A punctuation mark is a word of its own.
 *
 * @param processor that made the inputs
 * @param prompt the text that they were made of
 * @param inputs of this one prompt
 * @throws InputError BAD_INPUT if the inputs are of another text; PARAM_RANGE; those of the processor
 */
export async function occludedWords(
  processor: TextProcessor,
  prompt: string,
  inputs: Pick<ModelInputs, "input_ids"> & Partial<QFormerInputs>,
  { word: kind = "remove" }: { readonly word?: WordOcclusion } = {},
): Promise<OccludedWord[]> {
  if (!WORD_OCCLUSIONS.includes(kind)) {
    throw new InputError("PARAM_RANGE", `word must be "remove" or "pad", got ${shown(kind)}`);
  }
  const encode = async (text: string) => {
    const { input_ids, qformer_input_ids } = await processor({ text: [text] });
    return { ids: input_ids![0]!, qformer: qformer_input_ids?.[0] };
  };
  const whole = await encode(prompt);
  const [row = []] = inputs.input_ids ?? [];
  const [qformerRow] = inputs.qformer_input_ids ?? [];
  // Image tokens are in front.
  const front = row.slice(0, row.length - whole.ids.length);
  const isSame = (a: readonly number[] = [], b: readonly number[] = []) => a.join() === b.join();
  if (!isSame([...front, ...whole.ids], row) || !isSame(whole.qformer, qformerRow)) {
    throw new InputError("BAD_INPUT", `inputs are not those of ${shown(prompt)}`, {
      hint: "give the prompt and the processor that they were made with, without padding",
    });
  }
  const words: OccludedWord[] = [];
  for (const { 0: text, index: start } of prompt.matchAll(WORD)) {
    const end = start + text.length;
    const without = await encode(withoutWord(prompt, start, end));
    const tokens = removed(whole.ids, without.ids, front.length);
    const qformer_tokens = whole.qformer && removed(whole.qformer, without.qformer!, 0);
    const masked = (ids: readonly number[], span: TokenSpan) =>
      ids.map((_, i) => Number(i < span.from || i >= span.to));
    const all = (ids: readonly number[]) => ids.map(() => 1);
    const [ids, qformer] = kind === "pad" ? [row, whole.qformer] : [[...front, ...without.ids], without.qformer];
    words.push({
      text,
      start,
      end,
      tokens,
      input_ids: ids,
      attention_mask: kind === "pad" ? masked(row, tokens) : all(ids),
      ...(qformer && {
        qformer_tokens: qformer_tokens!,
        qformer_input_ids: qformer,
        qformer_attention_mask: kind === "pad" ? masked(qformer, qformer_tokens!) : all(qformer),
      }),
    });
  }
  return words;
}

/** The text without a word, and without the space in front of it (of the first word, behind it). */
function withoutWord(text: string, start: number, end: number): string {
  const before = text.slice(0, start);
  const kept = before.trimEnd();
  return kept === "" ? before + text.slice(end).trimStart() : kept + text.slice(end);
}

/** The tokens that a row has and the shorter one has not: what is between their common beginning and their common end. */
function removed(ids: readonly number[], shorter: readonly number[], before: number): TokenSpan {
  let from = 0;
  while (from < shorter.length && ids[from] === shorter[from]) from++;
  let to = ids.length;
  for (let end = shorter.length; to > from && end > from && ids[to - 1] === shorter[end - 1]; end--) to--;
  return { from: before + from, to: before + to };
}
