/** InstructBLIP, for images and for videos, without the language model's head; model/instructblip.ts is the model. */
import type { Weights } from "../../../modules/weights.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import { InstructBlipConfig } from "../../config/instructblip.ts";
import { InstructBlipVideoConfig } from "../../config/instructblip_video.ts";
import { InstructBlip, type InstructedImages } from "../../model/instructblip.ts";
import { InstructBlipVideo, type InstructedFrames } from "../../model/instructblip_video.ts";
import type { BaseLanguageModel } from "../../model/language_model.ts";
import type { InstructBlipQFormerModel } from "../../model/qformer.ts";
import { baseLanguageModel, type ImageTensors, type VisionLanguageBaseOutput } from "../../model/vision_language.ts";
import { checkDecoderIds, type ForwardInputs, type ForwardOptions, STATE_OPTIONS } from "../forward_options.ts";
import type { ModelInputs } from "../inputs.ts";
import { INSTRUCTED, type InstructBlipInputs } from "../instructblip.ts";
import { INSTRUCTED_FRAMES, type InstructBlipVideoInputs } from "../instructblip_video.ts";
import { PromptedModel } from "./prompted_model.ts";

/** Inputs of forward() besides the processor's. */
export interface BaseForwardInputs
  extends Pick<ForwardInputs, "decoder_input_ids" | "output_hidden_states" | "output_attentions"> {}

/** @typeParam C, I, T as of {@link PromptedModel} */
abstract class HeadlessModel<
  C extends VisionLanguageConfig,
  I extends ModelInputs,
  T extends ImageTensors,
> extends PromptedModel<C, I, T, BaseLanguageModel> {
  static readonly unused = [/^language_model\.lm_head\./];

  /** Under a head, Hugging Face's names of LLaMA's and OPT's layers have `model` in front. */
  static tensorName(name: string): string {
    return name.replace(/^language_model\.model\./, "language_model.");
  }

  override get qformer(): InstructBlipQFormerModel {
    return super.qformer as InstructBlipQFormerModel;
  }

  /**
   * One pass over prompt and image. With T5 decoder_input_ids are needed.
   *
   * @throws InputError for inputs that cannot be used
   */
  async forward(
    inputs: I & BaseForwardInputs,
    options?: BaseForwardInputs & ForwardOptions,
    ...more: never[]
  ): Promise<VisionLanguageBaseOutput>;
  async forward(...given: unknown[]): Promise<VisionLanguageBaseOutput> {
    const known = ["decoder_input_ids", "observer", ...STATE_OPTIONS];
    const { inputs, options } = this.readCall<I>("forward", given, this.rules.names, known);
    const { decoder_input_ids, ...observing } = options as BaseForwardInputs & Record<string, unknown>;
    checkDecoderIds(this.language_model, decoder_input_ids);
    const prompt = this.readPrompt(inputs);
    const answer = { decoder_input_ids: decoder_input_ids ?? undefined };
    return this.observed(observing, () =>
      this.model.states({ ...this.uploadImages(inputs), ...this.uploadPrompt(prompt) }, answer),
    );
  }

  override compile(): Promise<void> {
    return this.compilePass((inputs, options) => this.model.states(inputs, options));
  }
}

/** InstructBLIP's states, from its own checkpoints and from those of InstructBlipForConditionalGeneration. */
export class InstructBlipModel extends HeadlessModel<InstructBlipConfig, InstructBlipInputs, InstructedImages> {
  static readonly config_class = InstructBlipConfig;

  constructor(weights: Weights, config: InstructBlipConfig) {
    super(weights, config, new InstructBlip(weights, config, baseLanguageModel), INSTRUCTED);
  }

  override get architecture(): string {
    return "InstructBlipModel";
  }
}

/** The same of videos. */
export class InstructBlipVideoModel extends HeadlessModel<
  InstructBlipVideoConfig,
  InstructBlipVideoInputs,
  InstructedFrames
> {
  static readonly config_class = InstructBlipVideoConfig;

  constructor(weights: Weights, config: InstructBlipVideoConfig) {
    super(weights, config, new InstructBlipVideo(weights, config, baseLanguageModel), INSTRUCTED_FRAMES);
  }

  override get architecture(): string {
    return "InstructBlipVideoModel";
  }
}
