/**
 * Stopping criteria: length, end-of-sequence ids, stop strings, time, and the caller's. Beam search checks every candidate,
 * the others every new token.
 *
 * Source: transformers 5.18, generation/stopping_criteria.py.
 */
import { InputError } from "../../tensor/errors.ts";
import type { DecodingConfig } from "./configuration.ts";
import type { StoppingCriterion } from "./types.ts";

/** The part of a tokenizer that stop_strings need. */
export interface TokenTexts {
  encode(text: string, options: { add_special_tokens?: boolean }): number[];
  decode(ids: number[], options: { skip_special_tokens?: boolean; clean_up_tokenization_spaces?: boolean }): string;
  convert_ids_to_tokens(id: number): string | undefined;
}

/** The reason with which the wait for a token is rejected that was begun in time and takes far longer than max_time. */
export const TIME_IS_UP = new Error("max_time is over");

/** Awaits `promise`; undefined if it rejects with {@link TIME_IS_UP}. */
export async function inTime<T>(promise: Promise<T>): Promise<T | undefined> {
  return promise.catch((error: unknown) => {
    if (error === TIME_IS_UP) return undefined;
    throw error;
  });
}

/** Seconds beyond max_time that a token may take which was begun in time. */
const GRACE = 10;

/**
 * Enforces max_time even if the device does not respond: after the first token, a wait for another that lasts too long is
 * rejected with {@link TIME_IS_UP}.
 */
export class TimeLimit {
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  #begun = false;

  constructor(max_time: number | null, interrupt: ((reason: unknown) => void) | undefined) {
    if (max_time === null || !interrupt) return;
    const end = () => {
      if (this.#begun) interrupt(TIME_IS_UP);
    };
    this.#timer = setTimeout(end, Math.min(1000 * (max_time + GRACE), 2 ** 31 - 1)); // a timer's limit
  }

  /** Call it when there is a token. */
  begin(): void {
    this.#begun = true;
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}

/**
 * All criteria of `config`, combined.
 *
 * @param now milliseconds; time counts from this call
 * @throws InputError NO_TOKENIZER if there are stop_strings and no tokenizer
 */
export function stoppingCriterion(
  config: DecodingConfig,
  tokenizer?: TokenTexts | undefined,
  now: () => number = () => performance.now(),
): StoppingCriterion {
  const { max_length, max_time, eos_token_id, stop_strings, stopping_criteria } = config;
  const criteria: StoppingCriterion[] = [(ids) => ids.length >= max_length];
  const isReplaced = (option: StoppingCriterion["replaces"]) =>
    stopping_criteria.some(({ replaces }) => replaces === option);
  if (!isReplaced("eos_token_id")) {
    const eos = new Set(eos_token_id);
    criteria.push((ids) => eos.has(ids.at(-1)!));
  }
  if (stop_strings.length && !isReplaced("stop_strings")) {
    if (!tokenizer) {
      throw new InputError("NO_TOKENIZER", "stop_strings need the tokenizer", { hint: "give generate() a tokenizer" });
    }
    criteria.push(stopStrings(stop_strings, tokenizer));
  }
  if (max_time !== null && !isReplaced("max_time")) {
    const end = now() + max_time * 1000;
    criteria.push(() => now() > end);
  }
  criteria.push(...stopping_criteria.map(custom));
  return (ids) => criteria.some((stops) => stops(ids));
}

/** Whether rows end by ids, so that a row that has ended is filled until the others have. */
export function endsById({ eos_token_id, stopping_criteria }: DecodingConfig): boolean {
  return eos_token_id.length > 0 || stopping_criteria.some(({ replaces }) => replaces === "eos_token_id");
}

/** A criterion of the caller's. @throws InputError BAD_INPUT if it returns a promise */
function custom(stops: StoppingCriterion): StoppingCriterion {
  return (ids) => {
    const answer: unknown = stops(ids);
    if (typeof answer === "boolean") return answer;
    const hint = "it returns true or false, and no promise";
    throw new InputError("BAD_INPUT", `one of stopping_criteria returned ${typeof answer}`, { hint });
  };
}

/**
 * True if the last token completes one of `strings`, at any place in the token. Compares UTF-8 bytes, so that characters
 * made of byte tokens count.
 */
export function stopStrings(strings: readonly string[], tokenizer: TokenTexts): StoppingCriterion {
  const wanted = strings.map(utf8);
  const longest = Math.max(...wanted.map((text) => text.length));
  const pieces = new TokenPieces(tokenizer);
  return (ids) => {
    const recent = ids.slice(-longest).map((id) => pieces.of(id)); // a token has at least one byte
    const last = recent[recent.length - 1] ?? "";
    const before = recent.slice(0, -1).join("");
    const text = before + last;
    return wanted.some((bytes) => text.indexOf(bytes, Math.max(0, before.length - bytes.length + 1)) >= 0);
  };
}

/** A character for each byte of the text. */
function utf8(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/** The text of a token in the middle of a text, as {@link utf8}. */
class TokenPieces {
  /** An id without a token: not a byte, so no stop string extends across it. */
  static readonly #GAP = "\u{100}";
  /** Any text: a tokenizer may add or strip spaces at the start of a text, which then affects this prefix only. */
  static readonly #PREFIX = "abcdef";
  readonly #tokenizer: TokenTexts;
  readonly #prefix: number[];
  readonly #known = new Map<number, string>();

  constructor(tokenizer: TokenTexts) {
    this.#tokenizer = tokenizer;
    this.#prefix = tokenizer.encode(TokenPieces.#PREFIX, { add_special_tokens: false });
  }

  of(id: number): string {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const piece = this.#make(id);
    this.#known.set(id, piece);
    return piece;
  }

  #make(id: number): string {
    const token = id >= 0 ? this.#tokenizer.convert_ids_to_tokens(id) : undefined;
    if (token === undefined) return TokenPieces.#GAP;
    const [, byte] = /^<0x([0-9A-Fa-f]{2})>$/.exec(token) ?? [];
    if (byte !== undefined) return String.fromCharCode(Number.parseInt(byte, 16));
    const decoded = this.#tokenizer.decode([...this.#prefix, id], { clean_up_tokenization_spaces: false });
    const text = decoded.slice(decoded.indexOf(TokenPieces.#PREFIX) + TokenPieces.#PREFIX.length);
    // A byte-level token that is part of a character has no text, but its letters represent bytes.
    const bytes = text.includes("\ufffd") ? Array.from(token, (letter) => BYTE_OF_LETTER.get(letter)) : [undefined];
    if (bytes.every((value) => value !== undefined)) return String.fromCharCode(...bytes);
    return utf8(text);
  }
}

/** GPT-2's letters for bytes: printable ones are themselves, the others follow U+0100 in order. */
const BYTE_OF_LETTER: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let others = 0;
  return new Map(
    Array.from({ length: 256 }, (_, byte) => [String.fromCharCode(printable(byte) ? byte : 256 + others++), byte]),
  );
})();
