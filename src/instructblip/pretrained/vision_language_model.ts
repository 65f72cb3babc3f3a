/**
 * What InstructBLIP and its siblings share: loading a checkpoint, putting image features into a prompt, and writing an
 * answer. How a picture becomes image features, and what is given besides it, is each model's own; so is its forward().
 *
 * B rows, Q image features a row, L prompt tokens with the placeholders, D hidden size, V vocabulary.
 * Source: Li et al. 2023, BLIP-2, figure 3; transformers 5.18, modeling_instructblip.py.
 */
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { firstNotFinite, observeStates, type StateOptions, withObserver } from "../../modules/observer.ts";
import { CACHE_DTYPES, type CacheDType, readStorage } from "../../modules/storage_dtype.ts";
import type { WeightCache } from "../../modules/weight_cache.ts";
import { type LoadOptions, Weights } from "../../modules/weights.ts";
import { optionsOf, refuseUnknown } from "../../tensor/arguments.ts";
import type { Call } from "../../tensor/device/call.ts";
import { Device, type Observer, openDevice } from "../../tensor/device/device.ts";
import { EngineError, InputError, NumericError, WeightError } from "../../tensor/errors.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import { Checkpoint } from "../../tensor/files/safetensors.ts";
import { argmax } from "../../tensor/ops/argmax.ts";
import { editScores } from "../../tensor/ops/edit_scores.ts";
import { logSoftmax } from "../../tensor/ops/log_softmax.ts";
import { maskedScatter } from "../../tensor/ops/masked_scatter.ts";
import { topK } from "../../tensor/ops/top_k.ts";
import { shown } from "../../tensor/shown.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { TextConfig, VisionLanguageConfig } from "../config/config.ts";
import { fixVicunaTokenIds } from "../config/vicuna.ts";
import { decodingConfig, type GenerationOptions, refuseUnknownOptions } from "../generation/configuration.ts";
import type { Decoder, Likeliest, Recorded } from "../generation/decoder.ts";
import { type NegativePrompt, negativePrompt, type Unconditional } from "../generation/guidance.ts";
import { ScoresError } from "../generation/numerics.ts";
import type { GenerateOutput } from "../generation/output.ts";
import {
  padLeft,
  RANK_OPTIONS,
  type RankedAnswers,
  type RankOptions,
  rankAnswers,
  readRankOptions,
} from "../generation/ranking.ts";
import { search } from "../generation/search.ts";
import type { TokenTexts } from "../generation/stopping.ts";
import type { Streamer } from "../generation/streamer.ts";
import { type WarningListener, Warnings } from "../generation/warnings.ts";
import {
  type Decoding,
  type EmbeddedPrompt,
  type Ids,
  type LanguageModel,
  type LanguageModelOutput,
  type LanguageModelStates,
  upload,
} from "../model/language_model.ts";
import { LlamaForCausalLM } from "../model/llama.ts";
import { expectLabels, meanLoss, nextTokens, shiftRight, tokenLosses } from "../model/loss.ts";
import { OPTForCausalLM } from "../model/opt.ts";
import type { QFormerOutput } from "../model/qformer.ts";
import { T5ForConditionalGeneration } from "../model/t5.ts";
import { InstructBlipVisionModel, type VisionOutput } from "../model/vision_model.ts";
import { openPretrained, type PretrainedFrom, readPretrainedOptions } from "./from_pretrained.ts";
import {
  expectIds,
  expectPixelShape,
  expectPlaceholders,
  expectRectangle,
  type ModelInputs,
  maskOf,
  NO_ID,
  type Prompt,
  refusePlaceholders,
} from "./inputs.ts";
import { otherCheckpoint, quantizationOf } from "./other_checkpoints.ts";
import { cacheFolder, type OpenFolderOptions } from "./platform.ts";
import { SAVE_OPTIONS, type SavePretrainedOptions, saveModel } from "./save_pretrained.ts";
import { refuseUnheeded } from "./unheeded_files.ts";

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface ImageFeatures {
  readonly vision_outputs: VisionOutput;
  readonly qformer_outputs: QFormerOutput;
  /** f32[B, Q, D]: the query outputs, projected into the language model's embeddings; of a video f32[B, F·Q, D] */
  readonly image_features: Tensor;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface VisionLanguageOutput extends ImageFeatures {
  /** With labels: the mean of what each costs, in nats; a number on the host, as nothing is trained with it. */
  readonly loss?: number;
  /** f32[B, L, V]; with T5 f32[B, T, V]; with logits_to_keep fewer tokens */
  readonly logits: Tensor;
  readonly language_model_outputs: LanguageModelOutput;
}

/** What forward() takes besides what the processor makes, by Hugging Face's names. */
export interface ForwardInputs extends StateOptions {
  /** With a language model that has a decoder of its own (T5): [B][T], decoder_start_token_id first. Default: from labels. */
  decoder_input_ids?: Ids;
  /** [B][L], -100 for what does not count: image, prompt, padding. Fewer are of the last tokens. T5: [B][T], the answer. */
  labels?: Ids;
  /** Logits of so many last tokens only; 0 (default): of all. */
  logits_to_keep?: number;
  /** Whether a loss that is NaN is an error. Default true; false gives it back, as PyTorch does. */
  check_numerics?: boolean;
}

export interface ForwardOptions {
  /** Sees what modules compute, under their checkpoint paths; see `outputObserver`. */
  observer?: Observer;
}

export interface GenerateOptions extends GenerationOptions {
  /** Is handed tokens as they are made: a TextIteratorStreamer, or any object with put() and end(). */
  streamer?: Streamer | null;
  /** What stop_strings are looked up with: the processor's tokenizer. */
  tokenizer?: TokenTexts | null;
  /** Stops, at the next token or while waiting for it; generate() then rejects with the signal's reason. */
  signal?: AbortSignal | null;
  /** Called after every token of the batch, counted from 0. */
  on_token?: ((step: number) => void) | null;
  /**
   * Hears what of this call has no effect and what is odd about it. Default: who hears the model's warnings, but each once.
   * null: nobody.
   */
  on_warning?: WarningListener | null;
}

export interface FromPretrainedOptions extends LoadOptions, OpenFolderOptions {
  /** Default: a device opened for this model, and destroyed with it. */
  device?: Device;
  /**
   * What matrices are stored as, all of them or by part: `{ vision_model: "f16", language_model: "int4" }`. Arithmetic is
   * f32 always. Default "auto": as in the checkpoint.
   */
  dtype?: NamedStorage;
  /** As dtype, Hugging Face's older name for it. */
  torch_dtype?: NamedStorage;
  /**
   * What keys and values of an answer's tokens are stored as: "f32" (default), or "f16" in half the memory, rounded to 11
   * bits. Heads that are no multiple of four numbers stay f32, which `warnings` then says. Arithmetic is f32 always.
   */
  cache_dtype?: CacheDType | "float32" | "float16";
  /**
   * Keeps int8 and int4 matrices in a file, so that the next start reads them instead of quantizing again: in this folder,
   * or for true in `instructblip-webgpu` in the user's cache folder. Default false.
   */
  cache?: boolean | string;
  /**
   * Gives Vicuna the special token ids of its tokenizer, eos and bos 2, pad 32000, in place of those in published configs,
   * with which no answer ends. Default false: the config's, as in Hugging Face.
   */
  fix_vicuna_token_ids?: boolean;
  /**
   * Hears, each once, what is odd but harmless about the checkpoint, and which of generate()'s options have no effect.
   * Default: console.warn. null: nobody.
   */
  on_warning?: WarningListener | null;
  /** Compiles what a first answer needs while the weights are read, rather than when it is asked for. Default true. */
  compile?: boolean;
}

/** A number type by any name that Hugging Face or this project has for it; see {@link readStorage}. */
type NamedStorage = Parameters<typeof readStorage>[0];

const MODEL_OPTIONS = Object.keys({
  device: 0,
  dtype: 0,
  torch_dtype: 0,
  cache_dtype: 0,
  cache: 0,
  fix_vicuna_token_ids: 0,
  compile: 0,
  on_progress: 0,
  on_warning: 0,
} satisfies Record<Exclude<keyof FromPretrainedOptions, keyof OpenFolderOptions>, 0>);

/**
 * Checks options and fills in defaults, before anything is opened.
 *
 * @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, DTYPE, BAD_INPUT
 */
export function readModelOptions(options: FromPretrainedOptions) {
  const { device, dtype, torch_dtype, cache_dtype, cache, fix_vicuna_token_ids, compile, ...open } =
    readPretrainedOptions(options, MODEL_OPTIONS);
  if (device && !(device instanceof Device)) {
    throw new InputError(
      "UNSUPPORTED_OPTION",
      `from_pretrained: device is one that openDevice() gave, got ${shown(device)}`,
      {
        hint: "leave it out: the model opens a WebGPU device for itself",
      },
    );
  }
  return {
    device: device ?? undefined,
    // In Hugging Face, too, dtype wins.
    dtype: readStorage(dtype ?? torch_dtype ?? "auto"),
    cache_dtype: readStorage(cache_dtype ?? "f32") as CacheDType,
    cache: cache ?? false,
    fix_vicuna_token_ids: fix_vicuna_token_ids ?? false,
    compile: compile ?? true,
    ...open,
  };
}

/** A model's class, as far as from_pretrained() needs it. */
interface ModelClass<C extends VisionLanguageConfig, M> {
  readonly config_class: { parse(text: string): C; new (given?: unknown): C };
  new (weights: Weights, config: C): M;
}

/** Names that old checkpoints carry and nothing reads. */
const IGNORED = [
  /^qformer\.embeddings\.position_ids$/,
  /\.rotary_emb\.inv_freq$/,
  /^language_model\.encoder\.embed_tokens\.weight$/, // shared's, if that is there too
  /^language_model\.decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$/,
];

const STATE_OPTIONS = ["output_hidden_states", "output_attentions"] satisfies (keyof StateOptions)[];
/** Of forward(), besides the inputs. */
const FORWARD_OPTIONS = [
  "decoder_input_ids",
  "labels",
  "logits_to_keep",
  "check_numerics",
  "observer",
  ...STATE_OPTIONS,
] satisfies (keyof ForwardInputs | keyof ForwardOptions)[];
/** Of generate(), besides the inputs and what says how to decode. */
const HOOKS = ["streamer", "tokenizer", "signal", "on_token", "on_warning"] satisfies (keyof GenerateOptions)[];
/** Hugging Face's forward() has them, and they change nothing here. */
const HARMLESS = ["return_dict", "use_cache"];

/** What a caller has that is called, or listened to, while the model is at work: by the methods it must have. */
const METHODS: Readonly<Record<string, readonly string[]>> = {
  streamer: ["put", "end"],
  tokenizer: ["encode", "decode", "convert_ids_to_tokens"],
  signal: ["throwIfAborted", "addEventListener"],
  observer: ["wants", "see"],
};

/** @throws InputError PARAM_RANGE unless callbacks can be called and flags are true or false */
function expectKinds(options: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    const bad = (must: string) => {
      throw new InputError("PARAM_RANGE", `${name} must be ${must}, got ${shown(value)}`);
    };
    const methods = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined;
    const has = (method: string) => typeof (value as Record<string, unknown>)[method] === "function";
    if (methods) {
      if (typeof value !== "object" || !methods.every(has))
        bad(`an object with ${methods.map((m) => `${m}()`).join(", ")}`);
    } else if (name.startsWith("on_")) {
      if (typeof value !== "function") bad("a function");
    } else if (name === "interpolate_pos_encoding" || name === "check_numerics" || name.startsWith("output_")) {
      if (typeof value !== "boolean") bad("true or false");
    }
  }
}

/** @typeParam C its config @typeParam I what a processor makes of images and text for it */
export abstract class VisionLanguageModel<
  C extends VisionLanguageConfig = VisionLanguageConfig,
  I extends ModelInputs = ModelInputs,
> extends Module {
  readonly config: C;
  readonly device: Device;
  /** f32[1, Q, Dq], learned */
  readonly query_tokens: Tensor;
  readonly vision_model: InstructBlipVisionModel;
  abstract readonly qformer: Module;
  readonly language_projection: Linear;
  readonly language_model: LanguageModel;
  /** What was odd but harmless about the checkpoint. */
  readonly warnings: string[] = [];
  /** The names of `I`; what else generate() is given must be an option. */
  protected abstract readonly input_names: readonly string[];
  /** What the dimensions of pixel_values are called. */
  protected readonly pixel_layout: readonly string[] = ["B", "3", "H", "W"];
  readonly #weights: Weights;
  #ownsDevice = false;
  #told = new Warnings();

  /** Binds every parameter to the checkpoint by name and shape; `Weights.load` brings the numbers. */
  constructor(weights: Weights, config: C) {
    super(weights);
    this.config = config;
    this.device = weights.device;
    this.#weights = weights;
    const { num_query_tokens: Q, qformer_config, text_config } = config;
    this.vision_model = new InstructBlipVisionModel(weights.at("vision_model"), config.vision_config);
    this.query_tokens = weights.get("query_tokens", [1, Q, qformer_config.hidden_size]);
    this.language_projection = new Linear(weights.at("language_projection"), [
      text_config.hidden_size,
      qformer_config.hidden_size,
    ]);
    this.language_model = languageModel(weights.at("language_model"), text_config);
  }

  /**
   * Loads a Hugging Face checkpoint folder as it lies on disk: config.json and safetensors, in one file or many.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder (a browser's files, HTTP)
   * @throws ConfigError, WeightError, DeviceError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, DTYPE; the signal's reason
   */
  static async from_pretrained<C extends VisionLanguageConfig, M extends VisionLanguageModel<C>>(
    this: ModelClass<C, M>,
    from: PretrainedFrom,
    options: FromPretrainedOptions = {},
  ): Promise<M> {
    // biome-ignore lint/complexity/noThisInStatic: the class it is called on is the one to make
    return VisionLanguageModel.#load(this, from, options);
  }

  static async #load<C extends VisionLanguageConfig, M extends VisionLanguageModel<C>>(
    Model: ModelClass<C, M>,
    from: PretrainedFrom,
    options: FromPretrainedOptions,
  ): Promise<M> {
    const { device, dtype, cache_dtype, cache, fix_vicuna_token_ids, compile, on_warning, ...open } =
      readModelOptions(options);
    const { on_progress, signal } = open;
    const folder = await openPretrained(from, open);
    await refuseUnheeded(folder);
    let config = Model.config_class.parse(await folder.text("config.json", 2 ** 20));
    const checkpoint = await Checkpoint.open(folder);
    let weights: Weights | undefined;
    let opened = device;
    let call: Call | undefined;
    try {
      if (fix_vicuna_token_ids) {
        const names = ["model.embed_tokens", "lm_head"].map((name) => `language_model.${name}.weight`);
        const rows =
          names.map((name) => checkpoint.tensors.get(name)?.shape[0]).find((count) => count !== undefined) ?? 0;
        config = new Model.config_class({ ...config, text_config: fixVicunaTokenIds(config.text_config, rows) });
      }
      opened ??= await openDevice();
      call = opened.call(signal);
      weights = Weights.open(checkpoint, opened, dtype);
      const bound = weights;
      const { memory } = opened;
      const model = opened.within(call, () => memory.allOrNothing(() => bind(Model, bound, config, checkpoint)));
      model.#ownsDevice = device === undefined;
      model.warnings.push(...checkpoint.warnings, ...model.#check(), ...model.#keepKeysAs(cache_dtype));
      const kept = await model.#cacheIn(cache);
      const [restored] = await Promise.all([
        weights.load({ on_progress, signal, cache: kept, call }),
        compile ? opened.within(call, () => model.#compile()) : undefined,
      ]);
      if (kept && !restored) await model.#orWarn(() => kept.write());
      model.#told = new Warnings(on_warning);
      model.#told.tell(model.warnings);
      return model;
    } catch (error) {
      weights?.dispose();
      if (!device) opened?.destroy();
      throw error;
    } finally {
      call?.end();
      await checkpoint.close();
    }
  }

  /** Sets what answers keep of their tokens. @returns warnings @throws InputError CACHE_DTYPE */
  #keepKeysAs(dtype: CacheDType): string[] {
    if (!CACHE_DTYPES.includes(dtype)) {
      throw new InputError("CACHE_DTYPE", `cache_dtype: keys and values cannot be stored as "${dtype}"`, {
        hint: CACHE_DTYPES.join(" or "),
      });
    }
    const { head_dim } = this.language_model.cache_shape;
    if (dtype === "f16" && head_dim % 4 !== 0) {
      return [`keys and values are stored as f32: f16 comes in fours, and the heads have ${head_dim} numbers`];
    }
    this.language_model.cache_dtype = dtype;
    return [];
  }

  /** Where quantized weights are kept, if they are to be and there are any. */
  async #cacheIn(where: FromPretrainedOptions["cache"]): Promise<WeightCache | undefined> {
    if (!where) return undefined;
    const kept = await this.#orWarn(async () => this.#weights.cacheIn(await cacheFolder(where)));
    return kept && kept.weights.size > 0 ? kept : undefined;
  }

  /** A cache that cannot be had is no reason to have no model. */
  async #orWarn<T>(use: () => Promise<T>): Promise<T | undefined> {
    try {
      return await use();
    } catch (error) {
      if (!(error instanceof WeightError)) throw error;
      this.warnings.push(`quantized weights are not cached: ${error.message}`);
      return undefined;
    }
  }

  /** Pictures to image features, inside a scope that frees the rest. @throws InputError */
  protected abstract imageFeatures(inputs: Omit<I, "input_ids" | "attention_mask">): ImageFeatures;

  /**
   * Checks what imageFeatures() does not.
   *
   * @param features image features a row
   * @throws InputError
   */
  protected readPrompt(
    { pixel_values, input_ids, attention_mask }: I,
    features = this.config.num_query_tokens,
  ): Prompt {
    const { image_token, modality } = this.config;
    expectPixelShape(pixel_values, this.pixel_layout);
    const ids = input_ids ?? this.#emptyPrompt(pixel_values.shape[0], features);
    const T = expectRectangle("input_ids", ids);
    const mask = maskOf("attention_mask", attention_mask, ids);
    if (image_token === null) refusePlaceholders(ids, mask, features);
    expectIds("input_ids", ids, this.language_model.num_embeddings);
    if (image_token === null) {
      const inFront = (value: number, rows: Ids) =>
        rows.map((row) => [...new Array<number>(features).fill(value), ...row]);
      return { B: ids.length, L: features + T, ids: inFront(NO_ID, ids), mask: inFront(1, mask) };
    }
    expectPlaceholders(ids, image_token, features, modality);
    return { B: ids.length, L: T, ids, mask };
  }

  /** What a model is given to go on from when nothing is said: placeholders, and the beginning of a text. */
  #emptyPrompt(B: number, features: number): Ids {
    const { image_token, text_config } = this.config;
    if (text_config.bos_token_id === null) {
      throw new InputError("BAD_INPUT", "input_ids are needed: text_config has no bos_token_id to go on from");
    }
    const placeholders = image_token === null ? [] : new Array<number>(features).fill(image_token);
    return Array.from({ length: B }, () => [...placeholders, text_config.bos_token_id as number]);
  }

  /** Token embeddings with the placeholders' rows replaced, in row-major order, by image features. f32[B, L, P] */
  protected embed({ B, L, ids }: Prompt, image_features: Tensor): Tensor {
    const placeholder = this.config.image_token ?? NO_ID;
    let found = 0;
    const source = Uint32Array.from(ids.flat(), (id) => (id === placeholder ? ++found : 0));
    const known = ids.map((row) => row.map((id) => (id === NO_ID ? 0 : id))); // which row is replaced does not matter
    const embeds = this.language_model.embed(upload(this.device, known)); // [B, L, P]
    // OPT's embeddings may be narrower than the model, which project_in widens; the features are as wide as the model. HF
    // fills the placeholders with the features' numbers one after the other: the last ones are left over.
    const P = embeds.shape[2];
    const numbers = image_features.reshape([-1]).narrow(0, 0, found * P);
    return maskedScatter(embeds, numbers.reshape([found, P]), this.device.tensor(source, [B, L]));
  }

  /**
   * One pass over prompt and image.
   *
   * LLaMA's positions are 0 … L-1 whatever the padding, as in HF's forward(); generate() derives them from the mask.
   * output_hidden_states and output_attentions are for all parts; in HF's composite they reach the language model alone.
   *
   * @throws InputError for inputs that cannot be used; NumericError for a loss that is NaN
   */
  async forward(
    inputs: I & ForwardInputs,
    options?: Partial<ForwardInputs> & ForwardOptions,
    ...more: never[]
  ): Promise<VisionLanguageOutput>;
  async forward(...given: unknown[]): Promise<VisionLanguageOutput> {
    const { inputs, options } = this.#read("forward", given, FORWARD_OPTIONS);
    const { observer, check_numerics, ...rest } = options as ForwardInputs & ForwardOptions;
    const pass = () => this.#pass(inputs, rest);
    const { output, targets, losses } = await this.run(observer, () => observeStates(this.device, rest, pass));
    if (!targets || !losses) return output;
    const costs = await losses.read();
    losses.dispose();
    if (check_numerics !== false && costs.some(Number.isNaN)) {
      throw await this.#traced("the loss is NaN: the logits have a NaN or an infinity", pass, observer);
    }
    return { loss: meanLoss(costs, targets), ...output };
  }

  #pass(
    inputs: I,
    { labels, logits_to_keep, ...rest }: ForwardInputs,
  ): {
    output: VisionLanguageOutput;
    targets?: Ids | undefined;
    losses?: Tensor | undefined;
  } {
    const prompt = this.readPrompt(inputs);
    this.#checkForward({ ...rest, labels, logits_to_keep }, prompt.B);
    const decoder_input_ids = rest.decoder_input_ids ?? (labels && this.#decoderInputs(labels));
    const features = this.imageFeatures(inputs);
    const inputs_embeds = this.embed(prompt, features.image_features); // [B, L, D]
    const embedded = { inputs_embeds, attention_mask: prompt.mask };
    const answered = this.language_model.forward(embedded, { decoder_input_ids, logits_to_keep });
    const logits = this.observe(answered.logits); // [B, L, V], or [B, T, V]
    const output = { logits, ...features, language_model_outputs: { ...answered, logits } };
    if (!labels) return { output };
    const targets = this.language_model.is_encoder_decoder ? labels : nextTokens(labels, logits.shape[1]);
    return { output, targets, losses: tokenLosses(logits, targets) };
  }

  #checkForward({ labels, logits_to_keep = 0, decoder_input_ids }: ForwardInputs, B: number): void {
    if (!Number.isSafeInteger(logits_to_keep) || logits_to_keep < 0) {
      const given = shown(logits_to_keep);
      throw new InputError("PARAM_RANGE", `logits_to_keep must be a whole number of at least 0, got ${given}`);
    }
    if (decoder_input_ids) expectRectangle("decoder_input_ids", decoder_input_ids);
    if (!labels) return;
    expectLabels(labels, B, this.language_model.vocabulary);
    if (logits_to_keep > 0) throw new InputError("LABELS", "labels need all logits: leave logits_to_keep out");
    const T = decoder_input_ids?.[0]?.length ?? labels[0].length;
    if (this.language_model.is_encoder_decoder && labels[0].length !== T) {
      throw new InputError("LABELS", `labels have ${labels[0].length} tokens, decoder_input_ids ${T}`);
    }
  }

  /** What a decoder of its own reads to predict the labels; nothing for a model without one. */
  #decoderInputs(labels: Ids): Ids | undefined {
    const { language_model } = this;
    if (!(language_model instanceof T5ForConditionalGeneration)) return undefined;
    const start = language_model.decoder_start_token_id;
    return shiftRight(labels, start, this.config.text_config.pad_token_id ?? start);
  }

  /** What the Q-Former brings back from the pictures. Hugging Face has this in BLIP-2 alone. */
  async get_qformer_features(
    inputs: Omit<I, "input_ids" | "attention_mask"> & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<QFormerOutput>;
  async get_qformer_features(...given: unknown[]): Promise<QFormerOutput> {
    return this.look("get_qformer_features", given, ({ qformer_outputs }) => qformer_outputs);
  }

  /** What `take` wants of the features of pictures; a prompt may be given, and counts for nothing. */
  protected look<T>(name: string, given: readonly unknown[], take: (features: ImageFeatures) => T): Promise<T> {
    const { inputs, options } = this.#read(name, given, ["observer", ...STATE_OPTIONS]);
    const { observer, ...record } = options as ForwardOptions & StateOptions;
    return this.run(observer, () => observeStates(this.device, record, () => take(this.imageFeatures(inputs))));
  }

  /**
   * What a call is given, as it is now: `known` options, and inputs, of which `null` is as good as none.
   *
   * @throws InputError ARGUMENTS, UNKNOWN_OPTION, PARAM_RANGE
   */
  #read(
    name: string,
    given: readonly unknown[],
    known?: readonly string[],
  ): { inputs: I; options: Record<string, unknown> } {
    const all = Object.entries(optionsOf(name, given)).filter(([key]) => !HARMLESS.includes(key) || !known);
    const isInput = ([key]: [string, unknown]) => this.input_names.includes(key);
    const inputs = Object.fromEntries(all.filter((entry) => isInput(entry) && entry[1] !== null));
    const options = Object.fromEntries(all.filter((entry) => !isInput(entry)));
    if (known) refuseUnknown(name, options, known);
    expectKinds(inputs);
    expectKinds(options);
    return { inputs: inputs as unknown as I, options };
  }

  /** An error that names the module in which a second run of `pass`, observed, first has a NaN or an infinity. */
  async #traced(what: string, pass: () => unknown, observer?: Observer): Promise<NumericError> {
    let module: string | undefined;
    let why = "a second, observed pass had none";
    try {
      module = await this.run(observer, () => firstNotFinite(this.device, pass));
      if (module) why = `the first module whose output has one is ${module}`;
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      why = `a second pass, to see where from, failed (${error.code})`;
    }
    return new NumericError(`${what}; ${why}`, {
      module,
      hint: "weights that are NaN or infinite are the usual cause; check_numerics: false goes on with what comes of them",
    });
  }

  /** Has the device to itself for `fn`, and frees what that allocates and does not return. */
  protected run<T>(observer: Observer | undefined, fn: () => T): Promise<T> {
    const { device } = this;
    return device.exclusive(async () =>
      observer ? withObserver(device, observer, () => device.scope(fn)) : device.scope(fn),
    );
  }

  /**
   * Answers: rows of token ids as Hugging Face's generate() returns them, prompt and image placeholders included.
   *
   * Legacy checkpoints (no image_token_index in config.json) have no placeholders: image features stand in front of the
   * prompt, and without an encoder the rows are new tokens alone, as HF's are where a language model is given embeddings
   * and no ids. max_length and min_length count features and prompt all the same; what looks at the row so far
   * (repetition_penalty, no_repeat_ngram_size, …) sees the new tokens.
   *
   * Everything is read, and copied, before it returns its promise. Options may also follow in an object of their own:
   * `generate(inputs, { max_new_tokens: 3 })`.
   *
   * @throws InputError for inputs and options that cannot be used; NumericError for scores that are NaN; DeviceError; the
   *   signal's reason
   */
  async generate(
    inputs: I & GenerateOptions & { return_dict_in_generate: true },
    options?: GenerateOptions,
    ...more: never[]
  ): Promise<GenerateOutput>;
  async generate(
    inputs: I & GenerateOptions,
    options: GenerateOptions & { return_dict_in_generate: true },
    ...more: never[]
  ): Promise<GenerateOutput>;
  async generate(
    inputs: I & GenerateOptions & { return_dict_in_generate?: false | null },
    options?: GenerateOptions & { return_dict_in_generate?: false | null },
    ...more: never[]
  ): Promise<number[][]>;
  async generate(
    inputs: I & GenerateOptions,
    options?: GenerateOptions,
    ...more: never[]
  ): Promise<number[][] | GenerateOutput>;
  generate(...given: unknown[]): Promise<number[][] | GenerateOutput> {
    const answer = this.#generate(given);
    // A streamer is told of an error too: who listens to it alone has heard, and this must not end the process.
    if (given.some((options) => (options as GenerateOptions | undefined)?.streamer)) answer.catch(() => {});
    return answer;
  }

  async #generate(given: unknown[]): Promise<number[][] | GenerateOutput> {
    const { inputs, options } = this.#read("generate", given);
    const { streamer, signal, on_token, tokenizer, on_warning, ...rest } = options as GenerateOptions;
    const generation = rest as GenerationOptions;
    try {
      refuseUnknownOptions(generation, [...this.input_names, ...HOOKS]);
      const prompt = this.readPrompt(inputs);
      const start = this.#startOfRows(prompt);
      const embeddedLength = this.language_model.is_encoder_decoder ? 0 : prompt.L - start[0].length;
      const { max_position_embeddings, eos_token_id, pad_token_id, sizes } = this.config.text_config;
      const config = decodingConfig(generation, {
        promptLength: start[0].length,
        embeddedLength,
        vocabulary: this.language_model.vocabulary,
        max_position_embeddings,
        eos_token_id,
        pad_token_id,
        decoder_start_token_id: this.language_model.is_encoder_decoder ? start[0][0] : undefined,
        cacheBytesPerToken: 8 * sizes.num_hidden_layers * sizes.num_key_value_heads * sizes.head_dim,
      });
      const negative = negativePrompt(config, start, this.language_model);
      const warnings = [...config.warnings, ...this.#paddedRight(prompt)];
      if (on_warning) for (const warning of warnings) on_warning(warning);
      else if (on_warning === undefined) this.#told.tell(warnings);
      signal?.throwIfAborted();
      const answer = () =>
        this.device.scope(async () => {
          const begun: Decoding[] = [];
          const begin = (rows: number, capacity: number) => {
            begun.push(this.language_model.begin(rows, capacity));
            return begun[begun.length - 1];
          };
          try {
            const decoding = begin(prompt.B, embeddedLength + config.max_length);
            const decoder = this.#decoder(inputs, prompt, decoding, config.return_dict_in_generate ? config : {});
            const more = config.max_length - config.prompt_length;
            const unconditional = negative && this.#unconditional(negative, begin, more);
            return await search(decoder, start, config, {
              tokenizer: tokenizer ?? undefined,
              streamer: streamer ?? undefined,
              signal: signal ?? undefined,
              on_token: on_token ?? undefined,
              unconditional,
            });
          } finally {
            for (const decoding of begun) decoding.dispose();
          }
        });
      const output = await this.device.exclusive(answer, { signal });
      streamer?.end();
      return config.return_dict_in_generate ? output : output.sequences;
    } catch (error) {
      const told = error instanceof ScoresError ? await this.#explained(error, inputs) : error;
      streamer?.end(told);
      throw told;
    }
  }

  /** Prompts that answers would go on from behind their padding. @returns warnings */
  #paddedRight({ mask }: Prompt): string[] {
    if (this.language_model.is_encoder_decoder || mask.every((row) => row[row.length - 1] === 1)) return [];
    return [
      'a prompt is padded on the right: its answer goes on from the padding; give the processor padding_side: "left"',
    ];
  }

  /** What led to scores by which no token can be chosen, by reading prompt and answer once more in one pass. */
  async #explained({ message, prompt: b, ids }: ScoresError, inputs: I): Promise<NumericError> {
    const { language_model } = this;
    const prompt = this.readPrompt(inputs);
    if (language_model.is_encoder_decoder) {
      const decoder_input_ids = prompt.ids.map(() => ids);
      return this.#traced(message, () => language_model.forward(this.#embedded(inputs, prompt), { decoder_input_ids }));
    }
    // All prompts go on with the same answer: what is looked for is a fault of the weights. A placeholder in it has no image.
    const answer = ids.slice(this.#startOfRows(prompt)[b].length);
    const text = answer.map((id) => (id === this.config.image_token ? 0 : id));
    const longer: Prompt = {
      B: prompt.B,
      L: prompt.L + text.length,
      ids: prompt.ids.map((row) => [...row, ...text]),
      mask: prompt.mask.map((row) => [...row, ...text.map(() => 1)]),
    };
    return this.#traced(message, () => {
      const decoding = language_model.begin(longer.B, longer.L);
      try {
        decoding.prefill(this.#embedded(inputs, longer));
      } finally {
        decoding.dispose();
      }
    });
  }

  /** What the language model reads. */
  #embedded(inputs: I, prompt: Prompt): EmbeddedPrompt {
    const inputs_embeds = this.embed(prompt, this.imageFeatures(inputs).image_features); // [B, L, D]
    return { inputs_embeds, attention_mask: prompt.mask };
  }

  /**
   * Candidate answers by their likelihood after the prompt, as LAVIS's predict_class ranks them. Hugging Face has none.
   *
   * @returns one for each prompt
   * @throws InputError for inputs and options that cannot be used; NumericError for a likelihood that is NaN; DeviceError;
   *   the signal's reason
   */
  async rank_answers(inputs: I & RankOptions): Promise<RankedAnswers[]>;
  async rank_answers(inputs: I, options: RankOptions, ...more: never[]): Promise<RankedAnswers[]>;
  async rank_answers(...given: unknown[]): Promise<RankedAnswers[]> {
    const { inputs, options } = this.#read("rank_answers", given, RANK_OPTIONS);
    const asked = this.readPrompt(inputs);
    const { language_model } = this;
    const prompt = language_model.is_encoder_decoder ? asked : padLeft(asked);
    const ranking = readRankOptions(options as unknown as RankOptions, prompt.B, language_model);
    const embed = () => this.#embedded(inputs, prompt);
    try {
      const rank = () => rankAnswers(language_model, this.device, prompt.L, embed, ranking);
      return await this.device.exclusive(rank, { signal: ranking.signal });
    } catch (error) {
      if (!(error instanceof ScoresError)) throw error;
      const start = this.#startOfRows(asked)[error.prompt];
      throw await this.#explained(new ScoresError(error.prompt, [...start, ...error.ids], error.message), inputs);
    }
  }

  /**
   * Saves config.json and the weights as transformers does, for from_pretrained here and there: the numbers as they are
   * stored, read back from the device piece by piece. The processor saves itself.
   *
   * @param to a path (Node), made if it is not there, or a WritableFolder
   * @throws WeightError QUANTIZED, SHARD_SIZE, SAVE_CONFLICT, IO; InputError NO_FILES, ARGUMENTS, UNKNOWN_OPTION;
   *   DeviceError; the signal's reason
   */
  async save_pretrained(to: string | WritableFolder, options?: SavePretrainedOptions, ...more: never[]): Promise<void> {
    const given = optionsOf("save_pretrained", [options, ...more], 1, 1);
    refuseUnknown("save_pretrained", given, SAVE_OPTIONS);
    expectKinds(given);
    const saved = { config: this.config, weights: this.#weights };
    return this.device.exclusive(() => saveModel(to, saved, given), {
      signal: (given as SavePretrainedOptions).signal,
    });
  }

  /** Frees the weights, and the device if the model opened it. */
  dispose(): void {
    if (this.#ownsDevice) this.device.destroy();
    else this.#weights.dispose();
  }

  /** What rows of ids begin with: the prompt, or the start token of a model whose encoder reads the prompt. */
  #startOfRows({ ids }: Prompt): Ids {
    const { language_model } = this;
    if (language_model instanceof T5ForConditionalGeneration) {
      return ids.map(() => [language_model.decoder_start_token_id]);
    }
    return this.config.image_token === null ? ids.map(() => []) : ids;
  }

  /** Prefill and decode steps, for a search. */
  #decoder(inputs: I, prompt: Prompt, decoding: Decoding, record: StateOptions): Decoder<Tensor, Tensor<"u32">> {
    const { device } = this;
    let states: LanguageModelStates = {};
    const observingStates = (fn: () => Tensor): Tensor =>
      observeStates(device, record, () => {
        const logits = fn();
        states = this.language_model.observed();
        return logits;
      });
    return {
      prefill: () => {
        const embedded = this.#embedded(inputs, prompt);
        return observingStates(() => decoding.prefill(embedded));
      },
      step: (tokens) => observingStates(() => decoding.step(tokens)),
      recorded: () => readStates(states),
      reorder: (rows) => decoding.reorder(rows),
      // A GPU has the next step at hand while the last one's ids travel; a software driver would only work for nothing.
      lead: device.caps.isSoftware ? 0 : 3,
      argmax: likeliest,
      logSoftmax,
      edit: editScores,
      topK: async (logProbs, scores, beams, K) => {
        const best = await topK(logProbs, device.tensor(scores, [scores.length]), beams, K).read();
        return { scores: new Float32Array(best.buffer, 0, best.length / 2), indices: best.subarray(best.length / 2) };
      },
      upload: (tokens) => device.tensor(Uint32Array.from(tokens), [tokens.length]),
      interrupt: (reason) => device.interrupt(reason),
      scope: (fn) => device.scope(fn),
    };
  }

  /**
   * The language model without the picture, for guidance.
   *
   * @param more tokens that the answer may have
   */
  #unconditional(
    { ids, mask }: NegativePrompt,
    begin: (rows: number, capacity: number) => Decoding,
    more: number,
  ): Unconditional<Tensor, Tensor<"u32">> {
    const decoding = begin(ids.length, ids[0].length + more);
    return {
      prefill: () => {
        const inputs_embeds = this.language_model.embed(upload(this.device, ids)); // [R, N, D]
        return decoding.prefill({ inputs_embeds, attention_mask: mask }, "forward"); // as HF, which calls it so
      },
      step: (tokens) => decoding.step(tokens),
    };
  }

  /** Inputs of one row, as short as they may be: for what a pass does, not for what comes out. */
  protected abstract exampleInputs(): ModelInputs;

  /** Compiles the kernels of a greedy answer of one row. Others are compiled when they are first launched. */
  async #compile(): Promise<void> {
    const answer = () => {
      const inputs = this.exampleInputs() as I;
      const prompt = this.readPrompt(inputs);
      const embedded = this.#embedded(inputs, prompt);
      const decoding = this.language_model.begin(1, prompt.L + 1);
      try {
        argmax(decoding.prefill(embedded));
        argmax(decoding.step(upload(this.device, [[0]]).reshape([1])));
      } finally {
        decoding.dispose();
      }
    };
    try {
      await this.device.prepare(this.device.kernelsOf(answer));
    } catch (error) {
      if (!(error instanceof InputError)) throw error; // a model too small for the example has time enough later
    }
  }

  /** What can only be known once every parameter was asked for. @returns warnings @throws WeightError VOCAB_MISMATCH */
  #check(): string[] {
    const warnings = [...this.#weights.warnings];
    const leftovers = this.#weights.leftovers(IGNORED);
    if (leftovers.length) {
      warnings.push(
        `${leftovers.length} tensors of the checkpoint are not used: ${leftovers.slice(0, 5).join(", ")}${leftovers.length > 5 ? ", …" : ""}`,
      );
    }
    const scheme = quantizationOf(fileOf(this.config));
    if (scheme) {
      warnings.push(
        `quantization_config (${scheme}) is not followed: the weights are floats, and stored as dtype says`,
      );
    }
    const { image_token, modality, text_config } = this.config;
    const rows = this.language_model.num_embeddings;
    if (text_config.vocab_size !== rows) {
      warnings.push(`text_config.vocab_size is ${text_config.vocab_size}, the embedding has ${rows} rows, which count`);
    }
    if (image_token !== null && image_token >= rows) {
      throw new WeightError(
        "VOCAB_MISMATCH",
        `${modality}_token_index is ${image_token}, but the embedding has ${rows} rows`,
      );
    }
    return warnings;
  }
}

/** The likeliest id of each row of f32[R, V]: one launch and, when it is read, one read. */
function likeliest(logits: Tensor): Likeliest<Tensor<"u32">> {
  const [R] = logits.shape;
  const found = argmax(logits); // [2, R]
  return {
    tokens: found.narrow(0, 0, 1).reshape([R]),
    read: async () => {
      const both = await found.read();
      return { ids: both.subarray(0, R), undecided: [...both.subarray(0, R).keys()].filter((r) => both[R + r] === 1) };
    },
  };
}

/** The most missing tensors that an error names. */
const MISSING_NAMED = 20;

/** A model whose parameters are the checkpoint's. @throws WeightError that says what the checkpoint is, or all it lacks */
function bind<C extends VisionLanguageConfig, M>(
  Model: ModelClass<C, M>,
  weights: Weights,
  config: C,
  { tensors }: Checkpoint,
): M {
  try {
    return new Model(weights, config);
  } catch (error) {
    if (!(error instanceof WeightError)) throw error;
    const other = otherCheckpoint(tensors, fileOf(config));
    if (other) {
      const { code, what, hint } = other;
      throw new WeightError(code, `the checkpoint is ${what}`, { hint, cause: error });
    }
    if (error.code !== "MISSING_TENSORS") throw error;
    const missing = weights.missing((asked) => new Model(asked, config));
    if (missing.length < 2) throw error;
    const named = missing.slice(0, MISSING_NAMED).join(", ");
    const rest = missing.length > MISSING_NAMED ? ` and ${missing.length - MISSING_NAMED} more` : "";
    throw new WeightError("MISSING_TENSORS", `the checkpoint lacks ${missing.length} tensors: ${named}${rest}`, {
      hint: `${missing[0]}: ${error.hint}`,
      cause: error,
    });
  }
}

/** config.json's object, keys that are no fields included. */
function fileOf(config: VisionLanguageConfig): object {
  return (config as unknown as { toJSON(): object }).toJSON();
}

/** Copies recorded tensors to the host. */
async function readStates(states: LanguageModelStates): Promise<Recorded> {
  const read: Recorded = {};
  for (const [name, layers] of Object.entries(states) as [keyof Recorded, readonly Tensor[] | undefined][]) {
    if (!layers?.length) continue;
    const onTheHost = [];
    for (const tensor of layers) onTheHost.push({ data: await tensor.read(), shape: tensor.shape });
    read[name] = onTheHost;
  }
  return read;
}

function languageModel(weights: Weights, config: TextConfig): LanguageModel {
  switch (config.model_type) {
    case "llama":
      return new LlamaForCausalLM(weights, config);
    case "opt":
      return new OPTForCausalLM(weights, config);
    case "t5":
      return new T5ForConditionalGeneration(weights, config);
  }
}
