/**
 * The steps of tokenizer.json before and after the model: added tokens, normaliser, pre-tokeniser, post-processor and
 * decoder, each as in the Rust library. No text of a file becomes a regular expression, and no step exceeds the {@link
 * Budget} of a text.
 *
 * Source: tokenizers 0.23 (Rust): added_vocabulary.rs, normalizers/, pre_tokenizers/, processors/, decoders/.
 */
import { quote } from "../../tensor/shown.ts";
import type { JsonRecord } from "../config/json_file.ts";
import { type Budget, bad, isId, isRecord, stepsOf, string, unsupported } from "./checks.ts";
import { Precompiled } from "./precompiled.ts";
import { TokenIndex } from "./token_index.ts";

/** An added token, which is matched in the text before the model runs. */
export interface AddedToken {
  content: string;
  /** Matches whole words only. */
  single_word: boolean;
  /** Also matches the whitespace on its left, or right. */
  lstrip: boolean;
  rstrip: boolean;
  /** Matched in the normalised text instead of the given text. */
  normalized: boolean;
  /** Dropped by `skip_special_tokens`. */
  special: boolean;
}

/** A segment of text. */
export interface Piece {
  text: string;
  /** Whether it is the start of the prompt: only there does the Metaspace scheme "first" prepend its space. */
  first: boolean;
}

export type Normalizer = (text: string, budget: Budget) => string;
export type PreTokenizer = (pieces: Piece[], budget: Budget) => Piece[];
export type Decoder = (tokens: string[], budget: Budget) => string[];
/** Ids put around every prompt. */
export interface PostProcessor {
  prefix: number[];
  suffix: number[];
}

const WHITE = "\\p{White_Space}"; // JavaScript's \s has U+FEFF too, and lacks U+0085
const LEADING_SPACE = new RegExp(`^${WHITE}+`, "u");
const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]"; // the crate regex's \w
const STARTS_WITH_WORD = new RegExp(`^${WORD}`, "u");
const ENDS_WITH_WORD = new RegExp(`${WORD}$`, "u");

// ---------------------------------------------------------------------------------------------------------------------

/** Most characters of all added tokens together; no tokenizer has a tenth of it. */
const MOST_ADDED_CHARACTERS = 2 ** 20;

/** Finds added tokens: leftmost, then longest. */
export class AddedTokenFinder {
  private readonly tokens: readonly AddedToken[];
  private readonly index: TokenIndex;

  /** @throws ConfigError TOKENIZER_BAD */
  constructor(tokens: readonly (readonly [pattern: string, token: AddedToken])[]) {
    this.tokens = tokens.map(([, token]) => token);
    const patterns = tokens.map(([pattern]) => pattern);
    this.index = new TokenIndex(patterns, MOST_ADDED_CHARACTERS, "added_tokens");
  }

  /** Splits `text` into segments and tokens. */
  split(text: string): { text: string; token?: AddedToken; start: number }[] {
    if (text === "") return [];
    if (this.tokens.length === 0) return [{ text, start: 0 }];
    const parts: { text: string; token?: AddedToken; start: number }[] = [];
    const states = this.index.statesOf(text);
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const state = this.index.longest(states[at]!);
      if (state === 0) {
        at++;
        continue;
      }
      const token = this.tokens[this.index.stringOf(state)]!;
      let [start, end] = [at, at + this.index.lengthOf(state)];
      at = end;
      if (token.single_word) {
        if (ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start))) continue;
        if (STARTS_WITH_WORD.test(text.slice(end, end + 2))) continue;
      }
      if (token.lstrip) while (start > done && LEADING_SPACE.test(text.charAt(start - 1))) start--;
      if (token.rstrip) while (end < text.length && LEADING_SPACE.test(text.charAt(end))) end++;
      at = end;
      if (start > done) parts.push({ text: text.slice(done, start), start: done });
      parts.push({ text: token.content, token, start });
      done = end;
    }
    if (done < text.length) parts.push({ text: text.slice(done), start: done });
    return parts;
  }
}

// ---------------------------------------------------------------------------------------------------------------------

/** @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD, TOKENIZER_CHARSMAP */
export function makeNormalizer(config: unknown): Normalizer {
  const steps = stepsOf(config, "normalizer", "normalizers").map(normalizerStep);
  return (text, budget) => {
    for (const step of steps) {
      text = step(text, budget);
      budget.grow(text.length);
    }
    return text;
  };
}

function normalizerStep(config: JsonRecord): Normalizer {
  switch (config.type) {
    case "BertNormalizer":
      return bertNormalizer(config);
    case "Precompiled": {
      // Rust treats a missing map as no normaliser.
      if (config.precompiled_charsmap === null) return (text) => text;
      const map = new Precompiled(string(config, "precompiled_charsmap"));
      return (text, budget) => map.normalize(text, budget);
    }
    case "Prepend": {
      const prefix = string(config, "prepend");
      return (text) => (text === "" ? "" : prefix + text);
    }
    case "Replace": {
      const content = string(config, "content");
      // The only regular expression of converted SentencePiece models.
      if (isRecord(config.pattern) && config.pattern.Regex === " {2,}") {
        return (text, budget) => replaced(text, / {2,}/g, content, budget);
      }
      const literal = literalOf(config.pattern, "normalizer Replace of");
      return (text, budget) => replaced(text, literal, content, budget);
    }
    case "Strip":
      return (text) => {
        if (config.strip_left) text = text.replace(LEADING_SPACE, "");
        return config.strip_right ? trimEnd(text) : text;
      };
    case "Lowercase":
      return lowercase;
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD": {
      const form = config.type;
      return (text) => text.normalize(form);
    }
    default:
      throw unsupported("normalizer", config.type);
  }
}

/** Longest pattern: the search takes the product of both lengths; real ones have a character or two. */
const MOST_LITERAL = 64;

function literalOf(pattern: unknown, where: string): string {
  const literal = isRecord(pattern) ? pattern.String : undefined;
  if (typeof literal !== "string" || literal === "" || literal.length > MOST_LITERAL) throw unsupported(where, pattern);
  return literal;
}

/** `text` with every `pattern` replaced by `content`; the budget is checked before it is created. */
function replaced(text: string, pattern: string | RegExp, content: string, budget: Budget): string {
  let places = 0;
  text.replaceAll(pattern, () => {
    places++;
    return "";
  });
  if (places === 0) return text;
  budget.grow(places * content.length); // and the rest, at most as long as the text
  return text.replaceAll(pattern, () => content);
}

/** Not by a regular expression: anchored at the end it is quadratic in the whitespace before. */
function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && LEADING_SPACE.test(text.charAt(end - 1))) end--;
  return text.slice(0, end);
}

/** Character by character, so that a Greek final sigma becomes an ordinary one, as in Rust and BERT. */
function lowercase(text: string): string {
  let result = "";
  for (const char of text) result += char.toLowerCase();
  return result;
}

const CHINESE =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

function bertNormalizer(config: JsonRecord): Normalizer {
  const lower = config.lowercase !== false;
  const accents = typeof config.strip_accents === "boolean" ? config.strip_accents : lower;
  return (text) => {
    if (config.clean_text !== false) {
      text = text.replace(/[\0\ufffd]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}]/gu, "").replace(/\p{White_Space}/gu, " ");
    }
    if (config.handle_chinese_chars !== false) text = text.replace(CHINESE, " $& ");
    if (accents) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
    return lower ? lowercase(text) : text;
  };
}

// ---------------------------------------------------------------------------------------------------------------------

/** @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD */
export function makePreTokenizer(config: unknown): PreTokenizer {
  const steps = stepsOf(config, "pre_tokenizer", "pretokenizers").map(preTokenizerStep);
  return (pieces, budget) => {
    for (const step of steps) {
      pieces = step(pieces, budget);
      budget.grow(pieces.reduce((sum, piece) => sum + piece.text.length + 1, 0));
    }
    return pieces;
  };
}

function preTokenizerStep(config: JsonRecord): PreTokenizer {
  switch (config.type) {
    case "BertPreTokenizer":
      return byPattern(/[\p{P}$+<=>^`|~]|[^\p{White_Space}\p{P}$+<=>^`|~]+/gu);
    case "WhitespaceSplit":
      return byPattern(/\P{White_Space}+/gu);
    case "Metaspace":
      return metaspace(config);
    case "ByteLevel":
      return byteLevel(config);
    default:
      throw unsupported("pre_tokenizer", config.type);
  }
}

function byPattern(pattern: RegExp): PreTokenizer {
  return (pieces) =>
    pieces.flatMap(({ text, first }) =>
      Array.from(text.matchAll(pattern), (match) => ({ text: match[0], first: first && match.index === 0 })),
    );
}

/** The character that Metaspace writes for a space. */
function replacementOf(config: JsonRecord): string {
  const { replacement = "▁" } = config;
  if (typeof replacement === "string" && Array.from(replacement.slice(0, 3)).length === 1) return replacement;
  throw bad("Metaspace.replacement", "one character");
}

function metaspace(config: JsonRecord): PreTokenizer {
  const replacement = replacementOf(config);
  // Files from before prepend_scheme have add_prefix_space.
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? "never" : "always");
  if (scheme !== "always" && scheme !== "first" && scheme !== "never") throw unsupported("Metaspace scheme", scheme);
  const split = config.split !== false;
  return (pieces) =>
    pieces.flatMap(({ text, first }) => {
      let replaced = text.replaceAll(" ", () => replacement);
      const wanted = scheme === "always" || (scheme === "first" && first);
      if (wanted && !replaced.startsWith(replacement)) replaced = replacement + replaced;
      if (!split) return [{ text: replaced, first }];
      const words: Piece[] = [];
      for (let start = 0; start < replaced.length; ) {
        const next = replaced.indexOf(replacement, start + 1);
        const end = next < 0 ? replaced.length : next;
        words.push({ text: replaced.slice(start, end), first: first && start === 0 });
        start = end;
      }
      return words;
    });
}

/** GPT-2's character for each byte. */
const BYTE_CHARS: readonly string[] = (() => {
  const chars: string[] = [];
  let extra = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    chars.push(String.fromCharCode(printable ? byte : extra++));
  }
  return chars;
})();
const CHAR_BYTES: ReadonlyMap<string, number> = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));

function byteLevel(config: JsonRecord): PreTokenizer {
  const words =
    /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
  const encoder = new TextEncoder();
  return (pieces) =>
    pieces.flatMap(({ text, first }) => {
      const spaced = config.add_prefix_space === true && !text.startsWith(" ") ? ` ${text}` : text;
      const parts = config.use_regex === false ? [spaced] : (spaced.match(words) ?? []);
      return parts.map((part) => {
        let chars = "";
        for (const byte of encoder.encode(part)) chars += BYTE_CHARS[byte];
        return { text: chars, first };
      });
    });
}

// ---------------------------------------------------------------------------------------------------------------------

/** Most ids around a prompt; published tokenizers have two. */
const MOST_SPECIAL = 64;

/** @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD */
export function makePostProcessor(config: unknown): PostProcessor {
  // Each step adds its ids around the result of the previous steps.
  const post = stepsOf(config, "post_processor", "processors")
    .map(postProcessorStep)
    .reduce(
      (inner, outer) => ({
        prefix: outer.prefix.concat(inner.prefix),
        suffix: inner.suffix.concat(outer.suffix),
      }),
      { prefix: [], suffix: [] },
    );
  if (post.prefix.length + post.suffix.length > MOST_SPECIAL) {
    throw bad("post_processor", `of at most ${MOST_SPECIAL} special tokens`);
  }
  return post;
}

function postProcessorStep(config: JsonRecord): PostProcessor {
  switch (config.type) {
    case "ByteLevel":
      return { prefix: [], suffix: [] }; // only offsets
    case "BertProcessing":
    case "RobertaProcessing": {
      const id = (key: string): number[] => {
        const value = config[key];
        if (!Array.isArray(value) || !isId(value[1])) throw bad(`post_processor.${key}`, "[token, id]");
        return [value[1]];
      };
      return { prefix: id("cls"), suffix: id("sep") };
    }
    case "TemplateProcessing":
      return templateProcessing(config);
    default:
      throw unsupported("post_processor", config.type);
  }
}

function templateProcessing(config: JsonRecord): PostProcessor {
  const tokens = config.special_tokens;
  const { single } = config;
  if (!Array.isArray(single) || !single.every(isRecord)) throw bad("single", "a list of objects");
  const result: PostProcessor = { prefix: [], suffix: [] };
  let side = result.prefix;
  for (const item of single) {
    const { Sequence: sequence, SpecialToken: special } = item;
    if (isRecord(sequence) && sequence.id === "A" && side === result.prefix) {
      side = result.suffix;
    } else if (isRecord(special) && typeof special.id === "string" && isRecord(tokens)) {
      const entry = Object.hasOwn(tokens, special.id) ? tokens[special.id] : undefined;
      if (!isRecord(entry) || !Array.isArray(entry.ids) || !entry.ids.every(isId)) {
        throw bad(`post_processor.special_tokens ${quote(special.id)}`, "an entry with ids");
      }
      for (const id of entry.ids) side.push(id);
    } else {
      throw unsupported("post_processor template", item);
    }
  }
  if (side === result.prefix) throw bad("post_processor.single", "a template with the sequence A");
  return result;
}

// ---------------------------------------------------------------------------------------------------------------------

/**
 * A decoder, and whether it joins byte tokens (ByteFallback): then the text of the last ones may still change.
 *
 * @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD
 */
export function makeDecoder(config: unknown): { decode: Decoder; byteFallback: boolean } {
  if (config === null || config === undefined) return { decode: (tokens) => [tokens.join(" ")], byteFallback: false };
  const steps = stepsOf(config, "decoder", "decoders");
  const fuse = steps.findIndex((step) => step.type === "Fuse");
  // Incremental decoding relies on this: steps after Fuse see the whole text, and may only strip its start.
  if (fuse >= 0 && !steps.slice(fuse + 1).every((step) => step.type === "Strip" && !step.stop)) {
    throw unsupported("decoder after Fuse", steps.slice(fuse + 1));
  }
  const decoders = steps.map(decoderStep);
  return {
    decode: (tokens, budget) => {
      for (const decoder of decoders) {
        tokens = decoder(tokens, budget);
        budget.grow(tokens.reduce((sum, token) => sum + token.length, 0));
      }
      return tokens;
    },
    byteFallback: steps.some((step) => step.type === "ByteFallback"),
  };
}

function decoderStep(config: JsonRecord): Decoder {
  switch (config.type) {
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "ByteFallback":
      return byteFallback;
    case "ByteLevel":
      return byteLevelDecoder;
    case "Replace": {
      const content = string(config, "content");
      const literal = literalOf(config.pattern, "decoder Replace of");
      return (tokens, budget) => tokens.map((token) => replaced(token, literal, content, budget));
    }
    case "Strip": {
      const content = string(config, "content");
      const { start, stop } = config;
      if (!isId(start) || !isId(stop) || content.length !== 1) throw bad("decoder Strip", "one character and counts");
      return (tokens) => tokens.map((token) => strip(token, content, start, stop));
    }
    case "Metaspace": {
      const replacement = replacementOf(config);
      const prepended = config.prepend_scheme !== "never" && config.add_prefix_space !== false;
      return (tokens) =>
        tokens.map((token, i) => token.replaceAll(replacement, () => (i === 0 && prepended ? "" : " ")));
    }
    case "WordPiece": {
      const prefix = typeof config.prefix === "string" ? config.prefix : "##";
      return (tokens) =>
        tokens.map((token, i) => {
          const spaced = i === 0 ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
          return config.cleanup === false ? spaced : cleanUp(spaced);
        });
    }
    default:
      throw unsupported("decoder", config.type);
  }
}

function strip(token: string, content: string, start: number, stop: number): string {
  let from = 0;
  while (from < start && token[from] === content) from++;
  let to = token.length;
  while (token.length - to < stop && to > from && token[to - 1] === content) to--;
  return token.slice(from, to);
}

/** Matches `<0x0A>`: a byte that the vocabulary has no text for. */
export const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

/** A run of byte tokens is decoded together: to its text, or one U+FFFD for each byte. */
const byteFallback: Decoder = (tokens) => {
  const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const result: string[] = [];
  let bytes: number[] = [];
  const flush = () => {
    if (bytes.length === 0) return;
    try {
      result.push(utf8.decode(Uint8Array.from(bytes)));
    } catch {
      result.push("\ufffd".repeat(bytes.length));
    }
    bytes = [];
  };
  for (const token of tokens) {
    const [, byte] = BYTE_TOKEN.exec(token) ?? [];
    if (byte !== undefined) bytes.push(Number.parseInt(byte, 16));
    else {
      flush();
      result.push(token);
    }
  }
  flush();
  return result;
};

/** The bytes of all tokens as one text; a token that is not of byte characters gives its own UTF-8. */
const byteLevelDecoder: Decoder = (tokens) => {
  const encoder = new TextEncoder();
  const bytes: number[] = [];
  for (const token of tokens) {
    const mapped = Array.from(token, (char) => CHAR_BYTES.get(char));
    for (const byte of mapped.includes(undefined) ? encoder.encode(token) : mapped) bytes.push(byte as number);
  }
  return [new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes))];
};

/** Removes the spaces that WordPiece puts before punctuation. */
export function cleanUp(text: string): string {
  return text
    .replaceAll(" .", ".")
    .replaceAll(" ?", "?")
    .replaceAll(" !", "!")
    .replaceAll(" ,", ",")
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
