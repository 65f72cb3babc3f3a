/**
 * The public model class, with Hugging Face's methods. base/ checks inputs and uploads them, and calls model/ (one pass); here
 * are generation/ (answers and rankings) and the image cache.
 */
import { observing, type StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Observer } from "../../tensor/device/device.ts";
import { InputError } from "../../tensor/errors.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import { expectKin } from "../generation/assisted/kin.ts";
import { compileAnswer, type GenerateOptions, generate, type Question, rank } from "../generation/generate.ts";
import { computeTransitionScores } from "../generation/logprobs.ts";
import type { GenerateOutput, StepScores } from "../generation/output.ts";
import { RANK_OPTIONS, type RankedAnswers, type RankOptions } from "../generation/ranking.ts";
import { Callbacks, streamerOf } from "../generation/streamer.ts";
import type { EmbeddedPrompt, Ids } from "../model/language_model.ts";
import type { QFormerOutput } from "../model/qformer.ts";
import type { ImageTensors, VisionLanguage } from "../model/vision_language.ts";
import { GenerationConfig, withConfigs } from "../transformers/generation_config.ts";
import { LogitsModel } from "./base/logits_model.ts";
import type { InputRules } from "./base/prompted_model.ts";
import { checkForward, type ForwardInputs, type ForwardOptions } from "./forward_options.ts";
import { ImageCache, type ImageLookup } from "./image_cache.ts";
import { expectPixels, framesOf, type HostTensor, type ModelInputs, type VisionInputs } from "./inputs.ts";
import { IMAGE_CACHE, type Loaded } from "./load.ts";

/**
 * @typeParam C its config
 * @typeParam I its inputs, from a processor
 * @typeParam T images on the device
 */
export abstract class VisionLanguageModel<
  C extends VisionLanguageConfig = VisionLanguageConfig,
  I extends ModelInputs = ModelInputs,
  T extends ImageTensors = ImageTensors,
> extends LogitsModel<C, I, T> {
  /**
   * What generate() takes for options that neither the call nor its `generation_config` has: at first the special token ids
   * of text_config. It is Hugging Face's `model.language_model.generation_config`, the one that counts there, too: the
   * checkpoint's generation_config.json is read by `GenerationConfig.from_pretrained`, and by pipeline().
   */
  generation_config: GenerationConfig;
  #images: ImageCache;

  constructor(weights: Weights, config: C, model: VisionLanguage<T>, rules: InputRules<C, I, T>) {
    super(weights, config, model, rules);
    this.#images = new ImageCache(weights.device, IMAGE_CACHE);
    this.generation_config = GenerationConfig.from_model_config(config);
  }

  override get architecture(): string {
    return this.config.family.architecture;
  }

  protected override wasLoaded({ image_cache }: Loaded<unknown>): void {
    this.#images = new ImageCache(this.device, image_cache);
  }

  /**
   * What of forward() depends on the images alone: the image encoder's output, of BLIP-2 the image features. The device
   * scope that it is called in owns it.
   *
   * @returns f32[B, …], of videos f32[B·F, …]
   * @throws InputError BAD_PIXELS, IMAGE_SIZE
   */
  async imageStates(inputs: VisionInputs): Promise<Tensor> {
    const { pixel_values, interpolate_pos_encoding = false } = inputs;
    expectPixels(pixel_values, this.rules.pixel_layout);
    const frames = framesOf(pixel_values);
    const [, , height, width] = sizes(frames.shape, 4);
    this.vision_model.embeddings.checkSize(height, width, interpolate_pos_encoding);
    const states = () => this.model.imageStates(this.uploadPixels(inputs, frames));
    return observing(this.device, undefined, states);
  }

  /**
   * The logits of forward() from images' states on: for many questions about one image, and many images that are asked one
   * question.
   *
   * @param states of imageStates(): of one image or video for all rows, or of one for each
   * @param inputs as of forward(), pixel_values for their shape alone
   * @returns f32[B, L, V], as of forward()
   * @throws InputError
   */
  async logitsOfStates(states: Tensor, inputs: I & ForwardInputs): Promise<Tensor> {
    const { decoder_input_ids, logits_to_keep } = inputs;
    const prompt = this.readIds(inputs);
    this.checkWords(inputs, prompt.B);
    checkForward(this.language_model, { decoder_input_ids, logits_to_keep }, prompt.B);
    const [b = 0, ...shape] = states.shape;
    const frames = framesOf(inputs.pixel_values).shape[0] / inputs.pixel_values.shape[0]!;
    if (b !== frames && b !== prompt.B * frames) {
      throw new InputError("BATCH_MISMATCH", `states of ${b} images for ${prompt.B} prompts of ${frames}`);
    }
    return observing(this.device, undefined, () => {
      const all = [prompt.B, frames, ...shape];
      const own = b === frames ? contiguous(states.reshape([1, frames, ...shape]).expand(all)) : states;
      const words = { ...this.uploadWords(inputs), ...this.uploadPrompt(prompt) };
      const embedded = this.model.prompt(own.reshape([prompt.B * frames, ...shape]), words);
      return this.language_model.forward(embedded, { decoder_input_ids, logits_to_keep }).logits;
    });
  }

  /** The Q-Former's outputs for images. Hugging Face has this in BLIP-2 only. */
  async get_qformer_features(
    inputs: Omit<I, "input_ids" | "attention_mask"> & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<QFormerOutput>;
  async get_qformer_features(...given: unknown[]): Promise<QFormerOutput> {
    return this.look("get_qformer_features", given, ({ qformer_outputs }) => qformer_outputs);
  }

  /**
   * Answers: rows of token ids as Hugging Face's generate() returns them, prompt and image placeholders included.
   *
   * Legacy checkpoints (no image_token_index in config.json) have no placeholders: image features are put in front of the
   * prompt, and the rows of decoder-only models are new tokens alone, as HF's are where a language model is given embeddings
   * and no ids. max_length and min_length count features and prompt nevertheless; options that depend on the row so far
   * (repetition_penalty, no_repeat_ngram_size, …) use the new tokens.
   *
   * Arguments are copied before the promise is returned. Options may also be a second object: `generate(inputs, {
   * max_new_tokens: 3 })`.
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
    // A streamer receives an error too, so an unhandled rejection of this promise must not end the process.
    if (given.some((options) => (options as GenerateOptions | undefined)?.streamer)) answer.catch(() => {});
    return answer;
  }

  async #generate(given: unknown[]): Promise<number[][] | GenerateOutput> {
    const { inputs, options: all } = this.readCall<I>("generate", given, this.rules.names);
    const first = GenerationConfig.from_model_config(this.config);
    const options = withConfigs(all, { now: this.generation_config, first });
    const { streamer, on_token, signal } = options as GenerateOptions;
    const callbacks = new Callbacks();
    const owned = {
      ...options,
      ...(streamer && { streamer: streamerOf(streamer, callbacks) }),
      ...(on_token && { on_token: (step: number) => callbacks.take(on_token(step)) }),
    };
    try {
      const question = this.#question(inputs, this.#images.lookup());
      const { assistant_model } = options as GenerateOptions;
      const answer = await generate(
        assistant_model instanceof VisionLanguageModel
          ? { ...question, assistant: this.#assistant(assistant_model, inputs) }
          : question,
        owned,
        this.rules.names,
        (warnings) => this.told.tell(warnings),
      );
      callbacks.take(streamer?.end());
      await callbacks.settle(signal);
      return answer;
    } catch (error) {
      Promise.resolve(streamer?.end(error)).catch(() => {}); // it has received the first error
      throw error;
    }
  }

  /** The question for an assistant, whose checks name it. @throws InputError BAD_INPUT for one of other tokens or device */
  #assistant(model: VisionLanguageModel, inputs: I): Question {
    if (model.device !== this.device) {
      throw new InputError("BAD_INPUT", "assistant_model: it is on another device", {
        hint: "load it with from_pretrained(…, { device: model.device })",
      });
    }
    const kinOf = ({ language_model: { is_encoder_decoder, vocabulary }, config }: VisionLanguageModel) => {
      const { image_token, num_query_tokens } = config;
      return { is_encoder_decoder, vocabulary, image_token, num_query_tokens };
    };
    expectKin(kinOf(this as unknown as VisionLanguageModel), kinOf(model));
    try {
      return model.#question(inputs, model.#images.lookup());
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      throw new InputError(error.code, `assistant_model: ${error.message}`, { hint: error.hint });
    }
  }

  /**
   * Hugging Face's compute_transition_scores: the score of every token of an answer, from what generate() returned. With
   * normalize_logits, log-probabilities; generate() with `logprobs` gives the same without keeping all scores.
   *
   * @param scores `scores` of output_scores, or `logits` of output_logits
   * @param beam_indices with beams
   * @returns [R][new tokens]; after the end of a beam 0, after that of another row the filler's score
   * @throws InputError BAD_INPUT for arrays that do not belong together
   */
  compute_transition_scores(
    sequences: Ids,
    scores: readonly StepScores[],
    beam_indices?: Ids | null,
    normalize_logits = false,
  ): number[][] {
    return computeTransitionScores(sequences, scores, beam_indices, normalize_logits);
  }

  /**
   * Ranks candidate answers by their likelihood after the prompt, as LAVIS's predict_class. Hugging Face has no equivalent.
   *
   * @returns one ranking per prompt
   * @throws InputError for inputs and options that cannot be used; NumericError for a likelihood that is NaN; DeviceError;
   *   the signal's reason
   */
  async rank_answers(inputs: I & RankOptions): Promise<RankedAnswers[]>;
  async rank_answers(inputs: I, options: RankOptions, ...more: never[]): Promise<RankedAnswers[]>;
  async rank_answers(...given: unknown[]): Promise<RankedAnswers[]> {
    const { inputs, options } = this.readCall<I>("rank_answers", given, this.rules.names, RANK_OPTIONS);
    return rank(this.#question(inputs, this.#images.lookup()), options as unknown as RankOptions);
  }

  /** Compiles the kernels of a greedy answer of one row. */
  override async compile(): Promise<void> {
    try {
      await compileAnswer(this.#question(this.rules.exampleInputs(this.config)));
    } catch (error) {
      if (!(error instanceof InputError)) throw error; // a model too small for the example compiles at its first answer
    }
  }

  /**
   * Clears the image cache (see `image_cache` of from_pretrained). Needed after a change to the weights of the image
   * encoder, or of BLIP-2's Q-Former.
   */
  clear_image_cache(): void {
    this.#images.clear();
  }

  /** Frees the weights, and the device if the model opened it. */
  override dispose(): void {
    this.#images.clear();
    super.dispose();
  }

  /**
   * The checked prompt of an answer, and how to embed it.
   *
   * @param images the image cache's entry of the call; default: none
   */
  #question(inputs: I, images?: ImageLookup): Question {
    const { device, language_model, config } = this;
    const { interpolate_pos_encoding = false } = inputs;
    const states = (pixels: HostTensor) => this.model.imageStates(this.uploadPixels(inputs, pixels));
    return {
      device,
      language_model,
      text_config: config.text_config,
      image_token: config.image_token,
      prompt: this.readPrompt(inputs),
      embed: (prompt): EmbeddedPrompt => {
        const frames = framesOf(inputs.pixel_values);
        // An observer of the image encoder may replace its outputs, so the cache is not used.
        const isSeen = ({ reaches }: Observer) => this.model.image_parts.some((part) => reaches?.(part) ?? true);
        const isKept = images && !device.observers.some(isSeen);
        const image = isKept ? images.states(frames, interpolate_pos_encoding, states) : states(frames);
        return this.model.prompt(image, { ...this.uploadWords(inputs), ...this.uploadPrompt(prompt) });
      },
      ended: (failure) => images?.end(failure),
    };
  }
}
