/**
 * generate() and rank_answers(): a prefill of the prompt with its images, then a search, token by token.
 *
 * B prompts, R rows (prompts, or the beams of all prompts), V vocabulary.
 */
import { observeStates, type StateOptions } from "../../modules/observer.ts";
import type { Device } from "../../tensor/device/device.ts";
import { InputError, NumericError } from "../../tensor/errors.ts";
import { argmax } from "../../tensor/ops/argmax.ts";
import { editScores } from "../../tensor/ops/edit_scores.ts";
import { logSoftmax } from "../../tensor/ops/log_softmax.ts";
import { topK } from "../../tensor/ops/top_k.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { TextConfig } from "../config/config.ts";
import { refuse } from "../config/options.ts";
import { type Checked, checkInterventions, type Intervention } from "../interventions/intervention.ts";
import { Plan } from "../interventions/plan.ts";
import {
  type Decoding,
  type EmbeddedPrompt,
  type LanguageModel,
  type LanguageModelStates,
  upload,
} from "../model/language_model.ts";
import { decodingConfig, isAssisted } from "./configuration.ts";
import type { ArgmaxResult, Decoder, HostStates } from "./decoder.ts";
import { type NegativePrompt, negativePrompt, type Unconditional } from "./guidance.ts";
import { numericError, ScoresError } from "./numerics.ts";
import { type GenerationOptions, refuseUnknownOptions } from "./options.ts";
import type { GenerateOutput } from "./output.ts";
import { expectEvenImages, type Prompt, startOfRows } from "./prompt.ts";
import { padLeft, type RankedAnswers, type RankOptions, rankAnswers, readRankOptions } from "./ranking.ts";
import { search } from "./search.ts";
import type { TokenTexts } from "./stopping.ts";
import type { Streamer } from "./streamer.ts";
import type { WarningListener } from "./types.ts";

export interface GenerateOptions extends GenerationOptions {
  /** Receives tokens as they are generated: a TextIteratorStreamer, or any object with put() and end(). */
  streamer?: Streamer | null;
  /** The tokenizer for stop_strings: the processor's. */
  tokenizer?: TokenTexts | null;
  /** Aborts, at the next token or while waiting for it; generate() then rejects with the signal's reason. */
  signal?: AbortSignal | null;
  /** Called after every token of the batch, counted from 0. */
  on_token?: ((step: number) => void) | null;
  /**
   * Called with warnings about options of this call. Default: the model's on_warning, with each warning once. null: warnings
   * are dropped.
   */
  on_warning?: WarningListener | null;
  /** Options in an object; those of the call win. See GenerationConfig. */
  generation_config?: GenerationOptions | null;
  /** Changes to what flows between the modules, in every search and at every step; see docs/interpretability.md. */
  interventions?: readonly Intervention[] | null;
}

/** Options of generate() besides inputs and decoding options. */
export const HOOKS = [
  "streamer",
  "tokenizer",
  "signal",
  "on_token",
  "on_warning",
  "generation_config",
  "interventions",
] satisfies (keyof GenerateOptions)[];

/** A prompt, and the model with its images. */
export interface Question {
  readonly device: Device;
  readonly language_model: LanguageModel;
  readonly text_config: TextConfig;
  /** The placeholder's id; null for legacy checkpoints, which have none. */
  readonly image_token: number | null;
  readonly prompt: Prompt;
  /** Encodes the images and inserts their features into a prompt. */
  embed(prompt: Prompt): EmbeddedPrompt;
  /** The same prompt, for the assistant that the options name. */
  readonly assistant?: Question | undefined;
  /** Called when the exclusive work that embedded the prompt has ended. @param failure its error, if any */
  ended(failure?: unknown): void;
}

/**
 * @param options of generate(), the inputs left out
 * @param input_names for hints
 * @param tell receives warnings, unless the options have on_warning
 * @throws as VisionLanguageModel.generate
 */
export async function generate(
  question: Question,
  { streamer, signal, on_token, tokenizer, on_warning, interventions, ...rest }: GenerateOptions,
  input_names: readonly string[],
  tell: (warnings: readonly string[]) => Promise<void>,
): Promise<number[][] | GenerateOutput> {
  const { device, language_model, text_config, prompt } = question;
  const generation = rest as GenerationOptions;
  refuseUnknownOptions(generation, [...input_names, ...HOOKS]);
  const start = startOfRows(prompt, language_model, question.image_token);
  const promptLength = start[0]!.length;
  const embeddedLength = language_model.is_encoder_decoder ? 0 : prompt.L - promptLength;
  const { max_position_embeddings, eos_token_id, pad_token_id, sizes } = text_config;
  const config = decodingConfig(generation, {
    promptLength,
    embeddedLength,
    vocabulary: language_model.vocabulary,
    max_position_embeddings,
    eos_token_id,
    pad_token_id,
    decoder_start_token_id: language_model.decoder_start_token_id,
    cacheBytesPerToken: 8 * sizes.num_hidden_layers * sizes.num_key_value_heads * sizes.head_dim,
  });
  const negative = negativePrompt(config, start, language_model);
  const changes = checkInterventions(interventions ?? []);
  if (changes.length > 0) expectEvenImages(prompt, question.image_token);
  if (changes.length > 0 && negative) {
    throw new InputError("UNSUPPORTED_OPTION", "interventions: not with guidance_scale, which has a pass of its own");
  }
  if (isAssisted(config)) {
    expectAlone(config.assistant_model ? "assistant_model" : "prompt_lookup_num_tokens", prompt.B, changes.length);
  }
  if (config.assistant_model && !question.assistant) {
    refuse("assistant_model", "a model that from_pretrained() has loaded", config.assistant_model);
  }
  const warnings = [...config.warnings, ...paddedRight(question)];
  if (on_warning) for (const warning of warnings) await on_warning(warning);
  else if (on_warning === undefined) await tell(warnings);
  signal?.throwIfAborted();
  const answer = () =>
    device.scope(async () => {
      const begun: Decoding[] = [];
      const begin = (rows: number, capacity: number, model = language_model) => {
        const decoding = model.begin(rows, capacity);
        begun.push(decoding);
        return decoding;
      };
      try {
        const more = config.max_length - config.prompt_length;
        const plan = changes.length > 0 ? planOf(question, changes, more) : undefined;
        const decoding = begin(prompt.B, embeddedLength + config.max_length);
        const decoder = decoderOf(question, decoding, config.return_dict_in_generate ? config : {}, plan);
        const unconditional = negative && withoutImages(question, negative, begin, more);
        const { assistant } = question;
        const drafting = assistant && begin(prompt.B, embeddedLength + config.max_length, assistant.language_model);
        return await search(decoder, start, config, {
          assistant: assistant && {
            decoder: decoderOf(assistant, drafting!, {}),
            eos_token_id: [assistant.text_config.eos_token_id ?? []].flat(),
          },
          tokenizer: tokenizer ?? undefined,
          streamer: streamer ?? undefined,
          signal: signal ?? undefined,
          on_token: on_token ?? undefined,
          unconditional,
          couplesRows: plan?.couplesRows ?? false,
        });
      } finally {
        for (const decoding of begun) decoding.dispose();
      }
    });
  const ended = (failure?: unknown) => {
    question.ended(failure);
    question.assistant?.ended(failure);
  };
  try {
    const output = await device.exclusive(answer, { signal });
    ended();
    return config.return_dict_in_generate ? output : output.sequences;
  } catch (error) {
    ended(error);
    if (!(error instanceof ScoresError)) throw error;
    if (changes.length === 0) throw await explained(error, question);
    throw new NumericError(`${error.message}; interventions were applied`, {
      hint: "without interventions the error names the module, if one is at fault",
    });
  }
}

/** Drafts are for the one row of a call without interventions. @throws InputError UNSUPPORTED_OPTION */
function expectAlone(drafts: string, rows: number, interventions: number): void {
  const unsupported = (message: string, hint: string) => {
    throw new InputError("UNSUPPORTED_OPTION", `${drafts}: ${message}`, { hint });
  };
  if (rows > 1) unsupported(`one prompt at a time, as in transformers, got ${rows}`, "call generate() for each prompt");
  if (interventions > 0) unsupported("not with interventions, whose steps are of one token", `leave out ${drafts}`);
}

/** @throws as VisionLanguageModel.rank_answers */
export async function rank(question: Question, options: RankOptions): Promise<RankedAnswers[]> {
  const { device, language_model } = question;
  const prompt = language_model.is_encoder_decoder ? question.prompt : padLeft(question.prompt);
  const ranking = readRankOptions(options, prompt.B, language_model);
  const embed = () => question.embed(prompt);
  try {
    const ranked = () => rankAnswers(language_model, device, prompt.L, embed, ranking);
    const answers = await device.exclusive(ranked, { signal: ranking.signal });
    question.ended();
    return answers;
  } catch (error) {
    question.ended(error);
    if (!(error instanceof ScoresError)) throw error;
    const start = startOfRows(question.prompt, language_model, question.image_token)[error.prompt]!;
    throw await explained(new ScoresError(error.prompt, [...start, ...error.ids], error.message), question);
  }
}

/** Compiles the kernels of greedy search. Others are compiled at their first launch. */
export async function compileAnswer(question: Question): Promise<void> {
  await question.device.prepare(question.device.dryRun(() => briefAnswer(question)));
}

/** Prefill and a step, for dry runs. @param onStep called between them; @param passes 1 leaves the step out */
function briefAnswer({ device, language_model, prompt, embed }: Question, onStep = () => {}, passes = 2): void {
  const embedded = embed(prompt);
  const decoding = language_model.begin(prompt.B, prompt.L + 1);
  try {
    argmax(decoding.prefill(embedded));
    if (passes === 1) return;
    onStep();
    const tokens = prompt.ids.map(() => [0]);
    argmax(decoding.step(upload(device, tokens).reshape([prompt.B])));
  } finally {
    decoding.dispose();
  }
}

/** The interventions of an answer of at most `passes` tokens. @throws as Plan */
function planOf(question: Question, changes: readonly Checked[], passes: number): Plan {
  const { device, language_model, prompt } = question;
  const length = language_model.is_encoder_decoder ? 1 : prompt.L;
  const run = (onStep: () => void) => briefAnswer(question, onStep, passes);
  return new Plan(device, changes, { rows: prompt.B, length, passes, run });
}

/** Checks for prompts that are padded on the right: answers would continue after the padding. @returns warnings */
function paddedRight({ language_model, prompt: { mask } }: Question): string[] {
  if (language_model.is_encoder_decoder || mask.every((row) => row[row.length - 1] === 1)) return [];
  return [
    "a prompt is padded on the right: its answer goes on from the padding; " +
      'give the processor padding_side: "left", or write it into tokenizer_config.json',
  ];
}

/** Finds the cause of scores with NaN or infinities, by running prompt and answer again in one observed pass. */
function explained({ message, prompt: b, ids }: ScoresError, question: Question): Promise<Error> {
  const { device, language_model, prompt, image_token } = question;
  if (language_model.is_encoder_decoder) {
    const decoder_input_ids = prompt.ids.map(() => ids);
    const pass = () => language_model.forward(question.embed(prompt), { decoder_input_ids });
    return numericError(device, message, pass);
  }
  // All prompts continue with the same answer: a fault of the weights shows in any. A placeholder in it has no image.
  const answer = ids.slice(startOfRows(prompt, language_model, image_token)[b]!.length);
  const text = answer.map((id) => (id === image_token ? 0 : id));
  const longer: Prompt = {
    B: prompt.B,
    L: prompt.L + text.length,
    ids: prompt.ids.map((row) => [...row, ...text]),
    mask: prompt.mask.map((row) => [...row, ...text.map(() => 1)]),
  };
  return numericError(device, message, () => {
    const decoding = language_model.begin(longer.B, longer.L);
    try {
      decoding.prefill(question.embed(longer));
    } finally {
      decoding.dispose();
    }
  });
}

/** Prefill and decode steps, for a search. */
function decoderOf(
  { device, language_model, prompt, embed }: Question,
  decoding: Decoding,
  wanted: StateOptions,
  plan?: Plan,
): Decoder<Tensor, Tensor<"u32">> {
  let step = 0;
  const during = <T>(fn: () => T): T => (plan ? plan.during(step++, fn) : fn());
  let states: LanguageModelStates = {};
  const observed = (fn: () => Tensor): Tensor =>
    observeStates(device, wanted, () => {
      const logits = fn();
      states = language_model.observed();
      return logits;
    });
  return {
    prefill: () =>
      during(() => {
        const embedded = embed(prompt);
        return observed(() => decoding.prefill(embedded));
      }),
    step: (tokens) => during(() => observed(() => decoding.step(tokens))),
    extend: (tokens) => decoding.extend(tokens.reshape([1, tokens.size])).reshape([tokens.size, -1]),
    crop: (tokens) => decoding.crop(tokens),
    readStates: () => readStates(states),
    reorder: (rows) => decoding.reorder(rows),
    // A GPU works on the next steps while ids are read back; a software adapter would only compute steps that are discarded.
    inFlight: device.caps.isSoftware ? 0 : 3,
    argmax: argmaxTokens,
    logSoftmax,
    edit: editScores,
    topK: async (logProbs, scores, beams, K) => {
      const best = await topK(logProbs, device.tensor(scores, [scores.length]), beams, K).read();
      return { scores: new Float32Array(best.buffer, 0, best.length / 2), indices: best.subarray(best.length / 2) };
    },
    upload: (tokens) => device.tensor(Uint32Array.from(tokens), [tokens.length]),
    interrupt: (reason) => device.interrupt(reason),
    scope: (fn) => device.scope(fn),
  };
}

/**
 * The language model without the images, for guidance.
 *
 * @param more tokens of the answer, at most
 */
function withoutImages(
  { device, language_model }: Question,
  { ids, mask }: NegativePrompt,
  begin: (rows: number, capacity: number) => Decoding,
  more: number,
): Unconditional<Tensor, Tensor<"u32">> {
  const decoding = begin(ids.length, ids[0]!.length + more);
  return {
    prefill: () => {
      const inputs_embeds = language_model.embed(upload(device, ids)); // [R, N, D]
      return decoding.prefill({ inputs_embeds, attention_mask: mask }, "forward"); // HF's order of arguments
    },
    step: (tokens) => decoding.step(tokens),
  };
}

/** The most probable id of each row of f32[R, V]: one launch, and one read when it is read. */
function argmaxTokens(logits: Tensor): ArgmaxResult<Tensor<"u32">> {
  const [R] = sizes(logits.shape, 2);
  const found = argmax(logits); // [2, R]
  return {
    tokens: found.narrow(0, 0, 1).reshape([R]),
    read: async () => {
      const both = await found.read();
      return { ids: both.subarray(0, R), undecided: [...both.subarray(0, R).keys()].filter((r) => both[R + r] === 1) };
    },
  };
}

/** Copies the states to the host. */
async function readStates(states: LanguageModelStates): Promise<HostStates> {
  const read: HostStates = {};
  for (const [name, layers] of Object.entries(states) as [keyof HostStates, readonly Tensor[] | undefined][]) {
    if (!layers?.length) continue;
    const onTheHost = [];
    for (const tensor of layers) onTheHost.push({ data: await tensor.read(), shape: tensor.shape });
    read[name] = onTheHost;
  }
  return read;
}
