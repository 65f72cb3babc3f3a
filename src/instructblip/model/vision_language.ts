/**
 * The parts that InstructBLIP and its siblings share: image encoder, learned queries, projection and language model, and the
 * types of inputs and outputs. forward() and states() combine them; imageFeatures() is each model's own.
 *
 * B rows, Q image features a row, L prompt tokens with the placeholders, D hidden size of the language model, Dq of the
 * Q-Former, E width of the token embeddings, V vocabulary.
 * Source: Li et al. 2023, BLIP-2, figure 3; transformers 5.18, modeling_instructblip.py.
 */
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Device } from "../../tensor/device/device.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { maskedScatter } from "../../tensor/ops/masked_scatter.ts";
import { takeRows } from "../../tensor/ops/take_rows.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { TextConfig, VisionLanguageConfig } from "../config/config.ts";
import type {
  BaseLanguageModel,
  BaseLanguageModelOutput,
  EmbeddedPrompt,
  EmbeddingLanguageModel,
  Ids,
  LanguageModel,
  LanguageModelInputs,
  LanguageModelOutput,
} from "./language_model.ts";
import { LlamaForCausalLM, LlamaModel } from "./llama.ts";
import { OPTForCausalLM, OPTModel } from "./opt.ts";
import type { QFormerOutput } from "./qformer.ts";
import { T5ForConditionalGeneration, T5Model } from "./t5.ts";
import { InstructBlipVisionModel, type VisionOutput } from "./vision_model.ts";

/** Images on the device. */
export interface ImageTensors {
  /** f32[B, 3, h, w], normalised */
  readonly pixels: Tensor;
  /** Allows images of another size than the model was trained with. Default false. */
  readonly interpolate_pos_encoding?: boolean | undefined;
  /** u32[B]: which of the images each row shows, if rows share them. Default: its own */
  readonly shown?: Tensor<"u32"> | undefined;
}

/** A prompt on the device. */
export interface PromptTensors {
  /** u32[B, L]; the id at a placeholder does not matter */
  readonly input_ids: Tensor<"u32">;
  /** u32[B, L]: at each placeholder which image feature replaces it, counted from 1 over the batch; 0 elsewhere */
  readonly placeholders: Tensor<"u32">;
  /** Number of placeholders. */
  readonly count: number;
  /** [B][L], 1 = not padding */
  readonly attention_mask: Ids;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface ImageFeatures {
  readonly vision_outputs: VisionOutput;
  readonly qformer_outputs: QFormerOutput;
  /** f32[B, Q, D]: the query outputs, projected into the language model's embeddings; of a video f32[B, F·Q, D] */
  readonly image_features: Tensor;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface VisionLanguageOutput extends ImageFeatures {
  /**
   * Set by the loaded model's forward() with labels (pretrained/): the mean cross-entropy, in nats; a number on the host, as
   * there is no training.
   */
  readonly loss?: number;
  /** f32[B, L, V]; with T5 f32[B, T, V]; with logits_to_keep fewer tokens */
  readonly logits: Tensor;
  readonly language_model_outputs: LanguageModelOutput;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface VisionLanguageBaseOutput extends ImageFeatures {
  readonly language_model_outputs: BaseLanguageModelOutput;
}

/** The parts of a model before its language model. */
export interface ImageParts {
  readonly vision_model: InstructBlipVisionModel;
  /** f32[1, Q, Dq], learned */
  readonly query_tokens: Tensor;
  readonly language_projection: Linear;
}

/** The image encoder's outputs for every row. */
export function visionOutputs({ vision_model }: Pick<ImageParts, "vision_model">, images: ImageTensors): VisionOutput {
  const { pixels, interpolate_pos_encoding, shown } = images;
  const { last_hidden_state, pooler_output, ...states } = vision_model.forward(pixels, interpolate_pos_encoding);
  if (!shown) return { last_hidden_state, pooler_output, ...states };
  const ofRows = (x: Tensor) =>
    takeRows(x.reshape([x.shape[0]!, -1]), shown).reshape([shown.size, ...x.shape.slice(1)]);
  return { last_hidden_state: ofRows(last_hidden_state), pooler_output: ofRows(pooler_output) };
}

/**
 * @typeParam I the images, and the Q-Former's other inputs
 * @typeParam L the language model, with its head (forward) or without (states)
 */
export abstract class VisionLanguage<
    I extends ImageTensors = ImageTensors,
    L extends EmbeddingLanguageModel = LanguageModel,
  >
  extends Module
  implements ImageParts
{
  readonly device: Device;
  readonly query_tokens: Tensor;
  readonly vision_model: InstructBlipVisionModel;
  abstract readonly qformer: Module;
  readonly language_projection: Linear;
  readonly language_model: L;

  /**
   * Binds every parameter to the checkpoint by name and shape; `Weights.load` reads the numbers.
   *
   * @param language makes the language model: languageModel, or baseLanguageModel
   */
  constructor(weights: Weights, config: VisionLanguageConfig, language: MakeLanguageModel<L>) {
    super(weights);
    this.device = weights.device;
    const { num_query_tokens: Q, qformer_config, text_config } = config;
    this.vision_model = new InstructBlipVisionModel(weights.at("vision_model"), config.vision_config);
    this.query_tokens = weights.get("query_tokens", [1, Q, qformer_config.hidden_size]);
    this.language_projection = new Linear(weights.at("language_projection"), [
      text_config.hidden_size,
      qformer_config.hidden_size,
    ]);
    this.language_model = language(weights.at("language_model"), text_config);
  }

  /** Images to image features. */
  abstract imageFeatures(inputs: I): ImageFeatures;

  /** Paths of the modules that imageStates() runs. */
  readonly image_parts: readonly string[] = ["vision_model"];

  /** The part of imageFeatures() that does not depend on the question. f32[B, …] */
  abstract imageStates(images: ImageTensors): Tensor;

  /** The rest of imageFeatures(), without intermediate outputs. f32[B, …] -> f32[B, Q, D] */
  abstract featuresOfStates(states: Tensor, inputs: Omit<I, keyof ImageTensors>): Tensor;

  /** The whole model. */
  forward(
    this: VisionLanguage<I, LanguageModel>,
    inputs: I & PromptTensors,
    options?: LanguageModelInputs,
  ): VisionLanguageOutput {
    const features = this.imageFeatures(inputs); // image_features [B, Q, D]
    const answered = this.language_model.forward(this.prompted(inputs, features), options);
    const logits = this.observe(answered.logits); // [B, L, V]
    return { ...features, logits, language_model_outputs: { ...answered, logits } };
  }

  /** The whole model, whose language model has no head. */
  states(
    this: VisionLanguage<I, BaseLanguageModel>,
    inputs: I & PromptTensors,
    options?: LanguageModelInputs,
  ): VisionLanguageBaseOutput {
    const features = this.imageFeatures(inputs); // image_features [B, Q, D]
    return {
      ...features,
      language_model_outputs: this.language_model.states(this.prompted(inputs, features), options),
    };
  }

  /** The learned queries of B rows. f32[1, Q, Dq] -> f32[B, Q, Dq] */
  static queries({ query_tokens }: Pick<ImageParts, "query_tokens">, B: number): Tensor {
    const [, Q, Dq] = sizes(query_tokens.shape, 3);
    return contiguous(query_tokens.expand([B, Q, Dq]));
  }

  /** The language model's input: the part of forward() before it, from the images' states on. */
  prompt(states: Tensor, inputs: Omit<I, keyof ImageTensors> & PromptTensors): EmbeddedPrompt {
    return this.prompted(inputs, { image_features: this.featuresOfStates(states, inputs) });
  }

  /** The language model's input: the text's tokens and the image features. */
  protected prompted(inputs: PromptTensors, { image_features }: Pick<ImageFeatures, "image_features">): EmbeddedPrompt {
    return { inputs_embeds: this.embed(inputs, image_features), attention_mask: inputs.attention_mask };
  }

  /** Token embeddings with the rows of placeholders replaced, in row-major order, by image features. f32[B, L, E] */
  protected embed({ input_ids, placeholders, count }: PromptTensors, image_features: Tensor): Tensor {
    const embeds = this.language_model.embed(input_ids); // [B, L, E], E = D but in OPT-350M
    return maskedScatter(embeds, rowsOfWidth(image_features, sizes(embeds.shape, 3)[2], count), placeholders);
  }
}

/**
 * The features' numbers in order, in `count` rows as wide as the embeddings. f32[B, Q, D] -> f32[count, E]
 *
 * E = D, and these are the features' rows, but where OPT's embeddings are narrower than the model: there Hugging Face's
 * masked_scatter takes the numbers in order too, and leaves the last ones over.
 */
function rowsOfWidth(image_features: Tensor, E: number, count: number): Tensor {
  return image_features
    .reshape([-1])
    .narrow(0, 0, count * E)
    .reshape([count, E]);
}

/** Makes a language model of the parameters at `weights`. */
export type MakeLanguageModel<L> = (weights: Weights, config: TextConfig) => L;

/** A language model with its head. */
export function languageModel(weights: Weights, config: TextConfig): LanguageModel {
  switch (config.model_type) {
    case "llama":
      return new LlamaForCausalLM(weights, config);
    case "opt":
      return new OPTForCausalLM(weights, config);
    case "t5":
      return new T5ForConditionalGeneration(weights, config);
  }
}

/** A language model without its head, whose parameters have the names of Hugging Face's base model. */
export function baseLanguageModel(weights: Weights, config: TextConfig): BaseLanguageModel {
  switch (config.model_type) {
    case "llama":
      return new LlamaModel(weights, config);
    case "opt":
      return new OPTModel(weights, config);
    case "t5":
      return new T5Model(weights, config);
  }
}
