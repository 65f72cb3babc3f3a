/**
 * Hugging Face's pipeline(): processor, generate() and decoding in one call.
 *
 * "image-text-to-text" as transformers 5.18 has it (pipelines/image_text_to_text.py, and the generation config of
 * pipelines/base.py); "visual-question-answering" and "image-to-text", which version 5 has no more, with the arguments and
 * results of version 4.57.
 */
import { optionsOf, refuseUnknown, type Word } from "../../tensor/arguments.ts";
import { callable } from "../../tensor/callable.ts";
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import type { GenerateOptions } from "../generation/generate.ts";
import { AutoModelForImageTextToText } from "../pretrained/auto_model.ts";
import { type AnyProcessor, AutoProcessor } from "../pretrained/auto_processor.ts";
import { opened, type PretrainedFrom } from "../pretrained/from_pretrained.ts";
import type { ModelInputs } from "../pretrained/inputs.ts";
import type { FromPretrainedOptions } from "../pretrained/load.ts";
import { ModelFolder } from "../pretrained/model_folder.ts";
import { VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import { expectImage, type ImageInput, type ProcessorOptions } from "../processing/processor_input.ts";
import type { ImageBackend } from "../processing/resize.ts";
import type { DecodeOptions } from "../tokenizer/types.ts";
import { GenerationConfig, type GenerationFields } from "./generation_config.ts";

/** Version 4's and 5's default. */
const MAX_NEW_TOKENS = 256;

export interface PipelineOptions extends FromPretrainedOptions {
  /** A checkpoint, as from_pretrained takes it, or a model that is loaded, with its `processor`. */
  model: PretrainedFrom | VisionLanguageModel;
  /** Default: the checkpoint's. */
  processor?: AnyProcessor | ImageTextProcessor | null;
  /** Options of every answer. Default: the checkpoint's generation_config.json, and at most 256 new tokens. */
  generation_config?: GenerationConfig | GenerationFields | null;
  /** The backend of the image processor. Default "pil". */
  backend?: ImageBackend;
}

/** What a pipeline needs of a processor. */
interface ImageTextProcessor {
  // biome-ignore lint/suspicious/noExplicitAny: of any of the processors
  (input: any, options?: any): Promise<any>;
  readonly tokenizer: AnyProcessor["tokenizer"];
}

/** Options of a call of any pipeline. */
export interface PipelineCallOptions {
  max_new_tokens?: number | null;
  /** Options of generate(). */
  generate_kwargs?: GenerateOptions | null;
}

type OneOrMany<T> = T | readonly T[];

export interface ImageTextToTextOptions extends PipelineCallOptions, DecodeOptions {
  images?: OneOrMany<ImageInput>;
  /** One for each image. */
  text?: OneOrMany<string>;
  /** Whether generated_text begins with the prompt. Default true. */
  return_full_text?: boolean | null;
  /** generated_token_ids instead of generated_text. Default false. */
  return_tensors?: boolean | null;
  /** Strings that end an answer. */
  stop_sequence?: OneOrMany<string> | null;
  /** Options of the processor. */
  processor_kwargs?: ProcessorOptions | null;
}

export interface GeneratedText {
  readonly input_text: string;
  /** Unless return_tensors. */
  readonly generated_text: string;
  /** With return_tensors: the row that generate() returned. */
  readonly generated_token_ids?: readonly number[];
}

/** Gives the answers of each text one after the other: one, or num_return_sequences. */
export interface ImageTextToTextCall {
  (images: OneOrMany<ImageInput>, options: ImageTextToTextOptions, ...more: never[]): Promise<GeneratedText[]>;
  (options: ImageTextToTextOptions, ...more: never[]): Promise<GeneratedText[]>;
}

export interface ImageTextToTextPipeline extends ImageTextToTextCall {
  readonly task: "image-text-to-text";
  readonly model: VisionLanguageModel;
  readonly generation_config: GenerationConfig;
  /** Frees the model, if the pipeline loaded it. */
  dispose(): void;
}

export interface VisualQuestionAnsweringOptions extends PipelineCallOptions {
  image?: OneOrMany<ImageInput>;
  /** With several images every question is asked about every one of them, images first. */
  question?: OneOrMany<string>;
  /** There is one answer. */
  top_k?: 1 | null;
}

export interface Answer {
  readonly answer: string;
}

export interface VisualQuestionAnsweringCall {
  (image: ImageInput, question: string, options?: VisualQuestionAnsweringOptions): Promise<Answer[]>;
  (
    options: VisualQuestionAnsweringOptions & { image: ImageInput; question: string },
    ...more: never[]
  ): Promise<Answer[]>;
  (options: VisualQuestionAnsweringOptions, ...more: never[]): Promise<Answer[][]>;
  (
    image: OneOrMany<ImageInput>,
    question: OneOrMany<string>,
    options?: VisualQuestionAnsweringOptions,
  ): Promise<Answer[][]>;
}

export interface VisualQuestionAnsweringPipeline extends VisualQuestionAnsweringCall {
  readonly task: "visual-question-answering";
  readonly model: VisionLanguageModel;
  readonly generation_config: GenerationConfig;
  /** Frees the model, if the pipeline loaded it. */
  dispose(): void;
}

export interface ImageToTextOptions extends PipelineCallOptions {
  /** What the text begins with. InstructBLIP needs it. */
  prompt?: string | null;
}

export interface Caption {
  readonly generated_text: string;
}

export interface ImageToTextCall {
  (image: ImageInput, options?: ImageToTextOptions): Promise<Caption[]>;
  (images: readonly ImageInput[], options?: ImageToTextOptions): Promise<Caption[][]>;
}

export interface ImageToTextPipeline extends ImageToTextCall {
  readonly task: "image-to-text";
  readonly model: VisionLanguageModel;
  readonly generation_config: GenerationConfig;
  /** Frees the model, if the pipeline loaded it. */
  dispose(): void;
}

interface Parts {
  readonly task: string;
  readonly model: VisionLanguageModel;
  readonly processor: ImageTextProcessor;
  readonly generation_config: GenerationConfig;
  readonly owns: boolean;
}

const Called = callable("process") as abstract new () => (...given: unknown[]) => Promise<unknown>;

abstract class Pipeline extends Called {
  readonly task: string;
  readonly model: VisionLanguageModel;
  readonly processor: ImageTextProcessor;
  readonly generation_config: GenerationConfig;
  readonly #owns: boolean;

  constructor({ task, model, processor, generation_config, owns }: Parts) {
    super();
    this.task = task;
    this.model = model;
    this.processor = processor;
    this.generation_config = generation_config;
    this.#owns = owns;
  }

  abstract process(...given: unknown[]): Promise<unknown>;

  dispose(): void {
    if (this.#owns) this.model.dispose();
  }

  protected async generate(
    inputs: ModelInputs,
    { max_new_tokens, generate_kwargs }: PipelineCallOptions,
  ): Promise<readonly (readonly number[])[]> {
    if ((max_new_tokens ?? null) !== null && (generate_kwargs?.max_new_tokens ?? null) !== null) {
      throw new InputError("ARGUMENTS", "max_new_tokens was given twice: by itself and in generate_kwargs");
    }
    const given = {
      generation_config: this.generation_config,
      ...generate_kwargs,
      ...((max_new_tokens ?? null) !== null && { max_new_tokens }),
      return_dict_in_generate: false as const,
    };
    return this.model.generate(inputs as ModelInputs, given);
  }
}

/** Images are turned upright, as load_image has them. */
const UPRIGHT = { exif_transpose: true } as const;
const CALL = ["max_new_tokens", "generate_kwargs"] as const;
const toKwargs: Word = () =>
  "give options of generate() in generate_kwargs, those of the processor in processor_kwargs";

/** An object whose fields are options, and no image. */
function isOptions(value: unknown, names: readonly string[]): boolean {
  return typeof value === "object" && value !== null && names.some((name) => name in value);
}

/** @throws InputError ARGUMENTS, UNKNOWN_OPTION, UNSUPPORTED_OPTION */
function read<O>(task: string, given: readonly unknown[], images: string, known: readonly string[]): O {
  const [first] = given;
  if (isChat(first)) throw chatGiven(task);
  const named = first === undefined || isOptions(first, known) ? given : [{ [images]: first }, ...given.slice(1)];
  // Images are copied by the processor; a copy here would be of a whole file.
  const kept = named.map((one) => (isOptions(one, [images]) ? { ...(one as object), [images]: undefined } : one));
  const options = optionsOf(task, kept, 3);
  const image = named.find((one) => isOptions(one, [images])) as Record<string, unknown> | undefined;
  for (const name of ["generate_kwargs", "processor_kwargs"]) {
    const value = options[name] ?? {};
    if (typeof value === "object" && !Array.isArray(value)) continue;
    throw new InputError("ARGUMENTS", `${task}: ${name} must be an object of options, got ${shown(value)}`);
  }
  const generating = Object.fromEntries(
    ["num_beams", "do_sample", "padding", "max_length"].map((name) => [name, toKwargs]),
  );
  refuseUnknown(task, options, [...new Set([images, ...known])], generating);
  return { ...options, ...(image && { [images]: image[images] }) } as O;
}

/** Hugging Face's messages, or a list of such lists. */
const isChat = (value: unknown): boolean =>
  Array.isArray(value) && value.some((one) => isChat(one) || isOptions(one, ["role", "content"]));

const chatGiven = (task: string) =>
  new InputError("BAD_PROMPT", `${task}: messages were given, and these models have no chat template`, {
    hint: "give images and text",
  });

/** The items of what is one or a list. @throws InputError NO_INPUT if there is none */
function itemsOf<T>(task: string, name: string, value: OneOrMany<T> | null | undefined, hint: string): readonly T[] {
  const items = [value ?? []].flat() as T[];
  if (items.length > 0) return items;
  const got = Array.isArray(value) ? "an empty list" : value === undefined ? "nothing" : shown(value);
  throw new InputError("NO_INPUT", `${task} needs ${name}, got ${got}`, { hint });
}

/** The images of what is one or a list, which are read one by one. @throws InputError NO_INPUT, BAD_PIXELS */
function imagesOf(...given: Parameters<typeof itemsOf<ImageInput>>): readonly ImageInput[] {
  const images = itemsOf(...given);
  for (const [i, one] of images.entries()) for (const image of [one].flat()) expectImage(image, `image ${i}`);
  return images;
}

/** The texts of what is one or a list. @throws InputError NO_INPUT, BAD_PROMPT */
function textsOf(task: string, name: string, value: OneOrMany<string> | undefined, hint: string): readonly string[] {
  if (isChat(value)) throw chatGiven(task);
  const texts = itemsOf(task, name, value, hint);
  if (texts.every((one) => typeof one === "string")) return texts;
  throw new InputError("BAD_PROMPT", `${task}: ${name} must be a string or a list of strings, got ${shown(value)}`);
}

class ImageTextToText extends Pipeline {
  async process(...given: unknown[]): Promise<GeneratedText[]> {
    const { images, text, ...options } = read<ImageTextToTextOptions>(this.task, given, "images", [
      ...["images", "text", "return_full_text", "return_tensors", "stop_sequence", "processor_kwargs"],
      ...["skip_special_tokens", "clean_up_tokenization_spaces", ...CALL],
    ]);
    const usage = 'pipe(image, { text: "What is this?" })';
    itemsOf(this.task, "images", images, usage);
    const texts = textsOf(this.task, "text", text, usage);
    const { return_full_text, return_tensors, stop_sequence } = options;
    if (return_tensors && (return_full_text ?? null) !== null) {
      throw new InputError("ARGUMENTS", "return_full_text has no meaning with return_tensors");
    }
    const { tokenizer } = this.processor;
    const padding = texts.length > 1 ? { padding: true } : {};
    const inputs = await this.processor({ images, text, ...UPRIGHT, ...padding, ...options.processor_kwargs });
    const stop = (stop_sequence ?? null) === null ? {} : { stop_strings: stop_sequence, tokenizer };
    const generate_kwargs = { ...options.generate_kwargs, ...stop } as GenerateOptions;
    const rows = await this.generate(inputs, { ...options, generate_kwargs });
    const answers = rows.length / texts.length; // of one text they follow each other: num_return_sequences
    const rowOf = (row: number) => Math.floor(row / answers);
    if (return_tensors) {
      return rows.map(
        (ids, i) => ({ input_text: texts[rowOf(i)]!, generated_token_ids: ids }) as unknown as GeneratedText,
      );
    }
    const { skip_special_tokens = true, clean_up_tokenization_spaces } = options;
    const decode = (ids: readonly number[]) =>
      tokenizer.decode(ids, { skip_special_tokens, clean_up_tokenization_spaces });
    const prompts = texts.map((_, i) => decode(inputs.input_ids[i]!));
    return rows.map((ids, i) => {
      const input_text = texts[rowOf(i)]!;
      const answer = withoutPrompt(decode(ids), prompts[rowOf(i)]!);
      return { input_text, generated_text: return_full_text === false ? answer : input_text + answer };
    });
  }
}

/** HF looks for the prompt within the first characters. */
function withoutPrompt(generated: string, prompt: string): string {
  const at = generated.indexOf(prompt);
  return at >= 0 && at <= 2 ? generated.slice(at + prompt.length) : generated;
}

class VisualQuestionAnswering extends Pipeline {
  async process(...given: unknown[]): Promise<Answer[] | Answer[][]> {
    const [first, second, ...rest] = given;
    const isText = typeof second === "string" || Array.isArray(second);
    const named = isText ? [first, { question: second }, ...rest] : given;
    const names = ["image", "question", "top_k", ...CALL];
    const { image, question, top_k, ...options } = read<VisualQuestionAnsweringOptions>(
      this.task,
      named,
      "image",
      names,
    );
    const usage = 'pipe(image, "What is this?")';
    const images = imagesOf(this.task, "image", image, usage);
    const questions = textsOf(this.task, "question", question, usage);
    if ((top_k ?? 1) !== 1) {
      throw new InputError("UNSUPPORTED_OPTION", `top_k is ${shown(top_k)}: these models write one answer`, {
        hint: "generate() has num_beams and num_return_sequences; rank_answers() ranks answers of yours",
      });
    }
    const answers: Answer[][] = [];
    for (const one of images) {
      for (const text of questions) {
        const inputs = await this.processor({ images: [one], text: [text], ...UPRIGHT });
        const kwargs = { return_full_text: false, ...options.generate_kwargs };
        const rows = await this.generate(inputs, { ...options, generate_kwargs: kwargs });
        answers.push(rows.map((ids) => ({ answer: textOf(this.processor, ids).trim() })));
      }
    }
    return Array.isArray(image) || Array.isArray(question) ? answers : answers[0]!;
  }
}

class ImageToText extends Pipeline {
  async process(...given: unknown[]): Promise<Caption[] | Caption[][]> {
    const names = ["prompt", ...CALL];
    const { images, prompt, ...options } = read<ImageToTextOptions & { images?: OneOrMany<ImageInput> }>(
      this.task,
      given,
      "images",
      names,
    );
    const all = imagesOf(this.task, "images", images, "captioner(image)");
    if ((prompt ?? null) === null && "qformer_tokenizer" in this.processor) {
      throw new InputError(
        "NO_INPUT",
        "image-to-text needs a prompt: the Q-Former of InstructBLIP reads an instruction",
        {
          hint: 'captioner(image, { prompt: "A short image description:" })',
        },
      );
    }
    const captions: Caption[][] = [];
    for (const one of all) {
      const inputs = await this.processor({
        images: [one],
        ...((prompt ?? null) !== null && { text: [prompt] }),
        ...UPRIGHT,
      });
      const rows = await this.generate(inputs, options);
      captions.push(rows.map((ids) => ({ generated_text: textOf(this.processor, ids) })));
    }
    return Array.isArray(images) ? captions : captions[0]!;
  }
}

const textOf = ({ tokenizer }: ImageTextProcessor, ids: readonly number[]) =>
  tokenizer.decode(ids, { skip_special_tokens: true });

const TASKS = {
  "image-text-to-text": ImageTextToText,
  "visual-question-answering": VisualQuestionAnswering,
  "image-to-text": ImageToText,
} as const;

/**
 * Loads a model and its processor for a task.
 *
 * ```ts
 * const pipe = await pipeline("image-text-to-text", { model: "Salesforce/blip2-opt-2.7b" });
 * const [{ generated_text }] = await pipe("photo.jpg", { text: "A photo of" });
 * ```
 *
 * @throws as from_pretrained of model and processor; InputError UNKNOWN_OPTION for a task that is not there, BAD_INPUT
 */
export function pipeline(
  task: "image-text-to-text",
  options: PipelineOptions,
  ...more: never[]
): Promise<ImageTextToTextPipeline>;
export function pipeline(
  task: "visual-question-answering",
  options: PipelineOptions,
  ...more: never[]
): Promise<VisualQuestionAnsweringPipeline>;
export function pipeline(
  task: "image-to-text",
  options: PipelineOptions,
  ...more: never[]
): Promise<ImageToTextPipeline>;
export async function pipeline(task: keyof typeof TASKS, ...given: unknown[]): Promise<unknown> {
  if (!Object.hasOwn(TASKS, task)) {
    throw new InputError("UNKNOWN_OPTION", `there is no pipeline for the task ${shown(task)}`, {
      hint: `tasks: ${Object.keys(TASKS).join(", ")}`,
    });
  }
  if (typeof given[0] === "string" || given[0] instanceof URL || given[0] instanceof VisionLanguageModel) {
    throw new InputError("ARGUMENTS", "pipeline: the model is given by its name", {
      hint: `pipeline(${shown(task)}, { model: … })`,
    });
  }
  const all = optionsOf("pipeline", given, 1, 1) as unknown as PipelineOptions;
  const { model: from, processor, generation_config, backend, ...options } = all;
  const Task = TASKS[task];
  if ((processor ?? null) !== null && !(typeof processor === "function" && "tokenizer" in processor)) {
    throw new InputError("BAD_INPUT", `pipeline: processor must be one with a tokenizer, got ${shown(processor)}`, {
      hint: "give what AutoProcessor.from_pretrained() gives",
    });
  }
  if (from instanceof VisionLanguageModel) {
    if (!processor) {
      throw new InputError("BAD_INPUT", "pipeline: a model that is loaded needs its processor", {
        hint: "give processor, from AutoProcessor.from_pretrained()",
      });
    }
    refuseUnknown("pipeline", options, []);
    const config = defaults(generation_config ?? from.generation_config, processor);
    return new Task({ task, model: from, processor, generation_config: config, owns: false });
  }
  if ((from ?? null) === null) {
    throw new InputError("BAD_INPUT", "pipeline: model is needed, a checkpoint or a model", {
      hint: `pipeline(${shown(task)}, { model: "Salesforce/instructblip-vicuna-7b" })`,
    });
  }
  const { revision, token, cache_dir, local_files_only, cache, endpoint, on_download, signal, base_model, adapter } =
    options;
  const opening = { revision, token, cache_dir, local_files_only, cache, endpoint, on_download, signal };
  const folder = await ModelFolder.open(from, { ...opening, base_model, adapter });
  const own = processor ?? (await AutoProcessor.from_pretrained(folder, { backend }));
  const has = await folder.has("generation_config.json");
  const file = has
    ? await GenerationConfig.from_pretrained(folder)
    : GenerationConfig.from_model_config(await folder.config());
  const config = defaults(generation_config ?? file, own);
  const { base_model: _, adapter: __, ...loading } = opened(options);
  const model = await AutoModelForImageTextToText.from_pretrained(folder, loading);
  return new Task({ task, model, processor: own, generation_config: config, owns: true });
}

/** A pipeline's config: of a checkpoint's own the length counts, unless it is version 4's default. */
function defaults(given: GenerationConfig | GenerationFields, { tokenizer }: ImageTextProcessor): GenerationConfig {
  const config = new GenerationConfig({ ...given });
  const hasLength = config.max_new_tokens !== undefined || (config.max_length ?? 20) !== 20;
  if (!hasLength) config.max_new_tokens = MAX_NEW_TOKENS;
  if (config.pad_token_id === undefined && tokenizer.pad_token_id !== undefined) {
    config.pad_token_id = tokenizer.pad_token_id;
  }
  return config;
}
