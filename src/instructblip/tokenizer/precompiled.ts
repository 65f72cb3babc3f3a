/**
 * SentencePiece's precompiled character map, the normaliser of T5: a double-array trie from UTF-8 to replacement text, in
 * base64 in tokenizer.json.
 *
 * Source: tokenizers (Rust), normalizers/precompiled.rs, and the crate spm_precompiled; the trie is darts-clone's.
 */
import { ConfigError } from "../../tensor/errors.ts";
import type { Budget } from "./checks.ts";

/** Longer graphemes are looked up character by character. In UTF-8 bytes; the number is Rust's. */
const GRAPHEME_BYTES = 6;

/** In UTF-16 units; longer than any grapheme but deliberate stacks of accents. */
const WINDOW = 256;

/** Longest replacement, in bytes; Unicode's own longest has 18. */
const MOST_REPLACEMENT = 1024;

/** Size of the cache of results. */
const MOST_FOUND = 2 ** 13;

/** A normaliser with a character map. */
export class Precompiled {
  /** u32 units of the trie: bits 0–7 and 31 label, 8 "has a value", 9–30 offset; a value unit has the value in bits 0–30. */
  private readonly trie: Uint32Array;
  /** All replacement texts, each ended by a NUL; values are positions here. */
  private readonly texts: Uint8Array;
  private readonly found = new Map<string, string | null>();
  private readonly bytes = new Uint8Array(16);
  private readonly encoder = new TextEncoder();
  private readonly decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  private readonly graphemes = new Intl.Segmenter("und", { granularity: "grapheme" });

  /**
   * @param charsmap base64: u32 size of the trie in bytes (little-endian), the trie, the texts
   * @throws ConfigError TOKENIZER_CHARSMAP
   */
  constructor(charsmap: string) {
    const blob = fromBase64(charsmap);
    const size = blob.length >= 4 ? new DataView(blob.buffer).getUint32(0, true) : 0;
    if (size === 0 || size % 4 !== 0 || 4 + size > blob.length) {
      throw damaged(`a trie of ${size} bytes in a map of ${blob.length}`);
    }
    this.trie = new Uint32Array(blob.buffer.slice(4, 4 + size));
    this.texts = blob.subarray(4 + size);
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(this.texts);
    } catch {
      throw damaged("the replacement texts are not UTF-8");
    }
  }

  /** Replaces what the map has. @throws InputError TOKENIZER_GROWTH */
  normalize(text: string, budget: Budget): string {
    let result = "";
    for (const grapheme of this.split(text)) {
      const whole = this.lookUp(grapheme);
      if (whole !== null || grapheme.length === 1) result += whole ?? grapheme;
      else {
        for (const char of grapheme) {
          result += this.lookUp(char) ?? char;
          budget.limit(result.length);
        }
      }
      budget.limit(result.length);
    }
    return result;
  }

  /**
   * Graphemes, window by window: Intl.Segmenter takes time linear in the length of its text for every grapheme. The last one
   * of a window may extend beyond it, and is found again in the next; boundaries do not depend on the text before the
   * previous boundary.
   */
  private *split(text: string): Generator<string> {
    let window = WINDOW;
    for (let start = 0; start < text.length; ) {
      let next = start;
      let end = Math.min(start + window, text.length);
      if (end < text.length && /[\ud800-\udbff]/.test(text.charAt(end - 1))) end++; // skip half a surrogate pair
      const part = text.slice(start, end);
      const isLast = end === text.length;
      for (const { segment, index } of this.graphemes.segment(part)) {
        if (!isLast && index + segment.length === part.length) break;
        yield segment;
        next = start + index + segment.length;
      }
      window = next === start ? window * 2 : WINDOW;
      start = next;
    }
  }

  private lookUp(part: string): string | null {
    // Two UTF-16 units are at most six bytes; no grapheme below the limit has more than five.
    if (part.length >= GRAPHEME_BYTES) return null;
    let value = this.found.get(part);
    if (value === undefined) {
      const { written } = this.encoder.encodeInto(part, this.bytes);
      const single = part.length === 1 || (part.length === 2 && part.codePointAt(0)! > 0xffff);
      value = single || written < GRAPHEME_BYTES ? this.search(written) : null;
      if (this.found.size === MOST_FOUND) this.found.clear();
      this.found.set(part, value);
    }
    return value;
  }

  /** The text for the *shortest* key that is a prefix of `bytes`: it replaces the whole part, as in Rust. */
  private search(length: number): string | null {
    let node = offsetOf(this.unit(0));
    for (const byte of this.bytes.subarray(0, length)) {
      if (byte === 0) return null;
      node ^= byte;
      const unit = this.unit(node);
      if ((unit & 0x800000ff) !== byte) return null;
      node ^= offsetOf(unit);
      if (unit & 0x100) return this.textAt(this.unit(node) & 0x7fffffff);
    }
    return null;
  }

  private unit(node: number): number {
    const unit = this.trie[node];
    if (unit === undefined) throw damaged(`the trie points to unit ${node} of ${this.trie.length}`);
    return unit;
  }

  private textAt(start: number): string {
    if (start > this.texts.length) throw damaged(`a text at ${start} of ${this.texts.length}`);
    const window = this.texts.subarray(start, start + MOST_REPLACEMENT + 1);
    const end = window.indexOf(0);
    if (end < 0 && window.length > MOST_REPLACEMENT) throw damaged(`a replacement of over ${MOST_REPLACEMENT} bytes`);
    return this.decoder.decode(window.subarray(0, end < 0 ? undefined : end));
  }
}

function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

function damaged(what: string): ConfigError {
  return new ConfigError("TOKENIZER_CHARSMAP", `tokenizer.json: normalizer.precompiled_charsmap is damaged: ${what}`);
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  let binary: string;
  try {
    binary = atob(text);
  } catch {
    throw damaged("not base64");
  }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
