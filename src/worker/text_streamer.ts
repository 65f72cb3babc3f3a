/** The page's TextIteratorStreamer. */
import { TextPieces } from "../instructblip/generation/streamer.ts";
import { InputError } from "../tensor/errors.ts";
import { shown } from "../tensor/shown.ts";
import { remoteOf } from "./posted.ts";
import type { RemoteTokenizer, TextStream } from "./remote_types.ts";

/**
 * An async iterable of the answer's text pieces, as the library's own: the worker decodes. Leaving the loop early stops
 * generate().
 */
export class TextIteratorStreamer implements TextStream {
  readonly tokenizer: RemoteTokenizer;
  readonly options: { readonly skip_prompt?: boolean; readonly skip_special_tokens?: boolean };
  readonly #pieces = new TextPieces();

  constructor(tokenizer: RemoteTokenizer, options: { skip_prompt?: boolean; skip_special_tokens?: boolean } = {}) {
    if (remoteOf(tokenizer)?.part !== "tokenizer") {
      const hint = "that of a processor of the same worker: processor.tokenizer";
      throw new InputError("BAD_INPUT", `TextIteratorStreamer needs a tokenizer, got ${shown(tokenizer)}`, { hint });
    }
    this.tokenizer = tokenizer;
    this.options = options;
  }

  /** Whether the reader has stopped. */
  get cancelled(): boolean {
    return this.#pieces.cancelled;
  }

  text(piece: string): void {
    this.#pieces.add(piece);
  }

  end(error?: unknown): void {
    this.#pieces.end(error);
  }

  [Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    return this.#pieces[Symbol.asyncIterator]();
  }
}
