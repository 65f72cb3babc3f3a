/**
 * The base class of Hugging Face's three processors: images and text to model inputs, which are pixels, the instruction in
 * the Q-Former's vocabulary, and the prompt in the language model's vocabulary with a placeholder for every query in front.
 * The differences between them, family and traits, are in the file of each.
 *
 * Source: transformers 5.18, models/{instructblip,blip_2,instructblipvideo}/processing_*.py and processing_utils.py
 * (_merge_kwargs).
 */
import { optionsOf, refuseMore, refuseUnknown } from "../../tensor/arguments.ts";
import { callable } from "../../tensor/callable.ts";
import { InputError } from "../../tensor/errors.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import { shown } from "../../tensor/shown.ts";
import { numQueryTokens } from "../config/config.ts";
import type { Family } from "../config/families.ts";
import type { JsonRecord } from "../config/json_file.ts";
import type { PretrainedFrom } from "../pretrained/from_pretrained.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { DecodeOptions, EncodeOptions, Encoding } from "../tokenizer/types.ts";
import { BlipImageProcessor } from "./image_processor.ts";
import {
  openProcessor,
  type ProcessorFromPretrainedOptions,
  readPixelProcessor,
  readQueryCount,
  requireQueryCount,
  saveProcessor,
} from "./processor_files.ts";
import {
  encodePrompts,
  type ImageInput,
  type ProcessorOptions,
  pixelsOf,
  placeholderOf,
  refusePlaceholder,
  refuseRagged,
  requestOf,
  rowsOfImages,
} from "./processor_input.ts";
import { encodeInstructions, encodeInterleaved, interleaved } from "./several_images.ts";

/** The differences between processors, besides their family's names. */
export interface ProcessorTraits {
  /** Whether the Q-Former reads the prompt too, with its own tokenizer. */
  readonly has_qformer_tokenizer: boolean;
  /** Whether padding_side and other settings of tokenizer_config.json are defaults of calls, for both tokenizers. */
  readonly has_tokenizer_defaults: boolean;
  /** Whether images are refused if no file has the number of placeholders, instead of getting none. */
  readonly requires_query_count: boolean;
}

/** The call of a processor: with options, in one object or in two. */
export interface ProcessorCall<Input, Feature> {
  (
    input: Input & { images: object | string; text: string | readonly string[] },
    options?: ProcessorOptions,
    ...more: never[]
  ): Promise<Feature>;
  (
    input: Input & { images: object | string },
    options?: Input,
    ...more: never[]
  ): Promise<Partial<Feature> & Pick<Feature, "pixel_values" & keyof Feature>>;
  (input: Input, options?: Input, ...more: never[]): Promise<Partial<Feature>>;
}

/** A class of callable objects: `processor(input)` is `processor.process(input)`. */
const Callable = callable("process") as abstract new <Input, Feature>() => ProcessorCall<Input, Feature>;

/** The interface of a processor class for from_pretrained(). */
interface ProcessorClass<P, Parts> {
  readonly family: Family;
  readonly traits: ProcessorTraits;
  new (parts: Parts): P;
}

/** The parts of processors, by Hugging Face's names. */
interface AnyParts {
  readonly image_processor?: BlipImageProcessor;
  readonly video_processor?: BlipImageProcessor;
  readonly tokenizer?: Tokenizer;
  readonly qformer_tokenizer?: Tokenizer;
  readonly num_query_tokens?: number | null;
}

/** The outputs of processors. */
interface AnyFeature {
  qformer_input_ids: number[][];
  qformer_attention_mask: number[][];
  input_ids: number[][];
  attention_mask: number[][];
  pixel_values: { data: Float32Array; shape: number[] };
}

/**
 * A processor is called: `await processor({ images: ["photo.jpg"], text: ["What is this?"] })`.
 *
 * @typeParam Input arguments of a call
 * @typeParam Feature its output
 * @typeParam Parts its parts
 */
export abstract class ProcessorBase<Input, Feature, Parts = never> extends Callable<Input, Feature> {
  abstract readonly processor_class: string;
  /** Names of the outputs, which are the model's inputs. */
  readonly model_input_names: readonly string[];
  /** The language model's. */
  readonly tokenizer: Tokenizer;
  /** Placeholders per image: none for a legacy model. Null if neither the processor's files nor the model's have it. */
  readonly num_query_tokens: number | null;
  /** The image processor. */
  protected readonly pixels: BlipImageProcessor;
  /** The Q-Former's tokenizer, if it has one. */
  protected readonly qformer: Tokenizer | undefined;
  /** The placeholder's text. */
  protected readonly placeholder: string;
  readonly #kind: Pick<Family, "modality"> & ProcessorTraits;

  /** @throws InputError BAD_INPUT, UNKNOWN_OPTION, ARGUMENTS; ConfigError CONFIG_RANGE */
  constructor(parts: Parts) {
    super();
    const { family, traits } = new.target as unknown as ProcessorClass<unknown, Parts>;
    const { processor_class, modality } = family;
    const { has_qformer_tokenizer } = traits;
    const pixels = `${modality}_processor` as const;
    const tokenizers = has_qformer_tokenizer ? (["tokenizer", "qformer_tokenizer"] as const) : (["tokenizer"] as const);
    const given = optionsOf(processor_class, [parts], 1) as AnyParts;
    refuseUnknown(processor_class, given, [pixels, ...tokenizers, "num_query_tokens"]);
    const part = <T>(name: keyof AnyParts, Part: new (...more: never) => T): T => {
      const value: unknown = given[name];
      if (value instanceof Part) return value;
      throw new InputError("BAD_INPUT", `${processor_class}: ${name} is needed, got ${shown(value)}`, {
        hint: "take that of another processor, which from_pretrained() makes",
      });
    };
    this.#kind = { modality, ...traits };
    this.pixels = part(pixels, BlipImageProcessor);
    this.tokenizer = part("tokenizer", Tokenizer);
    this.qformer = has_qformer_tokenizer ? part("qformer_tokenizer", Tokenizer) : undefined;
    const count = given.num_query_tokens ?? null;
    this.num_query_tokens = count === null || count === 0 ? count : numQueryTokens(count, "num_query_tokens");
    this.placeholder = placeholderOf(this.tokenizer, modality);
    const words = has_qformer_tokenizer ? ["qformer_input_ids", "qformer_attention_mask"] : [];
    this.model_input_names = ["input_ids", "attention_mask", "pixel_values", ...words];
  }

  /**
   * Reads the processor's files of a checkpoint folder: transformers 5's processor_config.json, or 4's
   * preprocessor_config.json (for videos video_preprocessor_config.json before that), tokenizer.json, and
   * qformer_tokenizer/ if the Q-Former reads text.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError, WeightError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION; the signal's reason
   */
  static async from_pretrained<P, Parts>(
    this: ProcessorClass<P, Parts>,
    from: PretrainedFrom,
    options: ProcessorFromPretrainedOptions = {},
  ): Promise<P> {
    // biome-ignore lint/complexity/noThisInStatic: the class it is called on is the one to make
    const [Class, { modality }, { has_qformer_tokenizer }] = [this, this.family, this.traits];
    const { folder, pixels } = await openProcessor(from, options);
    const num_query_tokens = await readQueryCount(folder);
    return new Class({
      [`${modality}_processor`]: await readPixelProcessor(folder, modality, pixels),
      tokenizer: await Tokenizer.from_pretrained(folder),
      ...(has_qformer_tokenizer && { qformer_tokenizer: await Tokenizer.from_pretrained(folder, "qformer_tokenizer") }),
      num_query_tokens,
    } as Parts);
  }

  /**
   * Processes images and text, as a call of the processor does. Everything but files is copied before the promise is
   * returned.
   */
  protected async process(...given: unknown[]): Promise<Partial<Feature>> {
    const { tokenizer, qformer, num_query_tokens, placeholder: token } = this;
    const { modality, has_tokenizer_defaults, requires_query_count } = this.#kind;
    const { rows, prompts, ...request } = requestOf(given, (images) => this.rowsOf(images));
    const perRow = rows?.[0]?.length ?? 0;
    const feature: Partial<AnyFeature> = {};
    if (prompts) {
      // So padding_side applies to the Q-Former, too: left-padded text has other positions there.
      const options: EncodeOptions = { ...(has_tokenizer_defaults && tokenizer.processor_defaults), ...request.text };
      let words: Encoding | undefined;
      let prompt: Encoding;
      if (rows && request.several && modality === "image") {
        const queries = requireQueryCount(num_query_tokens);
        const all = prompts.map((text, b) => interleaved(text, token, rows[b]!.length, b));
        words = qformer && encodeInstructions(qformer, all, request.text);
        prompt = encodeInterleaved(tokenizer, all, options, { queries, token });
      } else {
        if (!request.allow_image_token) refusePlaceholder(prompts, token);
        words = qformer?.encode_batch(prompts, options);
        // The queries count towards the language model's max_length, not the Q-Former's; for a video those of one frame, as in
        // Hugging Face.
        const queries = num_query_tokens ?? 0;
        const count = perRow && perRow * (requires_query_count ? requireQueryCount(num_query_tokens) : queries);
        prompt = encodePrompts(tokenizer, prompts, options, { queries, token, count });
      }
      refuseRagged(...(words ? [words.input_ids] : []), prompt.input_ids);
      if (words) {
        feature.qformer_input_ids = words.input_ids;
        feature.qformer_attention_mask = words.attention_mask;
      }
      feature.input_ids = prompt.input_ids;
      feature.attention_mask = prompt.attention_mask;
    }
    if (rows) {
      const { data, shape } = await pixelsOf(this.pixels, rows.flat(), request.image, request.exif_transpose);
      feature.pixel_values = { data, shape: modality === "video" ? [rows.length, perRow, ...shape.slice(1)] : shape };
    }
    return feature as Partial<Feature>;
  }

  /** The images of every row, for any form of `images`: the same number in each. @throws InputError BAD_PIXELS */
  protected rowsOf(images: unknown): readonly (readonly ImageInput[])[] {
    return rowsOfImages(images);
  }

  /** The image processor's entry in processor_config.json. */
  protected savedPixels(): JsonRecord {
    return this.pixels.toJSON();
  }

  /** A row of ids to text. @throws InputError TOKENIZER_ID, TOKENIZER_OPTION, UNKNOWN_OPTION, ARGUMENTS */
  decode(ids: Iterable<number | bigint>, options?: DecodeOptions, ...more: never[]): string {
    return this.tokenizer.decode(ids, options, ...more);
  }

  /** Rows of ids to texts. */
  batch_decode(rows: Iterable<Iterable<number | bigint>>, options?: DecodeOptions, ...more: never[]): string[] {
    return this.tokenizer.batch_decode(rows, options, ...more);
  }

  /** Decodes rows returned by generate(), without special tokens. */
  post_process_image_text_to_text(
    rows: Iterable<Iterable<number | bigint>>,
    options: DecodeOptions = {},
    ...more: never[]
  ): string[] {
    const isObject = typeof options === "object" && options !== null;
    return this.tokenizer.batch_decode(rows, isObject ? { skip_special_tokens: true, ...options } : options, ...more);
  }

  /**
   * Writes the processor's files as transformers 5 does, for from_pretrained of either.
   *
   * @param to a path (Node), created if needed, or a WritableFolder
   * @throws WeightError IO; InputError NO_FILES
   */
  async save_pretrained(to: string | WritableFolder, ...more: never[]): Promise<void> {
    refuseMore("save_pretrained", more, 0, 1);
    const { processor_class, tokenizer, qformer, num_query_tokens } = this;
    const pixels = { [`${this.#kind.modality}_processor`]: this.savedPixels() };
    await saveProcessor(to, { processor_class, pixels, num_query_tokens, tokenizer, qformer_tokenizer: qformer });
  }
}
