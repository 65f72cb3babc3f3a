/**
 * What tokenizer.json says happens before and after the model: added tokens, normaliser, pre-tokeniser, post-processor and
 * decoder, each as the Rust library runs it. `@huggingface/tokenizers` has these parts too, but with differences of its own
 * (test/instructblip/tokenizer.test.ts lists what is left); its models (BPE, Unigram, WordPiece) are used as they are.
 * Nothing from a file becomes a regular expression.
 *
 * Source: tokenizers 0.23 (Rust): added_vocabulary.rs, normalizers/, pre_tokenizers/, processors/, decoders/.
 */
import * as library from "@huggingface/tokenizers";
import { ConfigError } from "../tensor/errors.ts";
import { quote } from "../tensor/strict_json.ts";
import type { JsonRecord } from "./json_file.ts";
import { Precompiled } from "./precompiled.ts";

/** A token that is found in the text before the model sees it. */
export interface AddedToken {
  content: string;
  /** Only as a whole word. */
  single_word: boolean;
  /** Takes the blanks on its left, or right, with it. */
  lstrip: boolean;
  rstrip: boolean;
  /** Looked for in the normalised text instead of the text as given. */
  normalized: boolean;
  /** Left out by `skip_special_tokens`. */
  special: boolean;
}

/** A stretch of text on its way to the model. */
export interface Piece {
  text: string;
  /** It is the very start of the prompt: only there does the Metaspace scheme "first" put its blank. */
  first: boolean;
}

export type Normalizer = (text: string) => string;
export type PreTokenizer = (pieces: Piece[]) => Piece[];
export type Decoder = (tokens: string[]) => string[];
/** Ids put around every prompt. */
export interface PostProcessor {
  prefix: number[];
  suffix: number[];
}

/** What the model of tokenizer.json needs to do. */
export interface Model {
  /** Ids of one piece. @throws InputError TOKENIZER_UNKNOWN */
  encode(piece: string): (number | undefined)[];
  /** Pieces of the model's own vocabulary. */
  vocab: Map<string, number>;
  byteFallback: boolean;
}

const WHITE = "\\p{White_Space}"; // JavaScript's \s has U+FEFF too, and lacks U+0085
const LEADING_SPACE = new RegExp(`^${WHITE}+`, "u");
const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]"; // the crate regex's \w
const STARTS_WITH_WORD = new RegExp(`^${WORD}`, "u");
const ENDS_WITH_WORD = new RegExp(`${WORD}$`, "u");

function unsupported(part: string, what: unknown): ConfigError {
  const name = typeof what === "string" ? quote(what) : (JSON.stringify(what) ?? "nothing").slice(0, 80);
  return new ConfigError("TOKENIZER_UNSUPPORTED", `tokenizer.json: ${part} ${name} is not supported`);
}

function bad(where: string, must: string): ConfigError {
  return new ConfigError("TOKENIZER_BAD", `tokenizer.json: ${where} must be ${must}`);
}

function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function list(config: JsonRecord, key: string): JsonRecord[] {
  const value = config[key];
  if (!Array.isArray(value) || !value.every(isRecord)) throw bad(key, "a list of objects");
  return value;
}

function string(config: JsonRecord, key: string): string {
  const value = config[key];
  if (typeof value !== "string") throw bad(key, "a string");
  return value;
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_IDS;
}

/** No vocabulary is near it, and it bounds what an id in a file can make us allocate. */
const MAX_IDS = 2 ** 24;

// ---------------------------------------------------------------------------------------------------------------------

/** Finds added tokens: leftmost, then longest. */
export class AddedTokenFinder {
  private readonly root: TrieNode = { children: new Map() };

  constructor(tokens: Iterable<readonly [pattern: string, token: AddedToken]>) {
    for (const [pattern, token] of tokens) {
      let node = this.root;
      for (let i = 0; i < pattern.length; i++) {
        const next: TrieNode = node.children.get(pattern.charCodeAt(i)) ?? { children: new Map() };
        node.children.set(pattern.charCodeAt(i), next);
        node = next;
      }
      if (node !== this.root) node.token = token;
    }
  }

  /** Cuts `text` into stretches without and with a token. */
  split(text: string): { text: string; token?: AddedToken; start: number }[] {
    const parts: { text: string; token?: AddedToken; start: number }[] = [];
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const match = this.matchAt(text, at);
      if (!match) {
        at++;
        continue;
      }
      const { token } = match;
      let [start, end] = [at, match.end];
      at = end;
      if (token.single_word) {
        if (ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start))) continue;
        if (STARTS_WITH_WORD.test(text.slice(end, end + 2))) continue;
      }
      if (token.lstrip) while (start > done && LEADING_SPACE.test(text[start - 1])) start--;
      if (token.rstrip) while (end < text.length && LEADING_SPACE.test(text[end])) end++;
      at = end;
      if (start > done) parts.push({ text: text.slice(done, start), start: done });
      parts.push({ text: token.content, token, start });
      done = end;
    }
    if (done < text.length) parts.push({ text: text.slice(done), start: done });
    return parts;
  }

  private matchAt(text: string, start: number): { token: AddedToken; end: number } | undefined {
    let node: TrieNode | undefined = this.root;
    let match: { token: AddedToken; end: number } | undefined;
    for (let i = start; i < text.length; i++) {
      node = node.children.get(text.charCodeAt(i));
      if (!node) break;
      if (node.token) match = { token: node.token, end: i + 1 };
    }
    return match;
  }
}

interface TrieNode {
  children: Map<number, TrieNode>;
  token?: AddedToken;
}

// ---------------------------------------------------------------------------------------------------------------------

/** @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD, TOKENIZER_CHARSMAP */
export function makeNormalizer(config: unknown): Normalizer {
  if (config === null || config === undefined) return (text) => text;
  if (!isRecord(config)) throw bad("normalizer", "an object");
  switch (config.type) {
    case "Sequence": {
      const steps = list(config, "normalizers").map(makeNormalizer);
      return (text) => steps.reduce((t, step) => step(t), text);
    }
    case "BertNormalizer":
      return bertNormalizer(config);
    case "Precompiled": {
      // Rust reads a missing map as none at all.
      if (config.precompiled_charsmap === null) return (text) => text;
      const map = new Precompiled(string(config, "precompiled_charsmap"));
      return (text) => map.normalize(text);
    }
    case "Prepend": {
      const prefix = string(config, "prepend");
      return (text) => (text === "" ? "" : prefix + text);
    }
    case "Replace": {
      const content = string(config, "content");
      const { pattern } = config;
      if (isRecord(pattern) && typeof pattern.String === "string" && pattern.String !== "") {
        const literal = pattern.String;
        return (text) => text.replaceAll(literal, () => content);
      }
      // The one expression that converted SentencePiece models carry.
      if (isRecord(pattern) && pattern.Regex === " {2,}") return (text) => text.replace(/ {2,}/g, () => content);
      throw unsupported("normalizer Replace of", pattern);
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

/** By hand: a regular expression anchored at the end is quadratic in the blanks before it. */
function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && LEADING_SPACE.test(text[end - 1])) end--;
  return text.slice(0, end);
}

/** Character by character, so that a Greek final sigma stays an ordinary one, as in Rust and BERT. */
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
  if (config === null || config === undefined) return (pieces) => pieces;
  if (!isRecord(config)) throw bad("pre_tokenizer", "an object");
  switch (config.type) {
    case "Sequence": {
      const steps = list(config, "pretokenizers").map(makePreTokenizer);
      return (pieces) => steps.reduce((p, step) => step(p), pieces);
    }
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

function metaspace(config: JsonRecord): PreTokenizer {
  const replacement = typeof config.replacement === "string" ? config.replacement : "▁";
  // Files from before prepend_scheme say add_prefix_space.
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

/** GPT-2's stand-in character for each byte. */
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

/** @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD */
export function makePostProcessor(config: unknown): PostProcessor {
  const none = { prefix: [], suffix: [] };
  if (config === null || config === undefined) return none;
  if (!isRecord(config)) throw bad("post_processor", "an object");
  switch (config.type) {
    case "ByteLevel":
      return none; // only offsets
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
    case "Sequence":
      return list(config, "processors")
        .map(makePostProcessor)
        .reduce(
          (inner, outer) => ({
            prefix: [...outer.prefix, ...inner.prefix],
            suffix: [...inner.suffix, ...outer.suffix],
          }),
          none,
        );
    default:
      throw unsupported("post_processor", config.type);
  }
}

function templateProcessing(config: JsonRecord): PostProcessor {
  const tokens = config.special_tokens;
  const result: PostProcessor = { prefix: [], suffix: [] };
  let side = result.prefix;
  for (const item of list(config, "single")) {
    const { Sequence: sequence, SpecialToken: special } = item;
    if (isRecord(sequence) && sequence.id === "A" && side === result.prefix) {
      side = result.suffix;
    } else if (isRecord(special) && typeof special.id === "string" && isRecord(tokens)) {
      const entry = Object.hasOwn(tokens, special.id) ? tokens[special.id] : undefined;
      if (!isRecord(entry) || !Array.isArray(entry.ids) || !entry.ids.every(isId)) {
        throw bad(`post_processor.special_tokens ${quote(special.id)}`, "an entry with ids");
      }
      side.push(...entry.ids);
    } else {
      throw unsupported("post_processor template", item);
    }
  }
  if (side === result.prefix) throw bad("post_processor.single", "a template with the sequence A");
  return result;
}

// ---------------------------------------------------------------------------------------------------------------------

/**
 * A decoder and whether byte tokens wait for each other (ByteFallback): then the text of the last ones may still change.
 *
 * @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD
 */
export function makeDecoder(config: unknown): { decode: Decoder; byteFallback: boolean } {
  if (config === null || config === undefined) return { decode: (tokens) => [tokens.join(" ")], byteFallback: false };
  if (!isRecord(config)) throw bad("decoder", "an object");
  if (config.type === "Sequence") {
    const steps = list(config, "decoders");
    const fuse = steps.findIndex((step) => step.type === "Fuse");
    // A stream of text relies on it: what follows Fuse sees the whole text, and may only take from its start.
    if (fuse >= 0 && !steps.slice(fuse + 1).every((step) => step.type === "Strip" && !step.stop)) {
      throw unsupported("decoder after Fuse", steps.slice(fuse + 1));
    }
    const decoders = steps.map(makeDecoder);
    return {
      decode: (tokens) => decoders.reduce((t, decoder) => decoder.decode(t), tokens),
      byteFallback: decoders.some((decoder) => decoder.byteFallback),
    };
  }
  return { decode: simpleDecoder(config), byteFallback: config.type === "ByteFallback" };
}

function simpleDecoder(config: JsonRecord): Decoder {
  switch (config.type) {
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "ByteFallback":
      return byteFallback;
    case "ByteLevel":
      return byteLevelDecoder;
    case "Replace": {
      const { pattern } = config;
      const content = string(config, "content");
      if (!isRecord(pattern) || typeof pattern.String !== "string" || pattern.String === "") {
        throw unsupported("decoder Replace of", pattern);
      }
      const literal = pattern.String;
      return (tokens) => tokens.map((token) => token.replaceAll(literal, () => content));
    }
    case "Strip": {
      const content = string(config, "content");
      const { start, stop } = config;
      if (!isId(start) || !isId(stop) || content.length !== 1) throw bad("decoder Strip", "one character and counts");
      return (tokens) => tokens.map((token) => strip(token, content, start, stop));
    }
    case "Metaspace": {
      const replacement = typeof config.replacement === "string" ? config.replacement : "▁";
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

/** Runs of byte tokens become text together: all of it, or one U+FFFD for each byte. */
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
    const byte = BYTE_TOKEN.exec(token);
    if (byte) bytes.push(Number.parseInt(byte[1], 16));
    else {
      flush();
      result.push(token);
    }
  }
  flush();
  return result;
};

/** All tokens' bytes as one text; a token that is not made of byte characters stands for its own UTF-8. */
const byteLevelDecoder: Decoder = (tokens) => {
  const encoder = new TextEncoder();
  const bytes: number[] = [];
  for (const token of tokens) {
    const mapped = Array.from(token, (char) => CHAR_BYTES.get(char));
    for (const byte of mapped.includes(undefined) ? encoder.encode(token) : mapped) bytes.push(byte as number);
  }
  return [new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes))];
};

/** Takes the blanks away that WordPiece puts before punctuation. */
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

// ---------------------------------------------------------------------------------------------------------------------

/**
 * Checks the model of tokenizer.json thoroughly, for its library does not, and makes it.
 *
 * @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD
 */
export function makeModel(config: unknown): Model {
  if (!isRecord(config)) throw bad("model", "an object");
  switch (modelType(config)) {
    case "BPE":
      return bpe(config);
    case "WordPiece":
      return wordPiece(config);
    case "Unigram":
      return unigram(config);
    default:
      throw unsupported("model", config.type);
  }
}

/** As far as we use them; the library's own types are lost on TypeScript's NodeNext (they import without extensions). */
type LibraryModel = (pieces: string[]) => string[];
const { BPE, Unigram, WordPiece } = library as unknown as {
  BPE: new (config: JsonRecord) => LibraryModel;
  WordPiece: new (config: JsonRecord) => LibraryModel;
  Unigram: new (config: JsonRecord, eos_token: string) => { tokenize(piece: string): string[] };
};

/** Old files do not name it. */
export function modelType(config: JsonRecord): unknown {
  if (config.type !== undefined) return config.type;
  if (Array.isArray(config.merges)) return "BPE";
  return Array.isArray(config.vocab) ? "Unigram" : "WordPiece";
}

function checkedVocab(vocab: unknown): Map<string, number> {
  if (!isRecord(vocab)) throw bad("model.vocab", "an object");
  const map = new Map<string, number>();
  const ids = new Set<number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (!isId(id)) throw bad(`model.vocab ${quote(token)}`, `an id from 0 to ${MAX_IDS}`);
    if (ids.has(id)) throw bad(`model.vocab ${quote(token)}`, `an id of its own, ${id} is taken`);
    ids.add(id);
    map.set(token, id);
  }
  if (map.size === 0) throw bad("model.vocab", "not empty");
  return map;
}

function bpe(config: JsonRecord): Model {
  for (const key of ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"]) {
    if (config[key]) throw unsupported(`BPE with ${key}`, config[key]);
  }
  const vocab = checkedVocab(config.vocab);
  if (!Array.isArray(config.merges)) throw bad("model.merges", "a list");
  const merges = config.merges.map((merge: unknown, line): [string, string] => {
    const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === "string")) {
      throw bad(`model.merges[${line}]`, "two tokens");
    }
    const [left, right] = pair as [string, string];
    for (const token of [left, right, left + right]) {
      if (!vocab.has(token)) throw bad(`model.merges[${line}]`, `of tokens in the vocabulary, ${quote(token)} is not`);
    }
    return [left, right];
  });
  const byteFallback = config.byte_fallback === true;
  const unk_token = typeof config.unk_token === "string" ? config.unk_token : null;
  const fuse_unk = config.fuse_unk === true;
  const model = new BPE({ vocab: config.vocab, merges, unk_token, fuse_unk, byte_fallback: byteFallback });
  // Llama's pre-tokeniser leaves the prompt in one piece. No merge can cross a place that no token has inside, so cutting
  // there is exact; words then come from the library's cache, and a long prompt takes a tenth of the time.
  const cuts = vocab.has("▁") && ![...vocab.keys()].some((token) => /[^▁]▁/.test(token));
  const encode = (piece: string) =>
    model(cuts ? piece.split(/(?<=[^▁])(?=▁)/) : [piece]).map((token) => vocab.get(token));
  return { vocab, byteFallback, encode };
}

function wordPiece(config: JsonRecord): Model {
  const vocab = checkedVocab(config.vocab);
  const unk_token = string(config, "unk_token");
  const most = config.max_input_chars_per_word ?? 100;
  if (!isId(most)) throw bad("model.max_input_chars_per_word", "a number");
  const prefix = config.continuing_subword_prefix ?? "##";
  if (typeof prefix !== "string") throw bad("model.continuing_subword_prefix", "a string");
  const model = new WordPiece({
    vocab: config.vocab,
    unk_token,
    max_input_chars_per_word: most,
    continuing_subword_prefix: prefix,
  });
  return { vocab, byteFallback: false, encode: (piece) => model([piece]).map((token) => vocab.get(token)) };
}

function unigram(config: JsonRecord): Model {
  if (config.byte_fallback) throw unsupported("Unigram with byte_fallback", true);
  if (!Array.isArray(config.vocab)) throw bad("model.vocab", "a list of [token, score]");
  const vocab = new Map<string, number>();
  config.vocab.forEach((entry: unknown, id) => {
    const valid =
      Array.isArray(entry) && entry.length === 2 && typeof entry[0] === "string" && Number.isFinite(entry[1]);
    if (!valid) throw bad(`model.vocab[${id}]`, "a token and a finite score");
    const [token] = entry as [string, number];
    if (vocab.has(token)) throw bad(`model.vocab[${id}]`, `a token of its own, ${quote(token)} came before`);
    vocab.set(token, id);
  });
  const unk = config.unk_id;
  if (!isId(unk) || unk >= vocab.size) throw bad("model.unk_id", "an id of the vocabulary");
  // The library marks the unknown token in the list it is given.
  const pairs = config.vocab.map(([token, score]: [string, number]) => [token, score]);
  const model = new Unigram({ vocab: pairs, unk_id: unk }, "");
  const encode = (piece: string) => {
    const ids: number[] = [];
    for (const token of model.tokenize(piece)) {
      const id: number = vocab.get(token) ?? unk;
      // Unknown characters side by side are one token. The library's own way of joining them is quadratic.
      if (id !== unk || ids.at(-1) !== unk) ids.push(id);
    }
    return ids;
  };
  return { vocab, byteFallback: false, encode };
}
