/**
 * Hugging Face's TextStreamer: prints an answer while it is generated, word by word.
 *
 * Source: transformers 5.18, generation/streamers.py.
 */
import { optionsOf, refuseUnknown } from "../../tensor/arguments.ts";
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import type { Streamer } from "../generation/streamer.ts";
import type { DecodeOptions } from "../tokenizer/types.ts";

export interface TextStreamerOptions extends DecodeOptions {
  /** Leave the prompt's text out. Default false, as in HF. */
  skip_prompt?: boolean;
}

const OPTIONS = [
  "skip_prompt",
  "skip_special_tokens",
  "clean_up_tokenization_spaces",
] satisfies (keyof TextStreamerOptions)[];

/**
 * Prints the text of one row, as soon as entire words are known: to standard output in Node, in a browser line by line to the
 * console. To take it elsewhere, extend the class with another on_finalized_text().
 */
export class TextStreamer implements Streamer {
  readonly #tokenizer: { decode(ids: readonly number[], options: DecodeOptions): string };
  readonly #decode_options: DecodeOptions;
  readonly #skip_prompt: boolean;
  #cache: number[] = [];
  #printed = 0;
  #next_are_prompt = true;
  /** In a browser, what waits for the end of its line. */
  #line = "";

  /** @throws InputError BAD_INPUT, UNKNOWN_OPTION, PARAM_RANGE */
  constructor(
    tokenizer: { decode(ids: readonly number[], options: DecodeOptions): string },
    options: TextStreamerOptions = {},
    ...more: never[]
  ) {
    const given = optionsOf("TextStreamer", [options, ...more], 1, 1);
    refuseUnknown("TextStreamer", given, OPTIONS);
    for (const [key, value] of Object.entries(given)) {
      if (typeof value === "boolean") continue;
      throw new InputError("PARAM_RANGE", `${key} must be true or false, got ${shown(value)}`);
    }
    if (typeof tokenizer?.decode !== "function") {
      const hint = "a processor has one: processor.tokenizer";
      throw new InputError("BAD_INPUT", `TextStreamer needs a tokenizer, got ${shown(tokenizer)}`, { hint });
    }
    const { skip_prompt = false, ...decode_options } = given as TextStreamerOptions;
    this.#tokenizer = tokenizer;
    this.#skip_prompt = skip_prompt;
    this.#decode_options = decode_options;
  }

  put(ids: readonly (readonly number[])[]): void {
    const [row] = ids;
    if (ids.length !== 1 || !row) {
      throw new InputError("BATCH", "a text streamer follows one row; generate one prompt at a time");
    }
    const skips = this.#skip_prompt && this.#next_are_prompt;
    this.#next_are_prompt = false;
    if (skips) return;
    this.#cache.push(...row);
    const text = this.#text();
    let end = text.lastIndexOf(" ") + 1;
    if (text.endsWith("\n") || isChinese(text)) end = text.length;
    const ready = text.slice(this.#printed, end);
    this.#printed += ready.length;
    if (text.endsWith("\n")) [this.#cache, this.#printed] = [[], 0];
    this.on_finalized_text(ready);
  }

  /** @param error why generate() failed: nothing more is printed then */
  end(error?: unknown): void {
    const rest = error === undefined && this.#cache.length > 0 ? this.#text().slice(this.#printed) : "";
    [this.#cache, this.#printed, this.#next_are_prompt] = [[], 0, true];
    this.on_finalized_text(rest, true);
  }

  /** Prints text, and a new line at the end. */
  on_finalized_text(text: string, stream_end = false): void {
    const more = stream_end ? `${text}\n` : text;
    const { process } = globalThis as { process?: { stdout?: { write?(text: string): unknown } } };
    if (process?.stdout?.write) {
      process.stdout.write(more);
      return;
    }
    const lines = (this.#line + more).split("\n");
    this.#line = lines.pop()!;
    for (const line of lines) console.log(line);
  }

  #text(): string {
    return this.#tokenizer.decode(this.#cache, this.#decode_options);
  }
}

/** Whether a text ends with a CJK ideograph, which is a word of its own. */
function isChinese(text: string): boolean {
  return /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]$/u.test(
    text,
  );
}
