/**
 * Watermarks: a green list, whose tokens get a higher score, and SynthID, which selects tokens by tournaments; and the
 * detector of green lists. The same watermarks as Hugging Face's on the CPU; on CUDA its random numbers differ.
 *
 * Source: Kirchenbauer et al. 2023, On the Reliability of Watermarks for Large Language Models; Dathathri et al. 2024,
 * Scalable watermarking for identifying large language model outputs; transformers 5.18, generation/logits_process.py
 * and generation/watermarking.py.
 */
import { copyOf, optionsOf, refuseMore, refuseUnknown } from "../../../tensor/arguments.ts";
import { InputError } from "../../../tensor/errors.ts";
import { shown } from "../../../tensor/shown.ts";
import { valuesOf } from "../../config/options.ts";
import { expectIds } from "../../pretrained/inputs.ts";
import { softmax, topIndices } from "../arithmetic.ts";
import { randomBits, randperm, TorchGenerator } from "../torch_random.ts";
import type { LogitsProcessor } from "../types.ts";
import {
  checkWatermark,
  GREEN_LIST,
  SYNTH_ID,
  type SynthIDTextWatermarkingConfig,
  type WatermarkingConfig,
} from "./watermark_options.ts";

const f = Math.fround;

/** @param vocabulary rows of the head */
export function watermark(
  config: WatermarkingConfig | SynthIDTextWatermarkingConfig,
  vocabulary: number,
): LogitsProcessor {
  const process = "keys" in config ? synthID(config) : greenList(new GreenList(config, vocabulary));
  return Object.assign(process, { byId: true as const });
}

// --- green lists -------------------------------------------------------------------------------------------------------

const TABLE_SIZE = 1_000_003;
/** The table of the last key: its million numbers take 10 ms to make, and nearly all watermarks have the same key. */
let table: { readonly key: bigint; readonly numbers: Uint32Array } | undefined;

function tableOf(key: bigint): Uint32Array {
  if (table?.key !== key) table = { key, numbers: randperm(TABLE_SIZE, new TorchGenerator(key)) };
  return table.numbers;
}

/** Number of best tokens that "selfhash" tries. */
const CANDIDATES = 40;

class GreenList {
  readonly bias: number;
  readonly ratio: number;
  readonly width: number;
  readonly selfhash: boolean;
  readonly #size: number;
  readonly #vocabulary: number;
  readonly #key: bigint;

  constructor(config: WatermarkingConfig, vocabulary: number) {
    const { greenlist_ratio, bias, hashing_key, seeding_scheme, context_width } = valuesOf(GREEN_LIST, config);
    this.bias = f(bias);
    this.ratio = greenlist_ratio;
    this.width = context_width;
    this.selfhash = seeding_scheme === "selfhash";
    this.#size = Math.trunc(vocabulary * greenlist_ratio);
    this.#vocabulary = vocabulary;
    this.#key = BigInt(hashing_key);
  }

  /** The green list after `ids`; with "selfhash" they end with the token in question. */
  after(ids: readonly number[]): Uint32Array {
    const most = 2n ** 64n - 1n;
    const seed = this.selfhash ? this.#smallest(ids.slice(-this.width)) : this.#key * BigInt(ids.at(-1)!);
    const positive = ((seed % most) + most) % most; // a remainder as Python's
    return randperm(this.#vocabulary, new TorchGenerator(positive), this.#size);
  }

  /** The minimum of key · a · b, in i64 with PyTorch's overflow. */
  #smallest(ids: readonly number[]): bigint {
    const table = tableOf(this.#key);
    const of = (id: number) => BigInt(table[id % TABLE_SIZE]! + 1);
    const last = of(ids.at(-1)!);
    const products = ids.map((id) => BigInt.asIntN(64, this.#key * of(id) * last));
    return products.reduce((least, one) => (one < least ? one : least));
  }
}

function greenList(list: GreenList): LogitsProcessor {
  return (rows, scores) => {
    for (const [r, ids] of rows.entries()) {
      if (ids.length < list.width) continue;
      const row = scores[r]!;
      for (const id of greenIn(list, ids, row)) row[id]! += list.bias;
    }
  };
}

/** Ids whose scores are raised. */
function greenIn(list: GreenList, ids: readonly number[], scores: Float32Array): Iterable<number> {
  if (!list.selfhash) return list.after(ids);
  const best = topIndices(scores, Math.min(CANDIDATES, scores.length));
  const before = list.width > 1 ? ids.slice(1 - list.width) : [];
  return best.filter((id) => list.after([...before, id]).includes(id));
}

// --- SynthID -----------------------------------------------------------------------------------------------------------

const MULTIPLIER = 6364136223846793005n;
const F32_MIN = -3.4028234663852886e38;

/** One step of a linear congruential generator, i64. */
const mix = (hash: bigint, value: bigint) => BigInt.asIntN(64, (hash + value) * MULTIPLIER + 1n);

function synthID(config: SynthIDTextWatermarkingConfig): LogitsProcessor {
  const { ngram_len } = config;
  const { context_history_size, sampling_table_seed, sampling_table_size, skip_first_ngram_calls, debug_mode } =
    valuesOf(SYNTH_ID, config);
  const keys = config.keys.map(BigInt);
  const table = randomBits(sampling_table_size, new TorchGenerator(BigInt(sampling_table_seed)));
  const size = BigInt(sampling_table_size);
  const bit = (hash: bigint) => table[Number(((hash % size) + size) % size)]!;
  let past: { context: number[]; history: BigInt64Array }[] | undefined; // a row each
  let calls = 0;

  return (rows, scores) => {
    if (debug_mode) for (const row of scores) row.fill(1);
    if (past) for (const [r, ids] of rows.entries()) past[r]!.context.push(ids.at(-1)!);
    past ??= rows.map(() => ({
      context: new Array(ngram_len - 1).fill(0),
      history: new BigInt64Array(context_history_size),
    }));
    calls++;
    for (const [r, row] of scores.entries()) {
      const { context, history } = past[r]!;
      if (context.length >= ngram_len) context.shift();
      if (skip_first_ngram_calls && calls < ngram_len) continue;
      const hash = context.reduce((sum, id) => mix(sum, BigInt(id)), 1n);
      const seen = history.includes(hash);
      history.copyWithin(1, 0);
      history[0] = hash;
      if (!seen) tournament(row, (id) => keys.map((key) => bit(mix(mix(hash, BigInt(id)), key))));
    }
  };
}

/** Scores become log probabilities after a tournament round for each bit of `bitsOf`, in which 1 beats 0. */
function tournament(scores: Float32Array, bitsOf: (id: number) => number[]): void {
  const probabilities = softmax(scores);
  const left = [...probabilities.keys()].filter((id) => probabilities[id]! > 0); // the others stay at 0
  const players = left.map((id) => ({ id, bits: bitsOf(id) }));
  for (let round = 0; round < (players[0]?.bits.length ?? 0); round++) {
    let mass = 0;
    for (const { id, bits } of players) mass += bits[round]! * probabilities[id]!;
    mass = f(mass);
    for (const { id, bits } of players) probabilities[id]! *= f(1 + bits[round]! - mass);
  }
  for (const [id, p] of probabilities.entries()) scores[id] = p > 0 ? Math.log(p) : F32_MIN;
}

// --- detecting a green list ----------------------------------------------------------------------------------------

/** The detector's result, by Hugging Face's names. */
export interface WatermarkDetectorOutput {
  readonly num_tokens_scored: number;
  readonly num_green_tokens: number;
  readonly green_fraction: number;
  /** Standard deviations by which the number of green tokens exceeds the expected one. */
  readonly z_score: number;
  /** By Hugging Face's approximation. */
  readonly p_value: number;
  /** Whether z_score is above the threshold. */
  readonly prediction: boolean;
  readonly confidence: number;
}

/** Counts green tokens in rows of ids. SynthID's detector must be trained, and is not included. */
export class WatermarkDetector {
  readonly #list: GreenList;
  readonly #first: number | null | undefined;

  /**
   * @param model_config config.text_config of the model that wrote the text
   * @param watermarking_config that of the generation
   */
  constructor(
    model_config: {
      readonly vocab_size: number;
      readonly bos_token_id?: number | null;
      readonly decoder_start_token_id?: number | null;
    },
    watermarking_config: WatermarkingConfig = {},
    ...more: never[]
  ) {
    refuseMore("WatermarkDetector", more, 0, 2);
    checkWatermark("watermarking_config", watermarking_config, 0);
    if ("keys" in watermarking_config) {
      throw new InputError(
        "UNSUPPORTED_OPTION",
        "watermarking_config: a mark of SynthID is found by a detector that must be trained",
      );
    }
    const size: unknown = model_config?.vocab_size;
    if (!Number.isSafeInteger(size) || (size as number) < 1) {
      const hint = "it is the language model's: model.config.text_config";
      throw new InputError("BAD_INPUT", `WatermarkDetector needs a config with vocab_size, got ${shown(size)}`, {
        hint,
      });
    }
    this.#list = new GreenList(copyOf(watermarking_config), model_config.vocab_size);
    this.#first = model_config.decoder_start_token_id ?? model_config.bos_token_id;
  }

  /**
   * @param input_ids answers, preferably without their prompts, which have no watermark: [rows][T]
   * @param options z_threshold: default 3
   * @throws InputError BAD_INPUT if a row is too short to be watermarked
   */
  detect(
    input_ids: readonly (readonly number[])[],
    options: { z_threshold?: number } = {},
    ...more: never[]
  ): WatermarkDetectorOutput[] {
    const given = optionsOf("detect", [options, ...more], 1, 1);
    refuseUnknown("detect", given, ["z_threshold"]);
    const z_threshold = given.z_threshold ?? 3;
    if (typeof z_threshold !== "number" || !Number.isFinite(z_threshold)) {
      throw new InputError("PARAM_RANGE", `z_threshold must be a number, got ${shown(z_threshold)}`);
    }
    const rows = copyOf(input_ids);
    if (!Array.isArray(rows) || !rows.every(Array.isArray)) {
      throw new InputError("BAD_INPUT", `input_ids must be a list of rows of token ids, got ${shown(input_ids)}`);
    }
    expectIds("input_ids", rows, Number.MAX_SAFE_INTEGER);
    // As in HF, whose rows are a tensor: either all rows begin with the start token, or none.
    const start = rows[0]?.[0] === this.#first ? 1 : 0;
    return rows.map((ids) => this.#score(ids.slice(start), z_threshold));
  }

  #score(ids: readonly number[], threshold: number): WatermarkDetectorOutput {
    const { width, selfhash, ratio } = this.#list;
    if (ids.length <= width) {
      throw new InputError(
        "BAD_INPUT",
        `a watermark needs more than ${width} tokens to be detected, got ${ids.length}`,
      );
    }
    let green = 0;
    const n = ids.length - width + (selfhash ? 1 : 0);
    for (let last = ids.length - n; last < ids.length; last++) {
      const context = ids.slice(0, selfhash ? last + 1 : last);
      if (this.#list.after(context).includes(ids[last]!)) green++;
    }
    const z = (green - ratio * n) / Math.sqrt(n * ratio * (1 - ratio));
    const p = 1 - 0.5 * (1 + Math.sign(z) * (1 - Math.exp((-2 * z ** 2) / Math.PI)));
    return {
      num_tokens_scored: n,
      num_green_tokens: green,
      green_fraction: green / n,
      z_score: z,
      p_value: p,
      prediction: z > threshold,
      confidence: 1 - p,
    };
  }
}
