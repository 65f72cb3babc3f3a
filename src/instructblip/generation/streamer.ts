/**
 * Streaming of text during generation, with Hugging Face's names: pass a streamer to generate(), and iterate over it.
 *
 * Source: transformers 5.18, generation/streamers.py.
 */
import { optionsOf, refuseUnknown } from "../../tensor/arguments.ts";
import { InputError } from "../../tensor/errors.ts";
import { untilAborted } from "../../tensor/files/fetch_limited.ts";
import { shown } from "../../tensor/shown.ts";

/** The interface of a streamer. Its methods may be async: generate() awaits them, and rejects if they do. */
export interface Streamer {
  /** New tokens of every row: first the prompt's ids, then one id a row a step. */
  put(ids: readonly (readonly number[])[]): void;
  /** Beam search, which has no final token before its end: every prompt's best answer so far, without the prompt. */
  best?(answers: readonly (readonly number[])[]): void;
  /** The end of generation. */
  end(error?: unknown): void;
  /** Whether the reader has stopped; generate() then stops. */
  readonly cancelled?: boolean;
}

/** The promises of a caller's callbacks, which are not awaited one by one: a slow reader does not delay decoding. */
export class Callbacks {
  #failure: { readonly error: unknown } | undefined;
  #pending: Promise<unknown> = Promise.resolve();

  /** Adds the result of a callback. @throws the rejection of an earlier one */
  take(result: unknown): void {
    if (typeof (result as PromiseLike<unknown> | undefined)?.then === "function") {
      const settled = Promise.resolve(result).catch((error: unknown) => {
        this.#failure ??= { error };
      });
      this.#pending = Promise.all([this.#pending, settled]);
    }
    this.#throw();
  }

  /** Waits for all. @throws the first rejection; the signal's reason */
  async settle(signal: AbortSignal | null | undefined): Promise<void> {
    await (signal ? untilAborted(this.#pending, signal) : this.#pending);
    this.#throw();
  }

  #throw(): void {
    if (this.#failure) throw this.#failure.error;
  }
}

/** Wraps a streamer; its promises are added to `callbacks`. */
export function streamerOf(streamer: Streamer, callbacks: Callbacks): Streamer {
  return {
    put: (ids) => callbacks.take(streamer.put(ids)),
    end: (error) => callbacks.take(streamer.end(error)),
    ...(streamer.best && { best: (answers) => callbacks.take(streamer.best!(answers)) }),
    get cancelled() {
      return streamer.cancelled === true;
    },
  };
}

/** Decodes ids incrementally, never splitting a character. */
export interface IncrementalDecoder {
  push(id: number): string;
  finish(): string;
}

export interface TextIteratorStreamerOptions {
  /** Leave the prompt's text out. Default false, as in HF. */
  skip_prompt?: boolean;
  /** Leave out tokens such as the end of the sequence. Default false, as in HF. */
  skip_special_tokens?: boolean;
}

/** Pieces of text that are read as they come, by one reader. Leaving the loop sets `cancelled`. */
export class TextPieces implements AsyncIterable<string> {
  /** Whether the reader has stopped. */
  cancelled = false;
  readonly #pieces: string[] = [];
  #ended = false;
  #error: unknown;
  #wake: (() => void) | undefined;

  /** Whether end() was called. */
  get ended(): boolean {
    return this.#ended;
  }

  add(piece: string): void {
    if (piece) this.#pieces.push(piece);
    this.#wake?.();
  }

  /** @param error is thrown after the pieces that there are */
  end(error?: unknown): void {
    if (this.#ended) return;
    this.#error = error;
    this.#ended = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    try {
      for (;;) {
        const piece = this.#pieces.shift();
        if (piece !== undefined) yield piece;
        else if (this.#error !== undefined) throw this.#error;
        else if (this.#ended) return;
        else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.cancelled = true;
    }
  }
}

/** An async iterable of the answer's text pieces, for one row. Leaving the loop early stops generate(). */
export class TextIteratorStreamer implements Streamer, AsyncIterable<string> {
  readonly #decoder: IncrementalDecoder;
  readonly #skipPrompt: boolean;
  readonly #pieces = new TextPieces();
  #prompt = true;

  constructor(
    tokenizer: { decodeStream(options: { skip_special_tokens?: boolean }): IncrementalDecoder },
    options: TextIteratorStreamerOptions = {},
    ...more: never[]
  ) {
    const name = "TextIteratorStreamer";
    const given = optionsOf(name, [options, ...more], 1, 1);
    refuseUnknown(name, given, ["skip_prompt", "skip_special_tokens"]);
    for (const [key, value] of Object.entries(given)) {
      if (typeof value !== "boolean") {
        throw new InputError("PARAM_RANGE", `${key} must be true or false, got ${shown(value)}`);
      }
    }
    if (typeof tokenizer?.decodeStream !== "function") {
      const hint = "a processor has one: processor.tokenizer";
      throw new InputError("BAD_INPUT", `${name} needs a tokenizer, got ${shown(tokenizer)}`, { hint });
    }
    const { skip_prompt = false, skip_special_tokens = false } = given as TextIteratorStreamerOptions;
    this.#decoder = tokenizer.decodeStream({ skip_special_tokens });
    this.#skipPrompt = skip_prompt;
  }

  put(ids: readonly (readonly number[])[]): void {
    if (!Array.isArray(ids) || !ids.every(Array.isArray)) {
      throw new InputError("BAD_INPUT", `put() takes rows of token ids, got ${shown(ids)}`);
    }
    if (ids.length !== 1)
      throw new InputError("BATCH", "a text streamer follows one row; generate one prompt at a time");
    const skip = this.#prompt && this.#skipPrompt;
    this.#prompt = false;
    if (skip) return;
    for (const id of ids[0]!) this.#pieces.add(this.#decoder.push(id));
  }

  end(error?: unknown): void {
    if (this.#pieces.ended) return;
    if (error === undefined) this.#pieces.add(this.#decoder.finish());
    this.#pieces.end(error);
  }

  /** Whether the reader has stopped, or the caller wants no more. */
  get cancelled(): boolean {
    return this.#pieces.cancelled;
  }

  set cancelled(isCancelled: boolean) {
    this.#pieces.cancelled = isCancelled;
  }

  [Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    return this.#pieces[Symbol.asyncIterator]();
  }
}
