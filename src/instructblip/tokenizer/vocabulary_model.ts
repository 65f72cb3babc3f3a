/**
 * The models of tokenizer.json: BPE, WordPiece and Unigram, as in the Rust library, in time that is nearly linear in the
 * text for any vocabulary. Everything in the file is checked before it is used.
 *
 * Source: tokenizers 0.23 (Rust): models/bpe/, models/wordpiece/, models/unigram/.
 */
import { quote } from "../../tensor/shown.ts";
import type { JsonRecord } from "../config/json_file.ts";
import { type Budget, bad, isId, isRecord, MAX_IDS, string, unsupported } from "./checks.ts";
import { TokenIndex } from "./token_index.ts";

/** The interface of the model of tokenizer.json. */
export interface Model {
  /** Ids of one piece; undefined for text that the vocabulary lacks. @throws InputError TOKENIZER_GROWTH */
  encode(piece: string, budget: Budget): readonly (number | undefined)[];
  /** Pieces of the model's own vocabulary. */
  vocab: Map<string, number>;
  byteFallback: boolean;
}

/** @throws ConfigError TOKENIZER_UNSUPPORTED, TOKENIZER_BAD */
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

/** Old files do not name it. */
export function modelType(config: JsonRecord): unknown {
  if (config.type !== undefined) return config.type;
  if (Array.isArray(config.merges)) return "BPE";
  return Array.isArray(config.vocab) ? "Unigram" : "WordPiece";
}

/** Most characters of all tokens together; ten times that of the largest vocabularies. */
const MOST_CHARACTERS = 2 ** 23;

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

// --- BPE -----------------------------------------------------------------------------------------------------------------

/** Size of the cache of words, and longest cached word, as in Rust. */
const CACHED_WORDS = 10_000;
const CACHED_LENGTH = 256;

function bpe(config: JsonRecord): Model {
  for (const key of ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"]) {
    if (config[key]) throw unsupported(`BPE with ${key}`, config[key]);
  }
  const vocab = checkedVocab(config.vocab);
  const merges = mergesOf(config.merges, vocab);
  const byteFallback = config.byte_fallback === true;
  const unk = typeof config.unk_token === "string" ? { id: vocab.get(config.unk_token) } : undefined;
  const fuseUnk = config.fuse_unk === true;
  const encoder = new TextEncoder();
  const bytesOf = (char: string): number[] | undefined => {
    const ids: number[] = [];
    for (const byte of encoder.encode(char)) {
      const id = vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
      if (id === undefined) return undefined;
      ids.push(id);
    }
    return ids;
  };
  /** Ids of its characters, before any merge. A character without id, bytes or unknown token is dropped, as in Rust. */
  const lettersOf = (word: string): (number | undefined)[] => {
    const ids: (number | undefined)[] = [];
    let unknown = false;
    for (const char of word) {
      const id = vocab.get(char);
      const known = id !== undefined ? [id] : byteFallback ? bytesOf(char) : undefined;
      if (known) ids.push(...known);
      else if (unk && !(fuseUnk && unknown)) ids.push(unk.id);
      unknown = !known;
    }
    return ids;
  };
  const cache = new Map<string, readonly (number | undefined)[]>();
  const encodeWord = (word: string): readonly (number | undefined)[] => {
    let ids = cache.get(word);
    if (ids) return ids;
    const letters = lettersOf(word);
    ids = letters.includes(undefined) ? letters : merged(letters as number[], merges);
    if (word.length < CACHED_LENGTH) {
      if (cache.size === CACHED_WORDS) cache.clear();
      cache.set(word, ids);
    }
    return ids;
  };
  // Llama's pre-tokeniser leaves the prompt in one piece. No merge can cross a boundary that no token contains, so splitting
  // there is exact; words are then found in the cache, and a long prompt takes a tenth of the time.
  const cuts = vocab.has("▁") && ![...vocab.keys()].some((token) => /[^▁]▁/.test(token));
  const encode = (piece: string) =>
    cuts ? piece.split(/(?<=[^▁])(?=▁)/).flatMap(encodeWord) : piece === "" ? [] : encodeWord(piece);
  return { vocab, byteFallback, encode };
}

/** Two ids -> the rank of their merge and the id it makes, each pair and each result as one number. */
type Merges = ReadonlyMap<number, number>;
const pairOf = (left: number, right: number) => left * MAX_IDS + right;

function mergesOf(list: unknown, vocab: ReadonlyMap<string, number>): Merges {
  if (!Array.isArray(list) || list.length > MAX_IDS) throw bad("model.merges", "a list");
  const merges = new Map<number, number>();
  list.forEach((merge: unknown, line) => {
    const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === "string")) {
      throw bad(`model.merges[${line}]`, "two tokens");
    }
    const [left, right] = pair as [string, string];
    const idOf = (token: string) => {
      const id = vocab.get(token);
      if (id === undefined) {
        throw bad(`model.merges[${line}]`, `of tokens in the vocabulary, ${quote(token)} is not`);
      }
      return id;
    };
    merges.set(pairOf(idOf(left), idOf(right)), pairOf(line, idOf(left + right)));
  });
  return merges;
}

/** Most positions within a rank: no piece is as long. */
const MOST_LETTERS = 2 ** 26;

/** Merges neighbouring pairs, the lowest rank first, of equal ones the leftmost. */
function merged(ids: number[], merges: Merges): number[] {
  const next = ids.map((_, i) => i + 1);
  const previous = ids.map((_, i) => i - 1);
  const queue = new Queue();
  /** The merge of the token at a position and the next. */
  const mergeAt = (at: number) => {
    const right = next[at]!;
    return right < ids.length ? merges.get(pairOf(ids[at]!, ids[right]!)) : undefined;
  };
  const offer = (at: number) => {
    const merge = mergeAt(at);
    if (merge !== undefined) queue.push(Math.floor(merge / MAX_IDS) * MOST_LETTERS + at);
  };
  for (let at = 0; at < ids.length; at++) offer(at);
  const gone = -1;
  for (let first = queue.pop(); first !== undefined; first = queue.pop()) {
    const at = first % MOST_LETTERS;
    if (ids[at] === gone) continue;
    const merge = mergeAt(at);
    // The pair may have been merged with another neighbour since.
    if (merge === undefined || Math.floor(merge / MAX_IDS) !== Math.floor(first / MOST_LETTERS)) continue;
    const [absorbed, before] = [next[at]!, previous[at]!];
    const behind = next[absorbed]!;
    ids[at] = merge % MAX_IDS;
    ids[absorbed] = gone;
    next[at] = behind;
    if (behind < ids.length) previous[behind] = at;
    offer(at);
    if (before >= 0) offer(before);
  }
  return ids.filter((id) => id !== gone);
}

/** A binary heap: the smallest number first. */
class Queue {
  readonly #heap: number[] = [];

  push(value: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(value);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent]!;
      if (above <= value) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = value;
  }

  pop(): number | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const value = heap.pop();
    if (value === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child++;
      const below = heap[child]!;
      if (below >= value) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = value;
    return first;
  }
}

// --- WordPiece -----------------------------------------------------------------------------------------------------------

function wordPiece(config: JsonRecord): Model {
  const vocab = checkedVocab(config.vocab);
  const unk = vocab.get(string(config, "unk_token"));
  const most = config.max_input_chars_per_word ?? 100;
  if (!isId(most)) throw bad("model.max_input_chars_per_word", "a number");
  const prefix = config.continuing_subword_prefix ?? "##";
  if (typeof prefix !== "string") throw bad("model.continuing_subword_prefix", "a string");
  const tokens = [...vocab.keys()];
  const ids = [...vocab.values()];
  const first = new TokenIndex(tokens, MOST_CHARACTERS, "model.vocab");
  const bodies = tokens.map((token) => (token.startsWith(prefix) ? token.slice(prefix.length) : ""));
  const others = prefix === "" ? first : new TokenIndex(bodies, MOST_CHARACTERS, "model.vocab");
  const encode = (word: string): readonly (number | undefined)[] => {
    if (word.length > most && Array.from(word).length > most) return [unk];
    const result: number[] = [];
    let index = first;
    let states = index.statesOf(word);
    for (let at = 0; at < word.length; ) {
      const token = index.longest(states[at]!);
      if (token === 0) return [unk];
      result.push(ids[index.stringOf(token)]!);
      at += index.lengthOf(token);
      if (index !== others) {
        index = others;
        states = index.statesOf(word);
      }
    }
    return result;
  };
  return { vocab, byteFallback: false, encode };
}

// --- Unigram -------------------------------------------------------------------------------------------------------------

/** Log probability of an unknown character below that of the least probable token. SentencePiece's number. */
const UNKNOWN_PENALTY = 10;

function unigram(config: JsonRecord): Model {
  if (config.byte_fallback) throw unsupported("Unigram with byte_fallback", true);
  if (!Array.isArray(config.vocab)) throw bad("model.vocab", "a list of [token, score]");
  const vocab = new Map<string, number>();
  const scores: number[] = [];
  config.vocab.forEach((entry: unknown, id) => {
    const valid =
      Array.isArray(entry) && entry.length === 2 && typeof entry[0] === "string" && Number.isFinite(entry[1]);
    if (!valid) throw bad(`model.vocab[${id}]`, "a token and a finite score");
    const [token, score] = entry as [string, number];
    if (vocab.has(token)) throw bad(`model.vocab[${id}]`, `a token of its own, ${quote(token)} came before`);
    vocab.set(token, id);
    scores.push(score);
  });
  const unk = config.unk_id;
  if (!isId(unk) || unk >= vocab.size) throw bad("model.unk_id", "an id of the vocabulary");
  const unknownScore = scores.reduce((least, score) => Math.min(least, score)) - UNKNOWN_PENALTY;
  scores[unk] = unknownScore;
  const index = new TokenIndex([...vocab.keys()], MOST_CHARACTERS, "model.vocab");

  /** The most probable segmentation of the piece: of equal ones that with the longest last token. */
  const encode = (piece: string, budget: Budget) => {
    const states = index.statesOf(piece);
    const best = new Float64Array(piece.length + 1);
    const from = new Int32Array(piece.length + 1).fill(-1); // the start of the last token of the best segmentation up to an index
    const id = new Int32Array(piece.length + 1);
    const offer = (start: number, end: number, token: number, score: number) => {
      const sum = best[start]! + score;
      if (from[end]! >= 0 && sum <= best[end]!) return;
      [best[end], from[end], id[end]] = [sum, start, token];
    };
    for (let start = 0; start < piece.length; ) {
      const width = piece.codePointAt(start)! > 0xffff ? 2 : 1;
      let [hasSingle, found] = [false, 1];
      for (let state = index.longest(states[start]!); state !== 0; state = index.shorter(state), found++) {
        const token = index.stringOf(state);
        const length = index.lengthOf(state);
        offer(start, start + length, token, scores[token]!);
        hasSingle ||= length === width;
      }
      budget.spend(found);
      if (!hasSingle) offer(start, start + width, unk, unknownScore);
      start += width;
    }
    const ids: number[] = [];
    for (let end = piece.length; end > 0; end = from[end]!) {
      // Adjacent unknown characters are one token.
      const token = id[end]!;
      if (token !== unk || ids.at(-1) !== unk) ids.push(token);
    }
    return ids.reverse();
  };
  return { vocab, byteFallback: false, encode };
}
