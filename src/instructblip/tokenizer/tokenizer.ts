/**
 * Text to ids and back, as `AutoTokenizer.from_pretrained` of transformers 5 does it for the four families that InstructBLIP
 * uses: BERT (Q-Former), Llama/Vicuna, T5 and OPT/GPT-2. Padding, truncation, special tokens, decoding and streaming are
 * here; the pipeline of tokenizer.json is pipeline.ts. Chat templates, pairs and offsets are not supported.
 *
 * Source: transformers 5.18 tokenization_utils_base.py, tokenization_utils_tokenizers.py, models/{bert,llama,t5,gpt2}/
 * tokenization_*.py; tokenizers 0.23.
 */
import { ConfigError, InputError } from "../../tensor/errors.ts";
import { type NewFile, textFile, type WritableFolder, writeTogether } from "../../tensor/files/file_set.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { quote, shown } from "../../tensor/shown.ts";
import { type JsonRecord, jsonText } from "../config/json_file.ts";
import { JsonFolder } from "../config/json_folder.ts";
import { createFolder } from "../pretrained/platform.ts";
import { addedTokensDecoder, addedTokensOf, extraTokens, namedTokens, same } from "./added_tokens.ts";
import { Budget } from "./checks.ts";
import { DecodeStream } from "./decode_stream.ts";
import { checkSide, decodeOptions, encodeOptions } from "./options.ts";
import {
  type AddedToken,
  AddedTokenFinder,
  cleanUp,
  type Decoder,
  makeDecoder,
  makeNormalizer,
  makePostProcessor,
  makePreTokenizer,
  type Normalizer,
  type PostProcessor,
  type PreTokenizer,
} from "./pipeline.ts";
import { resolveFiles } from "./tokenizer_files.ts";
import type { DecodeOptions, EncodeOptions, Encoding, Side, TokenizerFiles } from "./types.ts";
import { type Model, makeModel, modelType } from "./vocabulary_model.ts";

/** Keys of tokenizer_config.json that Hugging Face's processor uses as defaults, for both tokenizers. */
const PROCESSOR_KEYS = ["padding", "truncation", "max_length", "pad_to_multiple_of", "padding_side"] as const;
/** transformers' LARGE_INTEGER: a model_max_length above it means there is none. */
const NO_LENGTH = 1e20;
/** Longest prompt, in UTF-16 units. No context is nearly as long; it limits the time of a prompt. */
export const MAX_CHARACTERS = 2 ** 18;
/** Longest text of a step: BERT puts two spaces around every Chinese character. */
const MOST_NORMALIZED = 8 * MAX_CHARACTERS;
/** Work of all steps together, in characters and tokens; a full prompt with T5 takes a tenth. */
const MOST_WORK = 128 * MAX_CHARACTERS;
/** Longest decoded text, in UTF-16 units. */
const MOST_DECODED = 2 ** 24;
/** Most ids of a padded batch. */
const MOST_PADDED = 2 ** 24;

/** A tokenizer loaded from its files. */
export class Tokenizer {
  /** "BertTokenizer", "LlamaTokenizer", … without "Fast"; "" if the files do not say. */
  readonly tokenizer_class: string;
  padding_side: Side;
  truncation_side: Side;
  /** In tokens; above 1e20 if there is no limit. */
  readonly model_max_length: number;
  readonly clean_up_tokenization_spaces: boolean;
  /** The files' values of {@link PROCESSOR_KEYS}, which the processor passes to both tokenizers. */
  readonly processor_defaults: Readonly<Pick<EncodeOptions, (typeof PROCESSOR_KEYS)[number]>>;
  /** bos_token, pad_token, image_token, … if they exist. */
  readonly special_tokens_map: Readonly<Record<string, string>>;

  /** Its files, for {@link save_pretrained}, and tokens that were added later. */
  private readonly files: TokenizerFiles;
  private readonly later: (AddedToken & { id: number })[] = [];
  private readonly model: Model;
  private readonly cleans: boolean;
  private readonly normalize: Normalizer;
  private readonly preTokenize: PreTokenizer;
  private readonly post: PostProcessor;
  private readonly decodeTokens: Decoder;
  private readonly byteFallback: boolean;
  private readonly added = new Map<string, AddedToken>();
  private readonly addedIds = new Map<string, number>();
  private highestAdded = -1;
  private readonly tokens = new Map<number, string>();
  private asGiven!: AddedTokenFinder;
  private afterNormalizing!: AddedTokenFinder;

  /**
   * @param where for messages: the folder the files are from
   * @throws ConfigError TOKENIZER_MISSING, TOKENIZER_BAD, TOKENIZER_UNSUPPORTED, TOKENIZER_CHARSMAP, TOKENIZER_CLASS
   */
  constructor(files: TokenizerFiles, where = "tokenizer") {
    const { family, name, init, json } = resolveFiles(files, where);
    this.files = files;
    this.tokenizer_class = name;
    const parts = family ? { ...json, ...family.parts(json, init) } : json;
    this.model = makeModel(parts.model);
    this.normalize = makeNormalizer(parts.normalizer);
    this.preTokenize = makePreTokenizer(parts.pre_tokenizer);
    const decoder = makeDecoder(parts.decoder);
    this.decodeTokens = decoder.decode;
    this.byteFallback = decoder.byteFallback;
    for (const [token, id] of this.model.vocab) this.tokens.set(id, token);

    if (init.split_special_tokens === true) {
      throw new ConfigError("TOKENIZER_UNSUPPORTED", `${where}: split_special_tokens is not supported`);
    }
    // Transformers' own classes start from the vocabulary alone, and read added tokens from the configs.
    if (!family) for (const token of addedTokensOf(json)) this.add(token, token.id);
    const named = namedTokens(init, family);
    const names = new Set(named.map(([, token]) => token.content));
    for (const [id, token] of [...addedTokensDecoder(files, json)].sort(([a], [b]) => a - b)) {
      // A named token of a config is special, whatever its flag; one with equal flags in tokenizer.json is unchanged.
      if (!same(token, this.added.get(token.content))) {
        this.add({ ...token, special: token.special || names.has(token.content) }, id);
      }
    }
    for (const [, token] of named) if (!this.added.has(token.content)) this.add(token);
    this.special_tokens_map = Object.fromEntries(named.map(([key, token]) => [key, token.content]));
    for (const token of extraTokens(init, name)) if (!this.added.has(token.content)) this.add(token);
    this.refresh();

    this.post = family?.post?.((key) => this.requireId(key)) ?? makePostProcessor(parts.post_processor);
    this.padding_side = sideOf(init, "padding_side", family?.padding_side ?? "right");
    this.truncation_side = sideOf(init, "truncation_side", "right");
    const limit = init.model_max_length ?? init.max_len;
    this.model_max_length = typeof limit === "number" && limit > 0 ? limit : 1e30;
    this.clean_up_tokenization_spaces = init.clean_up_tokenization_spaces === true;
    // transformers 5 does not clean up BPE: there a space before a full stop was in the text.
    this.cleans =
      modelType(parts.model as JsonRecord) !== "BPE" ||
      init.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output === true;
    this.processor_defaults = Object.fromEntries(
      PROCESSOR_KEYS.filter((key) => (init[key] ?? null) !== null).map((key) => [key, init[key]]),
    );
  }

  /**
   * Reads tokenizer.json and the configs beside it, or the vocab.txt of an old BERT.
   *
   * @param subfolder such as `qformer_tokenizer`
   * @throws ConfigError TOKENIZER_MISSING, TOKENIZER_JSON and those of the constructor; WeightError BAD_UTF8
   */
  static async from_pretrained(folder: Folder, subfolder = ""): Promise<Tokenizer> {
    const at = (file: string) => (subfolder === "" ? file : `${subfolder}/${file}`);
    const json = (file: string) => JsonFolder.of(folder).json(at(file));
    const files: TokenizerFiles = {
      tokenizer: await json("tokenizer.json"),
      config: await json("tokenizer_config.json"),
      special_tokens_map: await json("special_tokens_map.json"),
      added_tokens: await json("added_tokens.json"),
    };
    if (!files.tokenizer && (await folder.has(at("vocab.txt")))) files.vocab = await folder.text(at("vocab.txt"));
    if (!files.tokenizer && files.vocab === undefined) {
      const other = await Promise.all(
        ["tokenizer.model", "spiece.model", "vocab.json"].map((file) => folder.has(at(file))),
      );
      throw new ConfigError("TOKENIZER_MISSING", `${folder.name}: no ${at("tokenizer.json")}`, {
        hint: other.includes(true)
          ? "only the old vocabulary is there; AutoTokenizer.from_pretrained(…).save_pretrained(…) makes a tokenizer.json"
          : subfolder === "qformer_tokenizer"
            ? "the Q-Former has a tokenizer of its own in this folder"
            : undefined,
      });
    }
    return new Tokenizer(files, subfolder === "" ? folder.name : subfolder);
  }

  get pad_token_id(): number | undefined {
    return this.idOfNamed("pad_token");
  }
  get bos_token_id(): number | undefined {
    return this.idOfNamed("bos_token");
  }
  get eos_token_id(): number | undefined {
    return this.idOfNamed("eos_token");
  }
  get unk_token_id(): number | undefined {
    return this.idOfNamed("unk_token");
  }

  /** The number of tokens, added ones included: Hugging Face's `len(tokenizer)`. */
  get length(): number {
    return this.tokens.size;
  }

  /** One more than the highest id: the rows that an embedding needs. */
  get rows(): number {
    let top = -1;
    for (const id of this.tokens.keys()) top = Math.max(top, id);
    return top + 1;
  }

  convert_tokens_to_ids(token: string): number | undefined {
    return this.addedIds.get(token) ?? this.model.vocab.get(token) ?? this.unk_token_id;
  }

  convert_ids_to_tokens(id: number): string | undefined {
    return this.tokens.get(id);
  }

  /** Whether this exact text is an added token. */
  hasAddedToken(content: string): boolean {
    return this.added.has(content);
  }

  /** Adds a special token, with a new id unless the vocabulary has it. Returns its id. */
  addSpecialToken(content: string): number {
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    this.add({ content, ...flags });
    this.refresh();
    const id = this.addedIds.get(content)!;
    this.later.push({ content, ...flags, id });
    return id;
  }

  /**
   * Writes the files it was read from, with changed tokens and settings: transformers 4 and 5 read them as they read the
   * originals.
   *
   * @param to a path (Node), made if it is not there, or a WritableFolder
   * @param options `processor_class` is written to tokenizer_config.json; `subfolder` is a folder in `to`
   * @throws WeightError IO; InputError NO_FILES
   */
  async save_pretrained(
    to: string | WritableFolder,
    { processor_class, subfolder = "" }: { processor_class?: string; subfolder?: string } = {},
  ): Promise<void> {
    const folder = await createFolder(to);
    const { files, old } = this.toFiles({ processor_class, subfolder });
    await writeTogether(folder, files, old);
  }

  /** The files that {@link save_pretrained} writes, and those that it removes: two lists for `writeTogether`. */
  toFiles({ processor_class, subfolder = "" }: { processor_class?: string; subfolder?: string } = {}): {
    files: NewFile[];
    old: string[];
  } {
    const { tokenizer, config = {}, special_tokens_map, added_tokens, vocab } = this.files;
    const current: JsonRecord = { ...config, ...(processor_class !== undefined && { processor_class }) };
    // As in Hugging Face, a side that no file has is not written: the processor would pass it to both tokenizers.
    for (const key of ["padding_side", "truncation_side"] as const) if (key in config) current[key] = this[key];
    const flagsOf = ({ id: _, ...flags }: AddedToken & { id: number }) => flags;
    if (config.added_tokens_decoder !== undefined) {
      const listed = this.later.map((token) => [String(token.id), flagsOf(token)]);
      current.added_tokens_decoder = { ...(config.added_tokens_decoder as JsonRecord), ...Object.fromEntries(listed) };
    }
    const later = this.later.map((token) => ({ id: token.id, ...flagsOf(token) }));
    const at = (file: string) => (subfolder === "" ? file : `${subfolder}/${file}`);
    // A tokenizer needs one of the last two.
    const texts: Record<string, string | undefined> = {
      "tokenizer_config.json": jsonText(current, { sorted: true }),
      "special_tokens_map.json": special_tokens_map && jsonText(special_tokens_map, { sorted: true }),
      "added_tokens.json": added_tokens && jsonText(added_tokens),
      "vocab.txt": vocab,
      "tokenizer.json":
        tokenizer &&
        jsonText({
          ...tokenizer,
          added_tokens: [...addedTokensOf(tokenizer), ...later].sort((a, b) => a.id - b.id),
        }),
    };
    const files = Object.entries(texts).flatMap(([file, text]) => (text === undefined ? [] : textFile(at(file), text)));
    return { files, old: Object.keys(texts).reverse().map(at) };
  }

  /**
   * One text to ids, without padding.
   *
   * @throws InputError BAD_PROMPT, TOKENIZER_UNKNOWN, TOKENIZER_LENGTH, TOKENIZER_OPTION
   */
  encode(text: string, options?: EncodeOptions, ...more: never[]): number[] {
    const given = encodeOptions("encode", [options, ...more]);
    return this.encode_batch([text], { ...given, padding: false }).input_ids[0]!;
  }

  /**
   * Texts to ids: Hugging Face's `tokenizer([...], **options)`. Lone surrogates count as U+FFFD.
   *
   * @throws InputError BAD_PROMPT (not strings, or too long), TOKENIZER_UNKNOWN (a character the vocabulary cannot write),
   *   TOKENIZER_LENGTH (no room for the special tokens), TOKENIZER_PAD (no padding token), TOKENIZER_OPTION, UNKNOWN_OPTION
   */
  encode_batch(texts: readonly string[], given?: EncodeOptions, ...more: never[]): Encoding {
    const options = encodeOptions("encode_batch", [given, ...more]);
    if (!Array.isArray(texts))
      throw new InputError("BAD_PROMPT", `texts must be a list of strings, got ${shown(texts)}`);
    const { truncateTo, padTo } = this.strategy(options);
    const { prefix, suffix } = options.add_special_tokens === false ? { prefix: [], suffix: [] } : this.post;
    const room = truncateTo - prefix.length - suffix.length;
    if (room < 0) {
      throw new InputError(
        "TOKENIZER_LENGTH",
        `max_length ${truncateTo} leaves no room for the ${prefix.length + suffix.length} special tokens`,
      );
    }
    const side = checkSide(options.truncation_side ?? this.truncation_side, "truncation_side");
    const input_ids = texts.map((text, i) => {
      const ids = this.idsOf(text, texts.length > 1 ? `text ${i}` : "text");
      const kept = ids.length <= room ? ids : side === "right" ? ids.slice(0, room) : ids.slice(ids.length - room);
      return [...prefix, ...kept, ...suffix];
    });
    const attention_mask = input_ids.map((row) => row.map(() => 1));
    if (padTo === null) return { input_ids, attention_mask };

    const longest = input_ids.reduce((most, row) => Math.max(most, row.length), 0);
    let length = padTo === "longest" ? longest : padTo;
    const multiple = options.pad_to_multiple_of;
    if (multiple) length = Math.ceil(length / multiple) * multiple;
    if (length * texts.length > MOST_PADDED) {
      const message = `padding to ${length} tokens makes more than ${MOST_PADDED} ids of ${texts.length} texts`;
      throw new InputError("TOKENIZER_LENGTH", message, {
        hint: "max_length and pad_to_multiple_of are options, or in tokenizer_config.json or tokenizer.json",
      });
    }
    const left = checkSide(options.padding_side ?? this.padding_side, "padding_side") === "left";
    const pad = (row: number[], value: number) => {
      const padding = new Array<number>(Math.max(0, length - row.length)).fill(value);
      return left ? [...padding, ...row] : [...row, ...padding];
    };
    return {
      input_ids: input_ids.map((row) => pad(row, this.pad_token_id!)),
      attention_mask: attention_mask.map((row) => pad(row, 0)),
    };
  }

  /**
   * Ids to text. Ids without a token are dropped, as in Hugging Face: a model may have more rows than its tokenizer.
   *
   * @throws InputError TOKENIZER_ID, TOKENIZER_OPTION, UNKNOWN_OPTION, ARGUMENTS
   */
  decode(ids: Iterable<number | bigint>, options?: DecodeOptions, ...more: never[]): string {
    return this.#decode(ids, decodeOptions("decode", [options, ...more]));
  }

  /** {@link decode} of every row. */
  batch_decode(rows: Iterable<Iterable<number | bigint>>, options?: DecodeOptions, ...more: never[]): string[] {
    const given = decodeOptions("batch_decode", [options, ...more]);
    if (!isIterable(rows)) throw new InputError("TOKENIZER_ID", `rows must be lists of token ids, got ${shown(rows)}`);
    return Array.from(rows, (row) => this.#decode(row, given));
  }

  #decode(ids: Iterable<number | bigint>, options: DecodeOptions): string {
    const text = this.textOf(this.tokensOf(ids, options.skip_special_tokens === true));
    return this.cleaning(options) ? cleanUp(text) : text;
  }

  /** Incremental decoding during generation; the concatenated text is {@link decode} of all ids. */
  decodeStream(given?: DecodeOptions, ...more: never[]): DecodeStream {
    const options = decodeOptions("decodeStream", [given, ...more]);
    const skip = options.skip_special_tokens === true;
    return new DecodeStream({
      tokensOf: (id) => this.tokensOf([id], skip),
      textOf: (tokens) => this.textOf(tokens),
      byteFallback: this.byteFallback,
      cleans: this.cleaning(options),
    });
  }

  private cleaning(options: DecodeOptions): boolean {
    return this.cleans && (options.clean_up_tokenization_spaces ?? this.clean_up_tokenization_spaces);
  }

  private tokensOf(ids: Iterable<number | bigint>, skipSpecial: boolean): string[] {
    const tokens: string[] = [];
    if (!isIterable(ids)) throw new InputError("TOKENIZER_ID", `token ids must be a list, got ${shown(ids)}`);
    for (const value of ids as Iterable<unknown>) {
      const id = typeof value === "bigint" ? Number(value) : value;
      if (typeof id !== "number" || !Number.isInteger(id) || id < 0) {
        const hint = isIterable(value) ? "batch_decode takes rows of ids" : undefined;
        throw new InputError("TOKENIZER_ID", `a token id must be a whole number from 0, got ${shown(value)}`, { hint });
      }
      const token = this.tokens.get(id);
      if (token !== undefined && !(skipSpecial && this.added.get(token)?.special)) tokens.push(token);
    }
    return tokens;
  }

  private textOf(tokens: string[]): string {
    const budget = new Budget("these ids", MOST_DECODED, 8 * MOST_DECODED);
    budget.grow(tokens.reduce((sum, token) => sum + token.length + 1, 0));
    return this.decodeTokens(tokens, budget).join("");
  }

  /** Ids of one text, special tokens in it included, without those around it. */
  private idsOf(text: string, name: string): number[] {
    if (typeof text !== "string") {
      throw new InputError("BAD_PROMPT", `${name} must be a string, got ${text === null ? "null" : typeof text}`);
    }
    if (text.length > MAX_CHARACTERS) {
      throw new InputError("BAD_PROMPT", `${name} has ${text.length} characters, the limit is ${MAX_CHARACTERS}`);
    }
    const ids: number[] = [];
    const wellFormed = text.replace(/\p{Cs}/gu, "\ufffd");
    const budget = new Budget(name, MOST_NORMALIZED, MOST_WORK);
    for (const section of this.asGiven.split(wellFormed)) {
      if (section.token) {
        ids.push(this.addedIds.get(section.token.content)!);
        continue;
      }
      for (const part of this.afterNormalizing.split(this.normalize(section.text, budget))) {
        if (part.token) ids.push(this.addedIds.get(part.token.content)!);
        else this.encodePlain(part.text, section.start === 0 && part.start === 0, name, budget, ids);
      }
    }
    return ids;
  }

  private encodePlain(text: string, first: boolean, name: string, budget: Budget, ids: number[]): void {
    for (const piece of this.preTokenize([{ text, first }], budget)) {
      for (const id of this.model.encode(piece.text, budget)) {
        if (id === undefined) {
          throw new InputError("TOKENIZER_UNKNOWN", `${name} has a character that the vocabulary cannot write`, {
            hint: "the vocabulary has neither byte tokens nor the unknown token it names",
          });
        }
        ids.push(id);
      }
    }
  }

  /** Hugging Face's `_get_padding_truncation_strategies`. */
  private strategy(options: EncodeOptions): { truncateTo: number; padTo: number | "longest" | null } {
    const refuse = (key: string, must: string, value: unknown) =>
      new InputError("TOKENIZER_OPTION", `${key} must be ${must}, got ${shown(value)}`);
    const { padding = false, pad_to_multiple_of: multiple } = options;
    let { truncation, max_length } = options;
    for (const [key, value] of Object.entries({ max_length, pad_to_multiple_of: multiple })) {
      if (value !== undefined && value !== null && !(Number.isInteger(value) && value >= 0)) {
        throw refuse(key, "a whole number", value);
      }
    }
    if (![true, false, "longest", "max_length", "do_not_pad"].includes(padding)) {
      throw refuse("padding", 'true, false, "longest", "max_length" or "do_not_pad"', padding);
    }
    max_length ??= undefined;
    truncation ??= undefined;
    if (max_length !== undefined && padding === false && truncation === undefined) truncation = true;
    if (![true, false, undefined, "longest_first", "only_first", "do_not_truncate"].includes(truncation)) {
      throw refuse("truncation", 'true, false, "longest_first", "only_first" or "do_not_truncate"', truncation);
    }
    const limit = max_length ?? (this.model_max_length > NO_LENGTH ? Number.POSITIVE_INFINITY : this.model_max_length);
    const truncates = truncation !== undefined && truncation !== false && truncation !== "do_not_truncate";
    const truncateTo = truncates ? limit : Number.POSITIVE_INFINITY;
    const toLimit = padding === "max_length" ? (Number.isFinite(limit) ? limit : null) : null;
    const padTo = padding === true || padding === "longest" ? "longest" : toLimit;
    if (padTo !== null && this.pad_token_id === undefined) {
      throw new InputError("TOKENIZER_PAD", "padding was requested, but the tokenizer has no padding token");
    }
    if (Number.isFinite(truncateTo) && padTo !== null && multiple && truncateTo % multiple !== 0) {
      throw refuse("max_length", `a multiple of pad_to_multiple_of (${multiple}) when both are given`, truncateTo);
    }
    return { truncateTo, padTo };
  }

  private idOfNamed(key: string): number | undefined {
    const token = this.special_tokens_map[key];
    return token === undefined ? undefined : (this.addedIds.get(token) ?? this.model.vocab.get(token));
  }

  private requireId(key: string): number {
    const id = this.idOfNamed(key);
    if (id !== undefined) return id;
    throw new ConfigError(
      "TOKENIZER_BAD",
      `tokenizer_config.json: ${key} must be a token, ${this.tokenizer_class} adds it`,
    );
  }

  /** Rust's add_tokens: the vocabulary's id if it has one, else the next free; later flags override. */
  private add(token: AddedToken, expected?: number): void {
    if (token.content === "") throw new ConfigError("TOKENIZER_BAD", "an added token is empty");
    let id = this.addedIds.get(token.content) ?? this.model.vocab.get(token.content);
    if (id === undefined) {
      // The next id follows the highest added one or the vocabulary's size, even if that has gaps.
      id = Math.max(this.highestAdded + 1, this.model.vocab.size);
    }
    if (expected !== undefined && expected !== id) {
      throw new ConfigError("TOKENIZER_BAD", `added token ${quote(token.content)} has id ${expected}, must be ${id}`, {
        hint: "added tokens follow the vocabulary without a gap",
      });
    }
    this.added.set(token.content, token);
    this.addedIds.set(token.content, id);
    this.highestAdded = Math.max(this.highestAdded, id);
    this.tokens.set(id, token.content);
  }

  private refresh(): void {
    const all = [...this.added.values()];
    this.asGiven = new AddedTokenFinder(all.filter((token) => !token.normalized).map((t) => [t.content, t]));
    const budget = new Budget("the added tokens", MOST_NORMALIZED, MOST_WORK);
    this.afterNormalizing = new AddedTokenFinder(
      all.filter((token) => token.normalized).map((t) => [this.normalize(t.content, budget), t]),
    );
  }
}

const isIterable = (value: unknown): value is Iterable<unknown> =>
  typeof value === "object" && value !== null && Symbol.iterator in value;

function sideOf(init: JsonRecord, key: string, fallback: Side): Side {
  const side = init[key] ?? fallback;
  if (side === "left" || side === "right") return side;
  throw new ConfigError("TOKENIZER_BAD", `tokenizer_config.json: ${key} must be "left" or "right", got ${shown(side)}`);
}
