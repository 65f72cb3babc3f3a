/** Decoding token by token. */
import { BYTE_TOKEN, cleanUp } from "./pipeline.ts";

export interface StreamSource {
  tokensOf(id: number | bigint): string[];
  textOf(tokens: string[]): string;
  byteFallback: boolean;
  cleans: boolean;
}

/**
 * Decodes ids as they come. A piece is given out as soon as nothing that follows can change it: never half a character,
 * and runs of byte tokens only when they end, for one invalid byte turns all of a run into U+FFFD.
 */
export class DecodeStream {
  private readonly source: StreamSource;
  private readonly tokens: string[] = [];
  private given = 0;

  constructor(source: StreamSource) {
    this.source = source;
  }

  /** The text that became certain with this id; often empty. @throws InputError TOKENIZER_ID */
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

  /** What was held back. */
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
 * The last place in `text` where cleaning both sides apart is cleaning the whole: before a blank, and after a character
 * that no pattern of {@link cleanUp} can reach across (they consist of blanks, marks and the letters of n't, 've, 're …).
 */
function lastCut(text: string, from: number, end: number): number {
  for (let cut = end - 1; cut > from; cut--) {
    if (text[cut] === " " && !" 'nvr".includes(text.charAt(cut - 1))) return cut;
  }
  return from;
}
