/** The pass of forward() in which a model reads a prompt and an answer, every token of which is chosen in it. */
import { InputError, NumericError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { GenerateOptions } from "../generation/generate.ts";
import type { GenerationOptions } from "../generation/options.ts";
import type { Intervention } from "../interventions/intervention.ts";
import type { Ids } from "../model/language_model.ts";
import { IGNORE_INDEX, tokenLosses } from "../model/loss.ts";
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

/** Positions of placeholders, or of a legacy model the first `features`. */
export function imagePositions(ids: readonly number[], image_token: number | null, features: number): number[] {
  if (image_token === null) return Array.from({ length: features }, (_, i) => i);
  return ids.flatMap((id, i) => (id === image_token ? [i] : []));
}

/**
 * Log-probabilities of tokens.
 *
 * @param logits f32[R, T, V]
 * @param targets [R][T]; -100 where none is asked for
 * @returns of each row those of its targets, in nats
 * @throws NumericError for one that is NaN
 */
export async function logprobsOf(logits: Tensor, targets: Ids): Promise<number[][]> {
  const losses = await tokenLosses(logits, targets).read();
  if (losses.some(Number.isNaN)) {
    throw new NumericError("the answer's log-probability is NaN: the logits have a NaN or an infinity");
  }
  let at = 0;
  return targets.map((row) =>
    row.flatMap((id) => {
      const loss = losses[at++]!;
      return id === IGNORE_INDEX ? [] : [-loss];
    }),
  );
}

/** Rows that are computed together by default. */
const BATCH_SIZE = 8;

/** @throws InputError PARAM_RANGE */
export function checkBatchSize(batch_size: unknown): void {
  if (Number.isSafeInteger(batch_size) && (batch_size as number) >= 1) return;
  throw new InputError("PARAM_RANGE", `batch_size must be a whole number of at least 1, got ${shown(batch_size)}`);
}

/**
 * Rows of an answer's n tokens that are computed together: at most so many that their logits fit into a binding; and one alone
 * where image features are wider than the token embeddings (OPT-350M), as there a batch spreads them over all its rows.
 */
export function rowsAtOnce(
  {
    device,
    language_model,
    config: { text_config },
  }: Pick<VisionLanguageModel, "device" | "language_model" | "config">,
  n: number,
  batch_size = BATCH_SIZE,
): number {
  if (text_config.model_type === "opt" && text_config.embeddingWidth !== text_config.hidden_size) return 1;
  const room = Math.floor(device.caps.maxBindingBytes / (4 * language_model.vocabulary * n));
  return Math.max(1, Math.min(batch_size, room));
}
