/**
 * Attribution: what each token of an answer rests on, in the image and in the instruction. By occlusion, how much less probable
 * it is without a part; and by attention, where the model looked.
 *
 * R rows of a batch, n tokens of the answer, F frames (1 of an image), N patches of each.
 */
import { refuseUnknown } from "../../../tensor/arguments.ts";
import { InputError } from "../../../tensor/errors.ts";
import { shown } from "../../../tensor/shown.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import { IGNORE_INDEX } from "../../model/loss.ts";
import type { VisionLanguageOutput } from "../../model/vision_language.ts";
import type { HostTensor, ModelInputs, QFormerInputs } from "../../pretrained/inputs.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { type AnswerPass, answerPass, checkBatchSize, imagePositions, logprobsOf, rowsAtOnce } from "../answer_pass.ts";
import { headMeans } from "../attention.ts";
import {
  FILLS,
  fillOf,
  type OcclusionFill,
  occluded,
  type PatchGrid,
  patchGrid,
  patchValues,
  windowSize,
  windowsOf,
} from "./occlusion.ts";
import { type CrossShares, crossAttention, type MeanAttentions, type RolloutShares, rollout } from "./rollout.ts";
import type { OccludedWord } from "./words.ts";

export type AttributionMethod = "image" | "words" | "attention";
export const METHODS: readonly AttributionMethod[] = ["image", "words", "attention"];

export interface AttributeOptions {
  /** Ids of the answer; default: what generate() answers by `generation`. */
  readonly answer?: readonly number[] | undefined;
  /** Options of generate(), if no answer is given. */
  readonly generation?: GenerationOptions | undefined;
  /** Occlusion of the image, occlusion of words, attention; default: all. */
  readonly methods?: readonly AttributionMethod[] | undefined;
  /** Words to occlude, from occludedWords(). Default: none. */
  readonly words?: readonly OccludedWord[] | undefined;
  /** Side of an occluded window, in patches. Default: a quarter of the image's longer side. */
  readonly window?: number | undefined;
  /** Distance of windows, in patches, at most the window. Default: a quarter of it. */
  readonly stride?: number | undefined;
  /** What an occluded patch holds. Default "mean". */
  readonly fill?: OcclusionFill | undefined;
  /** Occluded images and instructions that are computed together. Default 8. */
  readonly batch_size?: number | undefined;
  /** Is told how many occluded images and instructions are done. */
  readonly on_progress?: ((progress: { done: number; total: number }) => void) | undefined;
  readonly signal?: AbortSignal | null | undefined;
}

const OPTIONS = [
  "answer",
  "generation",
  "methods",
  "words",
  "window",
  "stride",
  "fill",
  "batch_size",
  "on_progress",
  "signal",
] satisfies (keyof AttributeOptions)[];

/** Drops by occlusion of the image. */
export interface ImageDrops {
  /** Side of a window, and distance of windows, in patches. */
  readonly window: number;
  readonly stride: number;
  readonly fill: OcclusionFill;
  /** How many windows there are. */
  readonly windows: number;
  /** For each token of the answer f32[F · N], row by row: the mean drop over the windows that cover a patch, in nats. */
  readonly drops: readonly Float32Array[];
}

/** Where the model looked, for one token of the answer. */
export interface TokenAttention {
  readonly rollout: RolloutShares;
  readonly cross_attention: CrossShares;
}

export interface Attribution {
  /** Ids. */
  readonly answer: readonly number[];
  /** Log-probabilities of the answer's tokens, in nats. */
  readonly logprobs: readonly number[];
  readonly grid: PatchGrid;
  /** null unless asked for, as the others. */
  readonly image: ImageDrops | null;
  /** Of each word the drop of each token of the answer, in nats. */
  readonly words: readonly (readonly number[])[] | null;
  /** Of each token of the answer. */
  readonly attention: readonly TokenAttention[] | null;
}

/** A prompt's ids, and what of them is visible. */
type Prompted = Pick<OccludedWord, "input_ids" | "attention_mask" | "qformer_input_ids" | "qformer_attention_mask">;

/**
 * A drop is the log-probability of a token less that with a part occluded, each token read after the answer's tokens before it:
 * above 0 where the token rests on the part.
 *
 * @param inputs of one prompt, from a processor
 * @throws InputError for inputs and options that cannot be used; NumericError; DeviceError; the signal's reason
 */
export async function attribute<I extends ModelInputs>(
  model: VisionLanguageModel<VisionLanguageModel["config"], I>,
  inputs: I,
  options: AttributeOptions = {},
): Promise<Attribution> {
  refuseUnknown("attribute", options, OPTIONS);
  const { methods = METHODS, words: given = [], fill = "mean", batch_size, on_progress, signal } = options;
  const { config, device } = model;
  const wrong = methods.find((method) => !METHODS.includes(method));
  if (wrong !== undefined || methods.length === 0) {
    throw new InputError("PARAM_RANGE", `methods must be some of ${METHODS.join(", ")}, got ${shown(methods)}`);
  }
  if (!FILLS.includes(fill))
    throw new InputError("PARAM_RANGE", `fill must be one of ${FILLS.join(", ")}, got ${shown(fill)}`);
  if (batch_size !== undefined) checkBatchSize(batch_size);
  const { patch_size: P } = config.vision_config;
  const grid = patchGrid(inputs.pixel_values, P);
  const { window, stride } = windowSize(grid, options);

  const pass = await answerPass("attribute", model, inputs, options);
  signal?.throwIfAborted();
  const { answer } = pass;
  const size = rowsAtOnce(model, answer.length, batch_size);
  const windows = methods.includes("image") ? windowsOf(grid, window, stride) : [];
  const words = methods.includes("words") ? given : [];
  const total = windows.length + words.length;
  let done = 0;
  const advance = (rows: number) => {
    done += rows;
    on_progress?.({ done, total });
    signal?.throwIfAborted();
  };

  return device.scope(async () => {
    const whole = wholePrompt(pass, inputs);
    const states = await model.imageStates(inputs);
    const [logprobs] = (await scored(model, pass, inputs.pixel_values, states, [whole])) as [number[]];
    const dropsOf = (rows: readonly (readonly number[])[]) => rows.map((row) => row.map((x, t) => logprobs[t]! - x));

    const wordDrops: number[][] = [];
    for (const batch of batchesOf(words, size)) {
      wordDrops.push(...dropsOf(await device.scope(() => scored(model, pass, inputs.pixel_values, states, batch))));
      advance(batch.length);
    }

    const windowDrops: number[][] = [];
    const filled = windows.length > 0 ? fillOf(inputs.pixel_values, fill, (window * P) / 2) : new Float32Array();
    for (const batch of batchesOf(windows, size)) {
      const pixel_values = occluded(inputs.pixel_values, filled, batch, { side: window * P, patch: P });
      const rows = await device.scope(async () => {
        const seen = await model.imageStates({ ...inputs, pixel_values });
        return scored(
          model,
          pass,
          pixel_values,
          seen,
          batch.map(() => whole),
        );
      });
      windowDrops.push(...dropsOf(rows));
      advance(batch.length);
    }
    const drops = answer.map((_, t) =>
      patchValues(
        grid,
        windows,
        window,
        windowDrops.map((drops) => drops[t]!),
      ),
    );

    const attention = methods.includes("attention") ? await attentionOf(model, pass, signal) : null;
    return {
      answer,
      logprobs,
      grid,
      image: windows.length > 0 ? { window, stride, fill, windows: windows.length, drops } : null,
      words: methods.includes("words") ? wordDrops : null,
      attention,
    };
  });
}

function* batchesOf<T>(list: readonly T[], size: number): Generator<readonly T[]> {
  for (let begin = 0; begin < list.length; begin += size) yield list.slice(begin, begin + size);
}

/** The prompt as it was given, without padding. */
function wholePrompt({ ids }: AnswerPass<ModelInputs>, inputs: ModelInputs & Partial<QFormerInputs>): Prompted {
  const { qformer_input_ids, qformer_attention_mask } = inputs;
  const [words] = qformer_input_ids ?? [];
  return {
    input_ids: ids,
    attention_mask: ids.map(() => 1),
    ...(words && {
      qformer_input_ids: words,
      qformer_attention_mask: qformer_attention_mask?.[0] ?? words.map(() => 1),
    }),
  };
}

/**
 * The log-probabilities of the answer's tokens after each prompt, all in one pass. Padding is on the right, behind the answer,
 * where it moves no token's position.
 *
 * @param states of the images: one for all prompts, or one for each
 * @returns [R][n], in nats
 */
async function scored<I extends ModelInputs>(
  model: VisionLanguageModel<VisionLanguageModel["config"], I>,
  { answer, read, call }: AnswerPass<I>,
  pixel_values: HostTensor,
  states: Tensor,
  prompts: readonly Prompted[],
): Promise<number[][]> {
  const { decoder_start_token_id: start } = model.language_model;
  const { image_token } = model.config;
  const pad = image_token === 0 ? 1 : 0; // any token: it is masked
  const n = answer.length;
  const after = start === undefined ? read : [];
  const ids = prompts.map(({ input_ids }) => [...input_ids, ...after]);
  const masks = prompts.map(({ attention_mask }) => [...attention_mask, ...after.map(() => 1)]);
  const padded = (rows: readonly (readonly number[])[], value: number) => {
    const longest = Math.max(...rows.map(({ length }) => length));
    return rows.map((row) => [...row, ...new Array<number>(longest - row.length).fill(value)]);
  };
  const [longest, shortest] = [Math.max, Math.min].map((of) => of(...ids.map(({ length }) => length))) as [
    number,
    number,
  ];
  const spare = start === undefined ? longest - shortest : 0;
  const targets = ids.map(({ length }) => {
    const behind = start === undefined ? longest - length : 0;
    const ignored = (count: number) => new Array<number>(count).fill(IGNORE_INDEX);
    return [...ignored(spare - behind), ...answer, ...ignored(behind)];
  });
  const words = prompts[0]!.qformer_input_ids && {
    qformer_input_ids: padded(
      prompts.map(({ qformer_input_ids }) => qformer_input_ids!),
      0,
    ),
    qformer_attention_mask: padded(
      prompts.map(({ qformer_attention_mask }) => qformer_attention_mask!),
      0,
    ),
  };
  const logits = await model.logitsOfStates(states, {
    ...call,
    ...words,
    pixel_values,
    input_ids: padded(ids, pad),
    attention_mask: padded(masks, 0),
    ...(start !== undefined && { decoder_input_ids: ids.map(() => [start, ...read]) }),
    logits_to_keep: n + spare,
  });
  return logprobsOf(logits, targets);
}

/** Attention of the pass over prompt and answer. */
async function attentionOf<I extends ModelInputs>(
  model: VisionLanguageModel<VisionLanguageModel["config"], I>,
  { answer, ids, read, call }: AnswerPass<I>,
  signal: AbortSignal | null | undefined,
): Promise<TokenAttention[]> {
  const { device, config } = model;
  const decodes = model.language_model.is_encoder_decoder;
  return device.scope(async () => {
    const alone = { input_ids: [[...ids, ...(decodes ? [] : read)]], attention_mask: undefined }; // without padding
    const output = await model.forward({ ...call, ...alone, logits_to_keep: 1, output_attentions: true });
    signal?.throwIfAborted();
    const attentions = await meanAttentions(output, config.qformer_config.cross_attention_frequency);
    const { encoder, language } = attentions;
    const L = encoder ? encoder.self[0]!.rows : language[0]!.rows - read.length;
    const image = imagePositions(ids, config.image_token, L - ids.length);
    const n = answer.length;
    const rollouts = rollout(attentions, L, n, image);
    const crosses = crossAttention(attentions, n, image);
    // Of a legacy model image features without ids are in front.
    const ofIds = (one: RolloutShares) => ({ ...one, prompt: one.prompt.slice(L - ids.length) });
    return rollouts.map((one, t) => ({ rollout: ofIds(one), cross_attention: crosses[t]! }));
  });
}

/** Reads all attention probabilities, each layer's as the mean of its heads. */
async function meanAttentions(output: VisionLanguageOutput, frequency: number): Promise<MeanAttentions> {
  const { vision_outputs, qformer_outputs, language_model_outputs: language } = output;
  /** [frame][layer] */
  const ofFrames = async (layers: readonly Tensor[]) => {
    const all = await headMeans(layers);
    return all[0]!.map((_, f) => all.map((layer) => layer[f]!));
  };
  const ofRow = async (layers: readonly Tensor[]) => (await headMeans(layers)).map(([row]) => row!);
  const { encoder_attentions, decoder_attentions, cross_attentions } = language;
  return {
    vision: await ofFrames(vision_outputs.attentions!),
    qformer: await ofFrames(qformer_outputs.attentions!),
    qformer_cross: await ofFrames(qformer_outputs.cross_attentions!),
    cross_attention_frequency: frequency,
    language: await ofRow(decoder_attentions ?? language.attentions!),
    ...(encoder_attentions && {
      encoder: { self: await ofRow(encoder_attentions), cross: await ofRow(cross_attentions!) },
    }),
  };
}
