/** BLIP-2's retrieval models with Hugging Face's methods; model/blip_2_retrieval.ts has the models. */
import { observeStates, observing, type StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import { InputError } from "../../tensor/errors.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { Blip2Config } from "../config/blip_2.ts";
import { refuse } from "../config/fields.ts";
import {
  Blip2ImageEncoder,
  Blip2Retrieval,
  Blip2TextEncoder,
  type EmbeddedImages,
  type EmbeddedTexts,
  embedImages,
  embedStates,
  embedTexts,
  similarity,
  type TextTensors,
} from "../model/blip_2_retrieval.ts";
import { type Ids, maskTensor, upload } from "../model/language_model.ts";
import type { Blip2TextEmbeddings, QFormerOutput } from "../model/qformer.ts";
import { type ImageTensors, visionOutputs } from "../model/vision_language.ts";
import type { InstructBlipVisionModel, VisionOutput } from "../model/vision_model.ts";
import { type ForwardOptions, STATE_OPTIONS } from "./forward_options.ts";
import { sharedImages } from "./image_cache.ts";
import {
  blankImages,
  EXAMPLE_TEXT,
  expectIds,
  expectPixels,
  expectRectangle,
  maskOf,
  type VisionInputs,
} from "./inputs.ts";
import { PretrainedModel } from "./pretrained_model.ts";

/** Texts in the Q-Former's vocabulary, from the processor of a retrieval checkpoint. */
export interface Blip2TextInputs {
  /** [T][L] */
  input_ids: Ids;
  /** [T][L], 1 = not padding */
  attention_mask?: Ids;
}

/** Images and texts. */
export interface Blip2RetrievalInputs extends VisionInputs, Blip2TextInputs {
  /**
   * Whether to judge pairs, the i-th text with the i-th image (ITM), instead of comparing every text with every image (ITC).
   * Default false.
   */
  use_image_text_matching_head?: boolean;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface Blip2ImageTextMatchingModelOutput {
  /** ITC: f32[I, T], cosines. ITM: f32[B, 2] before softmax: the text is not, or is, about the image. */
  readonly logits_per_image: Tensor;
  /** The same, transposed. */
  readonly logits_per_text: Tensor;
  /** ITC: f32[T, P]. Hugging Face's ITM has none. */
  readonly text_embeds?: Tensor;
  /** ITC: f32[I, Q, P]. ITM, as in Hugging Face: the image states, f32[B, N + 1, Dv] */
  readonly image_embeds: Tensor;
  /** Of the text, f32[T, L, Dq]; of ITM of queries and text, f32[B, Q + L, Dq] */
  readonly text_model_output: QFormerOutput;
  readonly vision_model_output: VisionOutput;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface Blip2VisionModelOutput extends Omit<VisionOutput, "pooler_output"> {
  /** f32[I, Q, P], each of length 1 */
  readonly image_embeds: Tensor;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface Blip2TextModelOutput
  extends Pick<QFormerOutput, "last_hidden_state" | "hidden_states" | "attentions"> {
  /** f32[T, L, P], each of length 1; the first token's stands for the text */
  readonly text_embeds: Tensor;
}

const IMAGE_INPUTS = ["pixel_values", "interpolate_pos_encoding"] as const satisfies (keyof VisionInputs)[];
const TEXT_INPUTS = ["input_ids", "attention_mask"] as const satisfies (keyof Blip2TextInputs)[];
const OBSERVING = ["observer", ...STATE_OPTIONS];

/** Runs a pass as `observer` and the options for states say. */
function observed<T>(model: PretrainedModel, options: Record<string, unknown>, pass: () => T): Promise<T> {
  const { observer, ...states } = options as ForwardOptions & StateOptions;
  return observing(model.device, observer, () => observeStates(model.device, states, pass));
}

/** Uploads images, those that several rows show once. @throws InputError BAD_PIXELS, IMAGE_SIZE, BATCH_MISMATCH */
function uploadImages(
  { device, vision_model }: { readonly vision_model: InstructBlipVisionModel } & Pick<PretrainedModel, "device">,
  { pixel_values, interpolate_pos_encoding = false }: VisionInputs,
): () => ImageTensors {
  expectPixels(pixel_values, ["B", "3", "H", "W"]);
  const [, , height, width] = sizes(pixel_values.shape, 4);
  vision_model.embeddings.checkSize(height, width, interpolate_pos_encoding);
  return () => {
    const shared = device.observers.length === 0 ? sharedImages(pixel_values) : undefined;
    const { data, shape } = shared?.images ?? pixel_values;
    const shown = shared && device.tensor(shared.shown, [shared.shown.length]);
    return { pixels: device.tensor(data, shape), interpolate_pos_encoding, ...(shown && { shown }) };
  };
}

/** Checks texts. @throws InputError BAD_INPUT, RAGGED, TOKEN_ID, BAD_MASK, PROMPT_TOO_LONG */
function readTexts(
  embeddings: Blip2TextEmbeddings,
  { input_ids, attention_mask }: Blip2TextInputs,
): Required<Blip2TextInputs> {
  const L = expectRectangle("input_ids", input_ids);
  expectIds("input_ids", input_ids, embeddings.word_embeddings.num_embeddings);
  const mask = maskOf("attention_mask", attention_mask, input_ids);
  embeddings.checkLength(L);
  return { input_ids, attention_mask: mask };
}

/** Uploads checked texts. @param Q queries in front, which are always visible */
function uploadTexts({ device }: PretrainedModel, texts: Required<Blip2TextInputs>, Q = 0): TextTensors {
  const mask = texts.attention_mask.map((row) => [...new Array<number>(Q).fill(1), ...row]);
  return { input_ids: upload(device, texts.input_ids), attention_mask: maskTensor(device, mask) };
}

/** @throws ConfigError unless the Q-Former reads texts */
function expectText({ qformer_config }: Blip2Config): void {
  if (qformer_config.has_text) return;
  refuse("qformer_config.use_qformer_text_input", "true in a model that reads texts", false);
}

/** Image-text matching and retrieval: scores for pairs (ITM), and for all texts with all images (ITC). */
export class Blip2ForImageTextRetrieval extends PretrainedModel<Blip2Config> {
  static readonly config_class = Blip2Config;
  /** The model itself: tensors in, tensors out. */
  readonly model: Blip2Retrieval;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config);
    expectText(config);
    this.model = new Blip2Retrieval(weights, config);
  }

  override get architecture(): string {
    return "Blip2ForImageTextRetrieval";
  }

  get vision_model(): InstructBlipVisionModel {
    return this.model.vision_model;
  }

  /**
   * Scores of images and texts. Placeholders, which the processor puts in front of a text that it is given with an image, are
   * left out.
   *
   * @throws InputError for inputs that cannot be used
   */
  async forward(
    inputs: Blip2RetrievalInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<Blip2ImageTextMatchingModelOutput>;
  async forward(...given: unknown[]): Promise<Blip2ImageTextMatchingModelOutput> {
    const names = [...IMAGE_INPUTS, ...TEXT_INPUTS];
    const known = [...OBSERVING, "use_image_text_matching_head"];
    const { inputs, options } = this.readCall<Blip2RetrievalInputs>("forward", given, names, known);
    const { use_image_text_matching_head, ...states } = options;
    const images = uploadImages(this, inputs);
    const texts = readTexts(this.model.embeddings, this.#withoutPlaceholders(inputs));
    if (!use_image_text_matching_head) return observed(this, states, () => this.#compare(images(), texts));
    const [I, T] = [inputs.pixel_values.shape[0]!, texts.input_ids.length];
    if (I !== T) {
      throw new InputError("BATCH_MISMATCH", `${I} images for ${T} texts; give one image for each text`, {
        hint: "without use_image_text_matching_head every text is compared with every image",
      });
    }
    return observed(this, states, () => this.#match(visionOutputs(this.model, images()), texts));
  }

  /** Embeds of images, f32[I, Q, P], to be compared with those of texts. Hugging Face has this as a class of its own. */
  async get_image_features(
    inputs: VisionInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<EmbeddedImages>;
  async get_image_features(...given: unknown[]): Promise<EmbeddedImages> {
    const { inputs, options } = this.readCall<VisionInputs>("get_image_features", given, IMAGE_INPUTS, OBSERVING);
    const images = uploadImages(this, inputs);
    return observed(this, options, () => embedImages(this.model, images()));
  }

  /** Embeds of texts, f32[T, P]. Hugging Face has this as a class of its own. */
  async get_text_features(
    inputs: Blip2TextInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<EmbeddedTexts>;
  async get_text_features(...given: unknown[]): Promise<EmbeddedTexts> {
    const { inputs, options } = this.readCall<Blip2TextInputs>("get_text_features", given, TEXT_INPUTS, OBSERVING);
    const texts = readTexts(this.model.embeddings, inputs);
    return observed(this, options, () => this.#texts(texts));
  }

  override async compile(): Promise<void> {
    const { device, model } = this;
    const texts = { input_ids: [EXAMPLE_TEXT], attention_mask: [EXAMPLE_TEXT.map(() => 1)] };
    const images = uploadImages(this, { pixel_values: blankImages(this.config, 1) });
    const pass = () => {
      this.#compare(images(), texts);
      return this.#match(visionOutputs(model, images()), texts);
    };
    await device.prepare(device.dryRun(pass));
  }

  /** ITC. */
  #compare(images: ImageTensors, texts: Required<Blip2TextInputs>): Blip2ImageTextMatchingModelOutput {
    const vision_model_output = visionOutputs(this.model, images);
    const { image_embeds } = embedStates(this.model, vision_model_output.last_hidden_state); // [I, Q, P]
    const { text_embeds, qformer_outputs } = this.#texts(texts); // [T, P]
    const logits_per_image = this.model.observe(similarity(image_embeds, text_embeds)); // [I, T]
    const logits_per_text = contiguous(logits_per_image.permute([1, 0]));
    const text_model_output = qformer_outputs;
    return { logits_per_image, logits_per_text, text_embeds, image_embeds, text_model_output, vision_model_output };
  }

  /** ITM. */
  #match(vision_model_output: VisionOutput, texts: Required<Blip2TextInputs>): Blip2ImageTextMatchingModelOutput {
    const image_embeds = vision_model_output.last_hidden_state; // [B, N + 1, Dv]
    const tensors = uploadTexts(this, texts, this.config.num_query_tokens);
    const { logits, qformer_outputs } = this.model.match(image_embeds, tensors);
    const logits_per_text = contiguous(logits.permute([1, 0]));
    const outputs = { text_model_output: qformer_outputs, vision_model_output };
    return { logits_per_image: logits, logits_per_text, image_embeds, ...outputs };
  }

  /** text_embeds f32[T, P]: of the first token. */
  #texts(texts: Required<Blip2TextInputs>): EmbeddedTexts {
    const { text_embeds, qformer_outputs } = embedTexts(this.model, uploadTexts(this, texts)); // [T, L, P]
    const [T, , P] = sizes(text_embeds.shape, 3);
    return { text_embeds: contiguous(text_embeds.narrow(1, 0, 1)).reshape([T, P]), qformer_outputs };
  }

  /** Hugging Face drops the first Q ids of a model with image_token_index, whatever they are. */
  #withoutPlaceholders({ input_ids, attention_mask }: Blip2TextInputs): Blip2TextInputs {
    const { image_token, num_query_tokens: Q } = this.config;
    const isRow = (row: unknown): row is readonly number[] => Array.isArray(row) && row.length >= Q;
    const begins = (row: unknown) => isRow(row) && row.slice(0, Q).every((id) => id === image_token);
    if (image_token === null || !Array.isArray(input_ids) || !input_ids.every(begins)) {
      return { input_ids, ...(attention_mask && { attention_mask }) };
    }
    maskOf("attention_mask", attention_mask, input_ids);
    const after = (rows: Ids) => rows.map((row) => row.slice(Q));
    return { input_ids: after(input_ids), ...(attention_mask && { attention_mask: after(attention_mask) }) };
  }
}

/** Embeds of images alone, from the same checkpoint as Blip2ForImageTextRetrieval. */
export class Blip2VisionModelWithProjection extends PretrainedModel<Blip2Config> {
  static readonly config_class = Blip2Config;
  static readonly unused = [/^(embeddings|text_projection|itm_head)\./];
  /** The model itself: tensors in, tensors out. */
  readonly model: Blip2ImageEncoder;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config);
    this.model = new Blip2ImageEncoder(weights, config);
  }

  override get architecture(): string {
    return "Blip2VisionModelWithProjection";
  }

  get vision_model(): InstructBlipVisionModel {
    return this.model.vision_model;
  }

  /** @throws InputError BAD_PIXELS, IMAGE_SIZE */
  async forward(
    inputs: VisionInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<Blip2VisionModelOutput>;
  async forward(...given: unknown[]): Promise<Blip2VisionModelOutput> {
    const { inputs, options } = this.readCall<VisionInputs>("forward", given, IMAGE_INPUTS, OBSERVING);
    const images = uploadImages(this, inputs);
    return observed(this, options, () => {
      const { image_embeds, vision_outputs } = embedImages(this.model, images());
      const { pooler_output: _, ...outputs } = vision_outputs;
      return { image_embeds, ...outputs };
    });
  }

  override async compile(): Promise<void> {
    const images = uploadImages(this, { pixel_values: blankImages(this.config, 1) });
    await this.device.prepare(this.device.dryRun(() => embedImages(this.model, images())));
  }
}

/** Embeds of texts alone, from the same checkpoint as Blip2ForImageTextRetrieval. */
export class Blip2TextModelWithProjection extends PretrainedModel<Blip2Config> {
  static readonly config_class = Blip2Config;
  static readonly unused = [/^(vision_model|vision_projection|itm_head)\./];
  /** The model itself: tensors in, tensors out. */
  readonly model: Blip2TextEncoder;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config);
    expectText(config);
    this.model = new Blip2TextEncoder(weights, config);
  }

  override get architecture(): string {
    return "Blip2TextModelWithProjection";
  }

  /** @throws InputError BAD_INPUT, RAGGED, TOKEN_ID, BAD_MASK, PROMPT_TOO_LONG */
  async forward(
    inputs: Blip2TextInputs & { position_ids?: Ids } & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<Blip2TextModelOutput>;
  async forward(...given: unknown[]): Promise<Blip2TextModelOutput> {
    const names = [...TEXT_INPUTS, "position_ids"];
    const { inputs, options } = this.readCall<Blip2TextInputs & { position_ids?: Ids }>(
      "forward",
      given,
      names,
      OBSERVING,
    );
    const texts = readTexts(this.model.embeddings, inputs);
    const { position_ids } = inputs;
    if (position_ids) {
      const [T, L] = [position_ids.length, expectRectangle("position_ids", position_ids)];
      if (T !== texts.input_ids.length || L !== texts.input_ids[0]!.length) {
        throw new InputError("BATCH_MISMATCH", "position_ids must have a position for every token of input_ids");
      }
      expectIds("position_ids", position_ids, this.model.embeddings.max_position_embeddings);
    }
    return observed(this, options, () => {
      const positions = position_ids && upload(this.device, position_ids);
      const tensors = { ...uploadTexts(this, texts), position_ids: positions };
      const { text_embeds, qformer_outputs } = embedTexts(this.model, tensors);
      const { last_hidden_state, hidden_states, attentions } = qformer_outputs;
      return { text_embeds, last_hidden_state, hidden_states, attentions };
    });
  }

  override async compile(): Promise<void> {
    const texts = { input_ids: [EXAMPLE_TEXT], attention_mask: [EXAMPLE_TEXT.map(() => 1)] };
    await this.device.prepare(this.device.dryRun(() => embedTexts(this.model, uploadTexts(this, texts))));
  }
}
