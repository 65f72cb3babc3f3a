/** Incremental decoding. */
import { BYTE_TOKEN, cleanUp } from "./pipeline.ts";

export interface StreamSource {
  tokensOf(id: number | bigint): string[];
  textOf(tokens: string[]): string;
  byteFallback: boolean;
  cleans: boolean;
}

/**
 * Decodes ids incrementally. Text is returned as soon as later ids cannot change it: never half a character, and runs of
 * byte tokens only when they end, as one invalid byte turns all of a run into U+FFFD.
 */
export class DecodeStream {
  private readonly source: StreamSource;
  private readonly tokens: string[] = [];
  private given = 0;

  constructor(source: StreamSource) {
    this.source = source;
  }

  /** The text that is final after this id; often empty. @throws InputError TOKENIZER_ID */
  push(id: number | bigint): string {
    const tokens = this.source.tokensOf(id);
    const last = tokens.at(-1);
    if (last === undefined) return "";
    this.tokens.push(...tokens);
    if (this.source.byteFallback && BYTE_TOKEN.test(last)) return "";
    const text = this.source.textOf(this.tokens);
    let end = text.length;
    while (end > 0 && text[end - 1] === "\ufffd") end--; // perhaps the start of a character
    if (this.source.cleans) end = lastCut(text, this.given, end);
    return this.take(text, end);
  }

  /** The rest of the text, at the end. */
  finish(): string {
    const text = this.source.textOf(this.tokens);
    return this.take(text, text.length);
  }

  private take(text: string, end: number): string {
    if (end <= this.given) return "";
    const piece = text.slice(this.given, end);
    this.given = end;
    return this.source.cleans ? cleanUp(piece) : piece;
  }
}

/**
 * The last index of `text` at which cleaning both sides separately equals cleaning the whole: before a space, and after a
 * character that is in no pattern of {@link cleanUp} (these consist of spaces, punctuation and the letters of n't, 've, 're
 * …).
 */
function lastCut(text: string, from: number, end: number): number {
  for (let cut = end - 1; cut > from; cut--) {
    if (text[cut] === " " && !" 'nvr".includes(text.charAt(cut - 1))) return cut;
  }
  return from;
}
