/** BLIP-2 as a model of features, with Hugging Face's methods; model/blip_2.ts is the model. */
import type { StateOptions } from "../../../modules/observer.ts";
import type { Weights } from "../../../modules/weights.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { Blip2Config } from "../../config/blip_2.ts";
import { Blip2 } from "../../model/blip_2.ts";
import { type Ids, type TextStates, upload } from "../../model/language_model.ts";
import type { Blip2QFormer } from "../../model/qformer.ts";
import { visionOutputs } from "../../model/vision_language.ts";
import type { VisionOutput } from "../../model/vision_model.ts";
import { type Blip2Inputs, QUERIES_ONLY } from "../blip_2.ts";
import { type ForwardOptions, STATE_OPTIONS } from "../forward_options.ts";
import { expectIds, expectRectangle, maskOf, type VisionInputs } from "../inputs.ts";
import { LogitsModel } from "./logits_model.ts";

/** Texts in the language model's vocabulary. */
export interface Blip2LanguageInputs {
  /** [B][L] */
  input_ids: Ids;
  /** [B][L], 1 = not padding */
  attention_mask?: Ids;
}

const TEXT_INPUTS = ["input_ids", "attention_mask"] as const satisfies (keyof Blip2LanguageInputs)[];

/** Features of images and of texts, and forward() with logits, from the checkpoints of Blip2ForConditionalGeneration. */
export class Blip2Model extends LogitsModel<Blip2Config, Blip2Inputs> {
  static readonly config_class = Blip2Config;

  constructor(weights: Weights, config: Blip2Config) {
    super(weights, config, new Blip2(weights, config), QUERIES_ONLY);
  }

  override get architecture(): string {
    return "Blip2Model";
  }

  override get qformer(): Blip2QFormer {
    return super.qformer as Blip2QFormer;
  }

  /**
   * States f32[B, L, D] of texts: of OPT and LLaMA behind the last norm, without the head; of T5 the encoder's.
   *
   * @throws InputError BAD_INPUT, RAGGED, TOKEN_ID, BAD_MASK, TOO_MANY_POSITIONS
   */
  async get_text_features(
    inputs: Blip2LanguageInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<TextStates>;
  async get_text_features(...given: unknown[]): Promise<TextStates> {
    const known = ["observer", ...STATE_OPTIONS];
    const { inputs, options } = this.readCall<Blip2LanguageInputs>("get_text_features", given, TEXT_INPUTS, known);
    const { language_model, device } = this;
    const { input_ids } = inputs;
    expectRectangle("input_ids", input_ids);
    expectIds("input_ids", input_ids, language_model.num_embeddings);
    const attention_mask = maskOf("attention_mask", inputs.attention_mask, input_ids);
    return this.observed(options, () => {
      const inputs_embeds = language_model.embed(upload(device, input_ids)); // [B, L, D]
      return language_model.textStates({ inputs_embeds, attention_mask });
    });
  }

  /** The image encoder's outputs: states f32[B, N + 1, Dv]. @throws InputError BAD_PIXELS, IMAGE_SIZE */
  async get_image_features(
    inputs: VisionInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<VisionOutput>;
  async get_image_features(...given: unknown[]): Promise<VisionOutput> {
    return this.lookBy("get_image_features", given, (images) => visionOutputs(this.model, images));
  }

  /** The query outputs, f32[B, Q, Dq]. @throws InputError BAD_PIXELS, IMAGE_SIZE */
  async get_qformer_features(
    inputs: VisionInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<Tensor>;
  async get_qformer_features(...given: unknown[]): Promise<Tensor> {
    return this.look("get_qformer_features", given, ({ qformer_outputs }) => qformer_outputs.last_hidden_state);
  }

  override compile(): Promise<void> {
    return this.compilePass((inputs, options) => this.model.forward(inputs, options));
  }
}
