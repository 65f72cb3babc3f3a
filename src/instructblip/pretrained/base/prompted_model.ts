/** What all models of images and prompts have: their inputs are checked, and uploaded. */
import type { Module } from "../../../modules/module.ts";
import { observeStates, observing, type StateOptions } from "../../../modules/observer.ts";
import type { Weights } from "../../../modules/weights.ts";
import type { Device } from "../../../tensor/device/device.ts";
import { InputError } from "../../../tensor/errors.ts";
import { sizes } from "../../../tensor/shape.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import { NO_ID, type Prompt } from "../../generation/prompt.ts";
import { type EmbeddingLanguageModel, type Ids, type LanguageModelInputs, upload } from "../../model/language_model.ts";
import type { ImageFeatures, ImageTensors, PromptTensors, VisionLanguage } from "../../model/vision_language.ts";
import { type ForwardOptions, STATE_OPTIONS } from "../forward_options.ts";
import { sharedImages } from "../image_cache.ts";
import {
  emptyPrompt,
  expectIds,
  expectPixelShape,
  expectPixels,
  expectPlaceholders,
  expectRectangle,
  framesOf,
  type HostTensor,
  imagesOf,
  type ModelInputs,
  maskOf,
  refusePlaceholders,
  type VisionInputs,
} from "../inputs.ts";
import { PretrainedModel } from "../pretrained_model.ts";

/**
 * What is a family's own about inputs.
 *
 * @typeParam C its config
 * @typeParam I its inputs, from a processor
 * @typeParam T images on the device
 */
export interface InputRules<C, I extends ModelInputs, T extends ImageTensors> {
  /** The names of `I`; other arguments of a call must be options. */
  readonly names: readonly string[];
  /** Names of the dimensions of pixel_values. */
  readonly pixel_layout: readonly string[];
  /** Image features a row. */
  featuresOf(config: C, pixel_values: HostTensor): number;
  /** Number of images: one for each row of the prompt, or, without a prompt, of the Q-Former's text. */
  rowsOf(inputs: I, B: number | undefined): number | undefined;
  /** Checks the Q-Former's text. @param B rows of the prompt, if there is one @throws InputError */
  checkWords(inputs: I, qformer: Module, B: number | undefined): void;
  /** Uploads the Q-Former's text, which has been checked. */
  uploadWords(device: Device, config: C, inputs: Omit<I, "input_ids" | "attention_mask">): Omit<T, keyof ImageTensors>;
  /** Example inputs of one row, as short as possible, for compiling kernels. */
  exampleInputs(config: C): I;
}

/**
 * @typeParam C its config
 * @typeParam I its inputs, from a processor
 * @typeParam T images on the device
 * @typeParam L its language model
 */
export abstract class PromptedModel<
  C extends VisionLanguageConfig,
  I extends ModelInputs,
  T extends ImageTensors,
  L extends EmbeddingLanguageModel,
> extends PretrainedModel<C> {
  /** The model itself: tensors in, tensors out. */
  readonly model: VisionLanguage<T, L>;
  protected readonly rules: InputRules<C, I, T>;

  constructor(weights: Weights, config: C, model: VisionLanguage<T, L>, rules: InputRules<C, I, T>) {
    super(weights, config);
    this.model = model;
    this.rules = rules;
  }

  /** f32[1, Q, Dq], learned */
  get query_tokens(): Tensor {
    return this.model.query_tokens;
  }

  get vision_model(): VisionLanguage["vision_model"] {
    return this.model.vision_model;
  }

  get qformer(): Module {
    return this.model.qformer;
  }

  get language_projection(): VisionLanguage["language_projection"] {
    return this.model.language_projection;
  }

  get language_model(): L {
    return this.model.language_model;
  }

  /** Runs the image encoder and Q-Former; a prompt may be given, and is ignored. @param take selects from the outputs */
  protected async look<R>(name: string, given: readonly unknown[], take: (features: ImageFeatures) => R): Promise<R> {
    return this.lookBy(name, given, (images) => take(this.model.imageFeatures(images)));
  }

  /** Runs `run` of the images and the Q-Former's text. */
  protected async lookBy<R>(name: string, given: readonly unknown[], run: (images: T) => R): Promise<R> {
    const { inputs, options } = this.readCall<I>(name, given, this.rules.names, ["observer", ...STATE_OPTIONS]);
    this.checkImages(inputs);
    return this.observed(options, () => run(this.uploadImages(inputs)));
  }

  /** Runs a pass as `observer` and the options for states say. */
  protected observed<R>(options: Record<string, unknown>, pass: () => R): Promise<R> {
    const { observer, ...states } = options as ForwardOptions & StateOptions;
    return observing(this.device, observer, () => observeStates(this.device, states, pass));
  }

  /** Checks images, before anything is allocated. @throws InputError */
  protected checkImages(inputs: I, B?: number): void {
    const { pixel_values, interpolate_pos_encoding } = inputs;
    const { rules } = this;
    expectPixels(pixel_values, rules.pixel_layout, rules.rowsOf(inputs, B));
    this.checkWords(inputs, B);
    const [, , height, width] = sizes(framesOf(pixel_values).shape, 4);
    this.vision_model.embeddings.checkSize(height, width, interpolate_pos_encoding ?? false);
  }

  /** Checks the Q-Former's text. @param B rows of the prompt, if there is one @throws InputError */
  protected checkWords(inputs: I, B: number | undefined): void {
    this.rules.checkWords(inputs, this.qformer, B);
  }

  /** Uploads the Q-Former's text, which has been checked. */
  protected uploadWords(inputs: Omit<I, "input_ids" | "attention_mask">): Omit<T, keyof ImageTensors> {
    return this.rules.uploadWords(this.device, this.config, inputs);
  }

  /** Checks all inputs of a pass. @throws InputError */
  protected readPrompt(inputs: I): Prompt {
    const prompt = this.readIds(inputs);
    this.checkImages(inputs, this.#imagesOf(inputs, prompt.ids));
    return prompt;
  }

  /** Images or videos of a prompt: one for each row, or several images where its placeholders say so. */
  #imagesOf({ pixel_values }: I, ids: Ids): number {
    const { image_token, modality } = this.config;
    if (image_token === null || modality !== "image") return ids.length;
    return imagesOf(ids, image_token, this.rules.featuresOf(this.config, pixel_values), pixel_values.shape[0]!);
  }

  /** Checks the prompt's ids and mask, and of the pixels their shape alone. @throws InputError */
  protected readIds({ pixel_values, input_ids, attention_mask }: I): Prompt {
    const { image_token, modality } = this.config;
    expectPixelShape(pixel_values, this.rules.pixel_layout);
    const features = this.rules.featuresOf(this.config, pixel_values);
    const ids = input_ids ?? emptyPrompt(this.config, pixel_values.shape[0]!, features);
    const length = expectRectangle("input_ids", ids);
    const mask = maskOf("attention_mask", attention_mask, ids);
    if (image_token === null) refusePlaceholders(ids, mask, features);
    expectIds("input_ids", ids, this.language_model.num_embeddings);
    const several = this.#imagesOf({ pixel_values } as I, ids) !== ids.length;
    if (image_token !== null && !several) expectPlaceholders(ids, image_token, features, modality);
    if (image_token !== null) return { B: ids.length, L: length, ids, mask };
    const inFront = (x: number, rows: Ids) => rows.map((row) => [...new Array<number>(features).fill(x), ...row]);
    return { B: ids.length, L: features + length, ids: inFront(NO_ID, ids), mask: inFront(1, mask) };
  }

  /** Uploads images, those that several rows show once, and the Q-Former's text. */
  protected uploadImages(inputs: I): T {
    const frames = framesOf(inputs.pixel_values);
    // An observer of the image encoder may want every row, or change some of them.
    const isSeen = this.device.observers.some(({ reaches }) => reaches?.("vision_model") ?? true);
    const shared = isSeen ? undefined : sharedImages(frames);
    const shown = shared && this.device.tensor(shared.shown, [shared.shown.length]);
    const images = this.uploadPixels(inputs, shared?.images ?? frames);
    return { ...images, ...(shown && { shown }), ...this.uploadWords(inputs) } as T;
  }

  protected uploadPixels({ interpolate_pos_encoding }: VisionInputs, { data, shape }: HostTensor): ImageTensors {
    return { pixels: this.device.tensor(data, shape), interpolate_pos_encoding };
  }

  protected uploadPrompt({ B, L, ids, mask }: Prompt): PromptTensors {
    const placeholder = this.config.image_token ?? NO_ID;
    let count = 0;
    const source = Uint32Array.from(ids.flat(), (id) => (id === placeholder ? ++count : 0));
    const known = ids.map((row) => row.map((id) => (id === NO_ID ? 0 : id)));
    return {
      input_ids: upload(this.device, known),
      placeholders: this.device.tensor(source, [B, L]),
      count,
      attention_mask: mask,
    };
  }

  /** Compiles the kernels of a pass of one row. */
  protected async compilePass(
    pass: (inputs: T & PromptTensors, options: LanguageModelInputs) => unknown,
  ): Promise<void> {
    const example = this.rules.exampleInputs(this.config);
    try {
      const prompt = this.readPrompt(example);
      const run = () => pass({ ...this.uploadImages(example), ...this.uploadPrompt(prompt) }, EXAMPLE_ANSWER);
      await this.device.prepare(this.device.dryRun(run));
    } catch (error) {
      if (!(error instanceof InputError)) throw error; // a model too small for the example compiles at its first pass
    }
  }
}

/** What a decoder of its own is given in an example. */
const EXAMPLE_ANSWER = { decoder_input_ids: [[0]] } as const satisfies LanguageModelInputs;
