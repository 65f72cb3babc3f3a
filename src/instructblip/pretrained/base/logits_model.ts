/** Models of images and prompts whose language model has a head: one pass, with logits and a loss. */
import { observeStates, observing } from "../../../modules/observer.ts";
import { sizes } from "../../../tensor/shape.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import { numericError } from "../../generation/numerics.ts";
import { expectEvenImages } from "../../generation/prompt.ts";
import { checkInterventions } from "../../interventions/intervention.ts";
import { Plan } from "../../interventions/plan.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { meanLoss, nextTokens, tokenLosses } from "../../model/loss.ts";
import type { ImageTensors, VisionLanguageOutput } from "../../model/vision_language.ts";
import {
  checkForward,
  decoderInputs,
  FORWARD_OPTIONS,
  type ForwardInputs,
  type ForwardOptions,
} from "../forward_options.ts";
import type { ModelInputs } from "../inputs.ts";
import { PromptedModel } from "./prompted_model.ts";

/** @typeParam C, I, T as of {@link PromptedModel} */
export abstract class LogitsModel<
  C extends VisionLanguageConfig = VisionLanguageConfig,
  I extends ModelInputs = ModelInputs,
  T extends ImageTensors = ImageTensors,
> extends PromptedModel<C, I, T, LanguageModel> {
  /**
   * One pass over prompt and image.
   *
   * An image that several rows show is encoded once, unless an observer or intervention reaches the image encoder.
   *
   * LLaMA's positions are 0 … L-1, padding included, as in HF's forward(); generate() derives them from the mask.
   * output_hidden_states and output_attentions apply to all parts; in HF's composite to the language model alone.
   *
   * @throws InputError for inputs that cannot be used; NumericError for a loss that is NaN
   */
  async forward(
    inputs: I & ForwardInputs,
    options?: Partial<ForwardInputs> & ForwardOptions,
    ...more: never[]
  ): Promise<VisionLanguageOutput>;
  async forward(...given: unknown[]): Promise<VisionLanguageOutput> {
    const { inputs, options } = this.readCall<I>("forward", given, this.rules.names, FORWARD_OPTIONS);
    const { observer, check_numerics, interventions, labels, logits_to_keep, decoder_input_ids, ...states } =
      options as ForwardInputs & ForwardOptions;
    const changes = checkInterventions(interventions ?? []);
    const prompt = this.readPrompt(inputs);
    if (changes.length > 0) expectEvenImages(prompt, this.config.image_token);
    checkForward(this.language_model, { labels, logits_to_keep, decoder_input_ids }, prompt.B);
    const answer = { decoder_input_ids: decoder_input_ids ?? decoderInputs(this, labels), logits_to_keep };
    const run = () => this.model.forward({ ...this.uploadImages(inputs), ...this.uploadPrompt(prompt) }, answer);
    const decoder = this.language_model.is_encoder_decoder ? answer.decoder_input_ids : undefined;
    const length = decoder?.[0]?.length ?? prompt.L;
    const call = { rows: prompt.B, length, passes: 1, run };
    const pass = () => {
      const output = changes.length > 0 ? new Plan(this.device, changes, call).during(0, run) : run();
      if (!labels) return { output };
      const { logits } = output;
      const [, L] = sizes(logits.shape, 3);
      const targets = this.language_model.is_encoder_decoder ? labels : nextTokens(labels, L);
      return { output, targets, losses: tokenLosses(logits, targets) };
    };
    const { output, targets, losses } = await observing(this.device, observer, () =>
      observeStates(this.device, states, pass),
    );
    if (!targets || !losses) return output;
    const costs = await losses.read();
    losses.dispose();
    if (check_numerics !== false && costs.some(Number.isNaN)) {
      throw await numericError(this.device, "the loss is NaN: the logits have a NaN or an infinity", pass, observer);
    }
    return { loss: meanLoss(costs, targets), ...output };
  }
}
