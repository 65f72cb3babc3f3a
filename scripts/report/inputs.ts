/**
 * Files of results, told apart by what is in them. What a chart reads is checked first: a row that is not understood is refused
 * with its line. Pure.
 */
import { type Comparison as BenchComparison, UNITS } from "../../bench/compare.ts";
import { type DataRow, SETTINGS } from "../../bench/dataset/results.ts";
import { ENGINE_NAMES } from "../../bench/peers/engine.ts";
import { KINDS, type PeerRow } from "../../bench/peers/results.ts";
import type { Row } from "../../bench/rows.ts";
import type { ProfileSums } from "../../src/instructblip/instruments/profile/report.ts";
import type { Limits } from "../../src/tensor/limits.ts";
import { bounded, shown } from "../../src/tensor/shown.ts";
import {
  type Check,
  checkFields,
  count,
  flag,
  isRecord,
  listOf,
  number,
  object,
  oneOf,
  optional,
  orNull,
  pair,
  text,
} from "./fields.ts";

/** Of `npm run parity -- --json`. */
export interface ParityResult {
  readonly seed: string;
  readonly adapter: string;
  readonly rows: readonly ParityRow[];
}

/** One comparison with PyTorch. JSON has null for what is infinite or not a number. */
export interface ParityRow {
  readonly golden: string;
  readonly stage: string;
  readonly name: string;
  /** Of the tolerance; null: it failed whatever the tolerance. */
  readonly share: number | null;
  readonly maxAbs: number | null;
  readonly nmse: number | null;
  readonly exact?: true;
}

/** Of `npm run quality -- --json`. */
export interface QualityResult {
  readonly adapter: string;
  readonly questions: number;
  readonly modes: readonly QualityRow[];
}

/** What a dtype costs. KL divergences in nats, of the next token's distribution from that of f32; shares from 0 to 1. */
export interface QualityRow {
  readonly dtype: string;
  readonly tokens: number;
  readonly mean_kl: number;
  readonly kl_99: number;
  readonly max_kl: number;
  readonly top_1: number;
  readonly same_answers: number;
  readonly accuracy: number;
  readonly gate: { readonly mean_kl: number; readonly top_1: number } | null;
}

/** Of `instructblip compare --json`. */
export interface ComparisonResult {
  readonly a: string;
  readonly b: string;
  /** NMSE. */
  readonly tolerance: number;
  readonly by_itself: boolean;
  readonly ordered: boolean;
  readonly tensors: readonly ComparedTensor[];
  readonly only_a: readonly string[];
  readonly only_b: readonly string[];
}

export interface ComparedTensor {
  readonly name: string;
  readonly module: string;
  readonly at: "input" | "output";
  readonly different: "shape" | "not finite" | "error" | null;
  readonly nmse: number | null;
  readonly inherited: number | null;
  readonly added: number | null;
  readonly max_abs: number | null;
  readonly cosine: number | null;
}

/** Of `instructblip profile --json`. */
export interface ProfileResult {
  readonly adapter: string;
  readonly model: string;
  readonly prompt: string;
  readonly clock: string;
  readonly limits: Limits;
  readonly phases: readonly {
    readonly name: string;
    readonly total_ms: number;
    readonly launches: number;
    readonly ms: number;
    readonly modules: readonly (ProfileSums & { readonly module: string })[];
    readonly kernels: readonly (ProfileSums & { readonly kernel: string })[];
  }[];
}

/** A file's results. Several may have a path: versions of one file. */
export type Results =
  | { readonly kind: "bench"; readonly path: string; readonly rows: readonly Row[] }
  | { readonly kind: "peers"; readonly path: string; readonly rows: readonly PeerRow[] }
  | { readonly kind: "dataset"; readonly path: string; readonly rows: readonly DataRow[] }
  | { readonly kind: "changes"; readonly path: string; readonly result: BenchComparison }
  | { readonly kind: "parity"; readonly path: string; readonly result: ParityResult }
  | { readonly kind: "quality"; readonly path: string; readonly result: QualityResult }
  | { readonly kind: "comparison"; readonly path: string; readonly result: ComparisonResult }
  | { readonly kind: "profile"; readonly path: string; readonly result: ProfileResult };

export const KINDS_OF_FILES =
  "bench, bench:peers, bench:dataset, bench --compare, parity, quality, instructblip compare, instructblip profile";

const MACHINE = {
  ...{ adapter: text, cpu: text, os: text, node: text, webgpu: text, commit: text, cores: count, software: flag },
  date: ["a date", (value: unknown) => typeof value === "string" && !Number.isNaN(Date.parse(value))] as Check,
};
const CHECKED = orNull(object({ share: orNull(number) }));
const SAMPLES = { wall: listOf(number), cpu: listOf(number) };

const BENCH_ROW = {
  ...MACHINE,
  ...{ kernel: text, variant: text, planned: flag, shape: text, check: CHECKED, note: optional(text) },
  ...{ first_ms: orNull(number), ms: orNull(number), ms_min: orNull(number) },
  ...{ cpu_ms: orNull(number), cpu_ms_min: orNull(number), gpu_ms: orNull(number), gpu_ms_min: orNull(number) },
  samples: optional(object({ ...SAMPLES, gpu: listOf(number) })),
  basis: oneOf("cpu", "gpu", "wall"),
  caches: optional(orNull(oneOf("hot", "cold", "start"))),
  ...{
    launches: count,
    flops: count,
    bytes: count,
    gflops: orNull(number),
    gbs: orNull(number),
    share: orNull(number),
  },
  bound: orNull(oneOf("launch", "arithmetic", "memory", "cache")),
  tokens_per_second: optional(orNull(number)),
  per_token: optional(object({ launches: number, submits: number, bind_groups: number, buffers: number })),
};

const PEER_ROW = {
  ...MACHINE,
  ...{ engine: oneOf(...ENGINE_NAMES), version: text, engine_adapter: text, job: text, kind: oneOf(...KINDS) },
  ...{ weight: optional(text), way: text, check: CHECKED, note: optional(text) },
  ...{ ms: orNull(number), cpu_ms: orNull(number), samples: optional(object(SAMPLES)) },
};

const DATA_ROWS = {
  run: {
    ...{ ...MACHINE, setting: oneOf(...SETTINGS), command: oneOf("evaluate", "generate"), part: count },
    ...{ questions: count, workers: count, per_second: count, busy: count },
  },
  images: { ...MACHINE, images: count, bytes: count, workers: count, main_ms: count, ms: count },
} as const satisfies Record<DataRow["kind"], Readonly<Record<string, Check>>>;

const COMPARED = {
  ...{ kernel: text, variant: text, shape: text, clock: text, unit: oneOf(...UNITS), ratio: number, p: number },
  ...{ base: object({ ms: number, n: count }), new: object({ ms: number, n: count }), interval: orNull(pair(number)) },
  change: oneOf("slower", "faster", "none", "unknown"),
};
const SUMS = {
  ...{ launches: count, ms: count, share: count, flops: count, bytes: count, limit_ms: count, bound: text },
  ...{ gflops: orNull(number), gbs: orNull(number), of_limit: orNull(number) },
};
const SIDE = object({ commits: listOf(text), machine: text });

/** The files of one JSON object: the fields that tell one apart, then what is checked of it and of its rows. */
const OBJECTS: Readonly<
  Record<
    "changes" | "parity" | "quality" | "comparison" | "profile",
    {
      readonly signs: readonly string[];
      readonly fields: Readonly<Record<string, Check>>;
      readonly list: string;
      readonly row: Readonly<Record<string, Check>>;
    }
  >
> = {
  changes: {
    signs: ["alpha", "geometric_mean", "rows"],
    fields: { alpha: number, geometric_mean: number, base: SIDE, new: SIDE, wrong: listOf(text), notes: listOf(text) },
    list: "rows",
    row: COMPARED,
  },
  parity: {
    signs: ["seed", "adapter", "rows"],
    fields: { seed: text, adapter: text },
    list: "rows",
    row: {
      ...{ golden: text, stage: text, name: text, exact: optional(flag) },
      ...{ share: orNull(number), maxAbs: orNull(number), nmse: orNull(number) },
    },
  },
  quality: {
    signs: ["questions", "adapter", "modes"],
    fields: { adapter: text, questions: count },
    list: "modes",
    row: {
      ...{ dtype: text, tokens: count, mean_kl: number, kl_99: number, max_kl: number, top_1: number },
      ...{ same_answers: number, accuracy: number, gate: orNull(object({ mean_kl: number, top_1: number })) },
    },
  },
  comparison: {
    signs: ["a", "b", "tolerance", "tensors"],
    fields: {
      ...{ a: text, b: text, tolerance: number, by_itself: flag, ordered: flag },
      ...{ only_a: listOf(text), only_b: listOf(text) },
    },
    list: "tensors",
    row: {
      ...{ name: text, module: text, at: oneOf("input", "output"), nmse: orNull(number) },
      ...{ inherited: orNull(number), added: orNull(number), max_abs: orNull(number), cosine: orNull(number) },
      different: orNull(oneOf("shape", "not finite", "error")),
    },
  },
  profile: {
    signs: ["adapter", "clock", "limits", "phases"],
    fields: {
      ...{ adapter: text, model: text, prompt: text, clock: text },
      limits: object({
        ...{ ms_per_launch: number, ms_per_flop: number, ms_per_cached_byte: number, ms_per_byte: number },
        cached_bytes: number,
      }),
    },
    list: "phases",
    row: {
      ...{ name: text, total_ms: count, launches: count, ms: count },
      modules: listOf(object({ module: text, ...SUMS })),
      kernels: listOf(object({ kernel: text, ...SUMS })),
    },
  },
};

/**
 * A file's results.
 *
 * @param path for messages
 * @throws Error with path and line if it is none of the known kinds, or a row lacks what a chart needs
 */
export function parseResults(path: string, text: string): Results {
  if (!text.trim()) throw new Error(`${path}: is empty`);
  const whole = parsed(text);
  return isRecord(whole) && !isRow(whole) ? parseObject(path, whole) : parseRows(path, text);
}

function parseObject(path: string, value: Readonly<Record<string, unknown>>): Results {
  const kinds = Object.keys(OBJECTS) as (keyof typeof OBJECTS)[];
  const kind = kinds.find((name) => OBJECTS[name].signs.every((field) => Object.hasOwn(value, field)));
  if (kind === undefined) {
    throw new Error(
      `${path}: is not a file of results (${KINDS_OF_FILES}): it has ${bounded(Object.keys(value).join(", "), 80) || "no fields"}`,
    );
  }
  const { fields, list, row } = OBJECTS[kind];
  checkFields(path, value, fields);
  const rows = value[list];
  if (!Array.isArray(rows)) throw new Error(`${path}: ${list} must be a list, got ${shown(rows)}`);
  for (const [i, each] of rows.entries()) checkFields(`${path}: ${list}[${i}]`, each, row);
  return { kind, path, result: value } as unknown as Results;
}

const isBenchRow = (value: Readonly<Record<string, unknown>>) => "kernel" in value && "shape" in value;
const isPeerRow = (value: Readonly<Record<string, unknown>>) => "job" in value && "engine" in value;
const isDataRow = (value: Readonly<Record<string, unknown>>) =>
  Object.hasOwn(DATA_ROWS, String(value.kind)) && "workers" in value;
const isRow = (value: Readonly<Record<string, unknown>>) => isBenchRow(value) || isPeerRow(value) || isDataRow(value);

type RowKind = "bench" | "peers" | "dataset";
const SCRIPTS: Readonly<Record<RowKind, string>> = { bench: "bench", peers: "bench:peers", dataset: "bench:dataset" };

function parseRows(path: string, text: string): Results {
  const rows: unknown[] = [];
  let kind: RowKind | undefined;
  for (const [i, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    const where = `${path}: line ${i + 1}`;
    const row = parsed(line);
    if (!isRecord(row) || !isRow(row)) {
      const got = row === undefined ? bounded(line.trim(), 60) : shown(row);
      throw new Error(`${where}: is not a row of results (${KINDS_OF_FILES}): ${got}`);
    }
    const own = isBenchRow(row) ? "bench" : isPeerRow(row) ? "peers" : "dataset";
    kind ??= own;
    checkFields(where, row, fieldsOf(own, row));
    if (own !== kind) throw new Error(`${where}: rows of ${SCRIPTS[kind]} and of ${SCRIPTS[own]} in one file`);
    rows.push(row);
  }
  return { kind, path, rows } as unknown as Results;
}

function fieldsOf(kind: RowKind, row: Readonly<Record<string, unknown>>): Readonly<Record<string, Check>> {
  if (kind === "dataset") return DATA_ROWS[row.kind as DataRow["kind"]];
  return kind === "bench" ? BENCH_ROW : PEER_ROW;
}

/** undefined: not JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
