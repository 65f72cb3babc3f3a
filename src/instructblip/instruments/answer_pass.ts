/** The pass of forward() in which a model reads a prompt and an answer, every token of which is chosen in it. */
import { InputError } from "../../tensor/errors.ts";
import type { GenerateOptions } from "../generation/generate.ts";
import type { GenerationOptions } from "../generation/options.ts";
import type { Intervention } from "../interventions/intervention.ts";
import { expectIds, type ModelInputs } from "../pretrained/inputs.ts";
import type { VisionLanguageModel } from "../pretrained/vision_language_model.ts";

export interface AnswerOptions {
  /** Ids of the answer; default: what generate() answers by `generation`. */
  readonly answer?: readonly number[] | undefined;
  /** Options of generate(), if no answer is given. */
  readonly generation?: GenerationOptions | undefined;
  readonly interventions?: readonly Intervention[] | null | undefined;
  readonly signal?: AbortSignal | null | undefined;
}

export interface AnswerPass<I extends ModelInputs> {
  readonly answer: readonly number[];
  /** The prompt's ids, without padding. */
  readonly ids: readonly number[];
  /** Tokens that the pass reads after the prompt: the answer without its last. */
  readonly read: readonly number[];
  /** Inputs of forward(), of one row. The last logits are those that the answer was chosen by, one for each token. */
  readonly call: I;
}

/** @param inputs of one prompt, from a processor @throws InputError BATCH_MISMATCH, BAD_INPUT, TOKEN_ID */
export async function answerPass<I extends ModelInputs>(
  name: string,
  model: VisionLanguageModel<VisionLanguageModel["config"], I>,
  inputs: I,
  { answer: given, generation = {}, interventions = null, signal = null }: AnswerOptions,
): Promise<AnswerPass<I>> {
  const [prompt, ...more] = inputs.input_ids ?? [];
  if (!prompt || more.length > 0) {
    throw new InputError("BATCH_MISMATCH", `${name} is of one prompt, got ${more.length + (prompt ? 1 : 0)}`);
  }
  const answer = given ?? (await answerOf(model, inputs, { ...generation, interventions, signal }));
  if (answer.length === 0) throw new InputError("BAD_INPUT", "the answer has no token to look at");
  const { vocabulary, decoder_start_token_id: start } = model.language_model;
  expectIds("answer", [answer], vocabulary);
  const read = answer.slice(0, -1); // the last token is chosen, and not read
  const ids = withoutPadding(prompt, inputs.attention_mask?.[0]);
  const call: I =
    start === undefined
      ? { ...inputs, input_ids: [[...ids, ...read]], attention_mask: undefined }
      : { ...inputs, decoder_input_ids: [[start, ...read]] };
  return { answer, ids, read, call };
}

/** The ids of generate()'s answer, of several the first. */
async function answerOf<I extends ModelInputs>(
  model: VisionLanguageModel<VisionLanguageModel["config"], I>,
  inputs: I,
  options: GenerateOptions,
): Promise<readonly number[]> {
  const [answer] = await model.generate({
    ...inputs,
    ...options,
    return_dict_in_generate: false,
    return_full_text: false,
  });
  return answer!;
}

/** A prompt alone needs no padding. */
function withoutPadding(ids: readonly number[], mask: readonly number[] | undefined): readonly number[] {
  return mask ? ids.filter((_, i) => mask[i] === 1) : ids;
}
