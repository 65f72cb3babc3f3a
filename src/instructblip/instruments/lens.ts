/**
 * The logit lens: what the language model would say at each layer, if that layer were its last. Of the answer's tokens, and of
 * the image tokens, which are the Q-Former's queries; with where in the image each query looked.
 *
 * n layers, T tokens, R of them looked at, D wide, K words, V vocabulary, F frames, H heads, Q queries, N patches.
 * Source: nostalgebraist 2020, interpreting GPT: the logit lens; for image tokens Jiang et al. 2025, Interpreting and Editing
 * Vision-Language Representations.
 */
import { keptCopy } from "../../modules/observer.ts";
import { refuseUnknown } from "../../tensor/arguments.ts";
import type { ObservedKind, Observer } from "../../tensor/device/device.ts";
import type { ActivationDType } from "../../tensor/dtype.ts";
import { InputError, NumericError } from "../../tensor/errors.ts";
import { logSoftmax } from "../../tensor/ops/log_softmax.ts";
import { takeRows } from "../../tensor/ops/take_rows.ts";
import { topK } from "../../tensor/ops/top_k.ts";
import { sizes } from "../../tensor/shape.ts";
import { shown } from "../../tensor/shown.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { GenerationOptions } from "../generation/options.ts";
import type { TokenLogprob } from "../generation/types.ts";
import type { Intervention } from "../interventions/intervention.ts";
import { IGNORE_INDEX, tokenLosses } from "../model/loss.ts";
import { framesOf, type ModelInputs } from "../pretrained/inputs.ts";
import type { VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import { answerPass, imagePositions } from "./answer_pass.ts";
import { headMeans, meanOf } from "./attention.ts";

/** Most words of a layer and token. */
const MOST_WORDS = 100;

export interface LogitLensOptions {
  /** Ids of the answer; default: what generate() answers by `generation`. */
  readonly answer?: readonly number[];
  /** Options of generate(), if no answer is given. */
  readonly generation?: GenerationOptions;
  /** Words of each layer and token, 1 to 100. Default 5. */
  readonly top_k?: number;
  /** As in forward(), in which image, prompt and answer are one pass. */
  readonly interventions?: readonly Intervention[] | null;
  readonly signal?: AbortSignal | null;
}

const OPTIONS = ["answer", "generation", "top_k", "interventions", "signal"] satisfies (keyof LogitLensOptions)[];

/** What one layer says of one token. */
export interface LensWords {
  /** The most probable tokens, best first. */
  readonly top: readonly TokenLogprob[];
  /** The log-probability of the answer's token; null of image tokens. */
  readonly logprob: number | null;
}

/** A token, with an entry for each hidden state: 0 is the input of the first layer, n the output of the last. */
export interface LensToken {
  /** Of the state: in the language model's sequence, of T5 in the decoder's. */
  readonly position: number;
  /** The answer's token, which comes next; null of image tokens. */
  readonly id: number | null;
  readonly states: readonly LensWords[];
}

/** Where the queries looked: the Q-Former's cross-attention, averaged over layers and heads. */
export interface QueryMaps {
  /** Patches of the image. */
  readonly rows: number;
  readonly columns: number;
  /** For each image token the weight of every patch, row by row; what is missing to 1 is the class token's. */
  readonly weights: readonly Float32Array[];
}

export interface LogitLens {
  /** Hidden states, n + 1. */
  readonly states: number;
  /** Of each token of the answer the state from which it was chosen. */
  readonly answer: readonly LensToken[];
  /** Image tokens; none of an encoder-decoder, whose encoder has no head. */
  readonly image: readonly LensToken[];
  readonly maps: QueryMaps;
}

/**
 * @param inputs of one prompt, from a processor
 * @throws InputError for inputs and options that cannot be used; NumericError for states that are NaN; DeviceError; the
 *   signal's reason
 */
export async function logitLens<I extends ModelInputs>(
  model: VisionLanguageModel<VisionLanguageModel["config"], I>,
  inputs: I,
  options: LogitLensOptions = {},
): Promise<LogitLens> {
  refuseUnknown("logitLens", options, OPTIONS);
  const { generation = {}, top_k = 5, interventions = null, signal = null } = options;
  const { device, config, language_model } = model;
  if (!Number.isSafeInteger(top_k) || top_k < 1 || top_k > Math.min(MOST_WORDS, language_model.vocabulary)) {
    throw new InputError("PARAM_RANGE", `top_k must be a whole number from 1 to ${MOST_WORDS}, got ${shown(top_k)}`);
  }
  const pass = await answerPass("the lens", model, inputs, { ...options, generation, interventions, signal });
  const { answer, ids, read } = pass;
  const start = language_model.decoder_start_token_id;
  const call = { ...pass.call, interventions };

  const observer = new KeptStates(start === undefined ? "language_model" : "language_model.decoder");
  try {
    return await device.scope(async () => {
      const { logits } = await model.forward(call, { observer });
      signal?.throwIfAborted();
      const [, T] = sizes(logits.shape, 3);
      const image = start === undefined ? imagePositions(ids, config.image_token, T - ids.length - read.length) : [];
      const rows = [...image, ...answer.map((_, t) => T - answer.length + t)];
      const targets = [...image.map(() => IGNORE_INDEX), ...answer];
      const states: LensWords[][] = [];
      const [maps] = await device.exclusive(
        async () => {
          for (const [i, state] of [...observer.states.slice(0, -1), logits].entries()) {
            // The last state is already normed, and its logits are known.
            const isLast = i === observer.states.length - 1;
            const readout = (x: Tensor) => (isLast ? x : language_model.readout(x));
            states.push(await device.scope(() => wordsOf(state, rows, targets, top_k, readout)));
            const wrong = states[i]!.findIndex(({ top }) => top.some(({ logprob }) => Number.isNaN(logprob)));
            if (wrong < 0) continue;
            throw new NumericError(`state ${i} of position ${rows[wrong]} has a NaN or an infinity`);
          }
          return [await mapsOf(observer.maps)] as const;
        },
        { signal },
      );
      const { patch_size: P } = config.vision_config;
      const [height, width] = framesOf(inputs.pixel_values).shape.slice(-2) as [number, number];
      const token = (row: number): LensToken => ({
        position: rows[row]!,
        id: row < image.length ? null : targets[row]!,
        states: states.map((words) => words[row]!),
      });
      return {
        states: states.length,
        image: image.map((_, row) => token(row)),
        answer: answer.map((_, t) => token(image.length + t)),
        maps: { rows: Math.floor(height / P), columns: Math.floor(width / P), weights: maps },
      };
    });
  } finally {
    observer.dispose();
  }
}

/** Keeps hidden states of the language model and the Q-Former's cross-attentions on the device. */
class KeptStates implements Observer {
  readonly #path: string;
  /** f32[1, T, D]: the input of each layer, and the output of the final norm */
  readonly states: Tensor[] = [];
  /** f32[F, H, Q, 1 + N] of each layer */
  readonly maps: Tensor[] = [];

  constructor(path: string) {
    this.#path = path;
  }

  wants(path: string, kind: ObservedKind): boolean {
    if (kind === "cross_attentions") return path.startsWith("qformer.");
    return kind === "hidden_states" && (path === this.#path || path.startsWith(`${this.#path}.`));
  }

  see(_path: string, kind: ObservedKind, tensor: Tensor<ActivationDType>): undefined {
    (kind === "hidden_states" ? this.states : this.maps).push(keptCopy(tensor as Tensor));
  }

  dispose(): void {
    for (const tensor of [...this.states, ...this.maps]) tensor.dispose();
  }
}

/** @param state f32[1, T, …] @param rows which of T @returns a row each */
async function wordsOf(
  state: Tensor,
  rows: readonly number[],
  targets: readonly number[],
  K: number,
  readout: (x: Tensor) => Tensor,
): Promise<LensWords[]> {
  const { device } = state;
  const [, T] = sizes(state.shape, 3);
  const R = rows.length;
  const logits = readout(takeRows(state.reshape([T, -1]), device.tensor(Uint32Array.from(rows), [R]))); // [R, V]
  const best = await topK(logSoftmax(logits), device.tensor(new Float32Array(R), [R]), 1, K).read(); // [2, R, K]
  const logprobs = new Float32Array(best.buffer, best.byteOffset, R * K);
  const losses = await tokenLosses(logits, [targets]).read();
  return rows.map((_, r) => ({
    top: Array.from({ length: K }, (_, k) => ({ id: best[(R + r) * K + k]!, logprob: logprobs[r * K + k]! })),
    logprob: targets[r] === IGNORE_INDEX ? null : -losses[r]!,
  }));
}

/** The mean over layers and heads. @param layers f32[F, H, Q, 1 + N] each @returns f32[N] for each of F * Q queries */
async function mapsOf(layers: readonly Tensor[]): Promise<Float32Array[]> {
  const means = await headMeans(layers);
  return means[0]!.flatMap((_, frame) => {
    const { rows, columns, data } = meanOf(means.map((layer) => layer[frame]!));
    const ofQuery = (q: number) => data.subarray(q * columns + 1, (q + 1) * columns); // the class token is first
    return Array.from({ length: rows }, (_, q) => Float32Array.from(ofQuery(q)));
  });
}
