/**
 * Prompts about several images: each image's placeholders stand where the text has one `<image>`, before what is said of it.
 * Hugging Face's models take such rows, their processors do not make them; for one image they put its placeholders in front
 * of everything, the beginning-of-sequence token included, and so it is here with those that the text begins with.
 */
import { InputError } from "../../tensor/errors.ts";
import { quote } from "../../tensor/shown.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { EncodeOptions, Encoding } from "../tokenizer/types.ts";

/** A text with its images. */
export interface Interleaved {
  /** Images in front of the text. */
  readonly front: number;
  /** The rest, with a placeholder's text for every other image. */
  readonly text: string;
  /** What the Q-Former reads of each image: the text up to the next, or, where that is blank, what the next one's is. */
  readonly instructions: readonly string[];
}

/**
 * @param token the placeholder's text
 * @param count images of the row
 * @throws InputError BATCH_MISMATCH
 */
export function interleaved(prompt: string, token: string, count: number, row: number): Interleaved {
  const parts = prompt.split(token);
  const places = parts.length - 1;
  // Without placeholders all images are in front, and all of the text is about each.
  if (places === 0) return { front: count, text: prompt, instructions: new Array<string>(count).fill(prompt) };
  if (places !== count) {
    throw new InputError("BATCH_MISMATCH", `text ${row} has ${places} times ${quote(token)} for ${count} images`, {
      hint: `write ${token} once for each image, or nowhere: they are then in front`,
    });
  }
  const after = parts.slice(1).map((part) => part.trim());
  const whole = parts
    .map((part) => part.trim())
    .filter(Boolean)
    .join(" ");
  const instructions = after.map((_, i) => after.slice(i).find(Boolean) ?? whole);
  const begin = parts.findIndex((part) => part.trim() !== "");
  const front = begin < 0 ? count : begin;
  return {
    front,
    text: begin < 0 ? "" : [parts[begin]!.trimStart(), ...parts.slice(begin + 1)].join(token),
    instructions,
  };
}

/**
 * Prompts in the language model's vocabulary, with `queries` placeholders for each image. Padding is beside all of them.
 *
 * @throws InputError TOKENIZER_OPTION for a limit, which might cut an image in two; TOKENIZER_PAD, RAGGED_BATCH
 */
export function encodeInterleaved(
  tokenizer: Tokenizer,
  rows: readonly Interleaved[],
  { padding = false, padding_side, ...options }: EncodeOptions,
  { queries, token }: { queries: number; token: string },
): Encoding {
  if (options.max_length != null || options.truncation) {
    throw new InputError("TOKENIZER_OPTION", "max_length and truncation: not with several images in a row");
  }
  const placeholder = tokenizer.convert_tokens_to_ids(token)!;
  const image = new Array<number>(queries).fill(placeholder);
  const ids = tokenizer
    .encode_batch(
      rows.map(({ text }) => text),
      { ...options, padding: false },
    )
    .input_ids.map((row, b) => [
      ...Array.from({ length: rows[b]!.front }, () => image).flat(),
      ...row.flatMap((id) => (id === placeholder ? image : [id])),
    ]);
  const longest = padding === false || padding === "do_not_pad" ? 0 : Math.max(...ids.map((row) => row.length));
  const pad = tokenizer.pad_token_id;
  if (longest > 0 && pad === undefined) {
    throw new InputError("TOKENIZER_PAD", "padding was requested, but the tokenizer has no padding token");
  }
  const left = (padding_side ?? tokenizer.padding_side) === "left";
  const padded = (row: readonly number[], value: number) => {
    const more = new Array<number>(Math.max(0, longest - row.length)).fill(value);
    return left ? [...more, ...row] : [...row, ...more];
  };
  return {
    input_ids: ids.map((row) => padded(row, pad!)),
    attention_mask: ids.map((row) => padded(new Array<number>(row.length).fill(1), 0)),
  };
}

/** What the Q-Former reads of every image; padded behind, whatever the option says, as positions count from the front. */
export function encodeInstructions(
  tokenizer: Tokenizer,
  rows: readonly Interleaved[],
  options: EncodeOptions,
): Encoding {
  const texts = rows.flatMap(({ instructions }) => instructions);
  return tokenizer.encode_batch(texts, { ...options, padding: true, padding_side: "right" });
}
