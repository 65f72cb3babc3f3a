/**
 * Prediction files: a line with the settings of the run, then a line for each question. Merges the files of all shards of a
 * data set; an incomplete set is refused.
 */
import { InputError } from "../../tensor/errors.ts";
import { METRICS, type Metric } from "./metrics.ts";
import type { Prediction } from "./summary.ts";
import { isObject, parseObject, type Task } from "./task.ts";

/** The `i`-th of `n` interleaved shards, from 0. */
export interface Shard {
  readonly i: number;
  readonly n: number;
}

/** The first line, under "evaluation": all that scores depend on, besides the hardware. */
export interface Settings {
  readonly version: string;
  readonly task: Task;
  /** The folder's name. */
  readonly model: string;
  /** SHA-256 of the config and of the list of weights, not of the weights. */
  readonly model_sha256: string;
  readonly dtype: string;
  /** Option of from_pretrained(); absent if false. */
  readonly fix_vicuna_token_ids?: boolean;
  /** As from_pretrained() has it; absent if f32. */
  readonly compute_dtype?: string;
  /** Option of from_pretrained(); absent if f32. */
  readonly kv_cache_dtype?: string;
  readonly data: string;
  readonly data_sha256: string;
  /** Questions in the whole data. */
  readonly questions: number;
  readonly shard: Shard;
}

export interface PredictionFile {
  readonly settings: Settings;
  readonly rows: readonly Prediction[];
}

/** Settings that must agree between files to merge, and between a run and the file it resumes: all but file names. */
const SAME = [
  "version",
  "task",
  "model_sha256",
  "dtype",
  "fix_vicuna_token_ids",
  "compute_dtype",
  "kv_cache_dtype",
  "data_sha256",
  "questions",
] as const;

/** The first line of a prediction file. */
export function headerLine(settings: Settings): string {
  return `${JSON.stringify({ evaluation: settings })}\n`;
}

/** Reads a prediction file line by line. @throws InputError BAD_PART */
export class PredictionFileReader {
  readonly #name: string;
  readonly #rows: Prediction[] = [];
  readonly #seen = new Set<number>();
  #settings: Settings | undefined;
  #line = 0;

  constructor(name: string) {
    this.#name = name;
  }

  add(text: string): void {
    const where = `${this.#name}: line ${++this.#line}`;
    const value = parseObject(text, "BAD_PART", where);
    if (!this.#settings) {
      this.#settings = settingsOf(value.evaluation, where);
      return;
    }
    const row = value as unknown as Prediction;
    const { i, n } = this.#settings.shard;
    const ranked = (METRICS[this.#settings.task.metric] as Metric).candidates !== undefined;
    const fits =
      Number.isSafeInteger(row.index) &&
      row.index >= 0 &&
      row.index < this.#settings.questions &&
      (typeof row.prediction === "string") !== isObject(row.error) &&
      (row.error !== undefined || !ranked || (isNumbers(row.scores) && isNumbers(row.right))) &&
      Array.isArray(row.answers) &&
      row.answers.every((answer) => typeof answer === "string") &&
      (row.kind === null || typeof row.kind === "string");
    if (!fits) throw new InputError("BAD_PART", `${where}: this is not a prediction written by evaluate`);
    if (row.index % n !== i)
      throw new InputError("BAD_PART", `${where}: question ${row.index} is not in shard ${i}/${n}`);
    if (this.#seen.has(row.index)) throw new InputError("BAD_PART", `${where}: question ${row.index} is there twice`);
    this.#seen.add(row.index);
    this.#rows.push(row);
  }

  /** The file's content; undefined for an empty file. */
  file(): PredictionFile | undefined {
    return this.#settings && { settings: this.#settings, rows: this.#rows };
  }
}

function isNumbers(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === "number");
}

function settingsOf(value: unknown, where: string): Settings {
  const shard = isObject(value) && isObject(value.shard) ? value.shard : { i: -1, n: 0 };
  const task = isObject(value) && isObject(value.task) ? value.task : {};
  const counts = isObject(value) ? [shard.i, shard.n, value.questions] : [];
  const fits =
    counts.length > 0 &&
    counts.every((count) => Number.isSafeInteger(count) && (count as number) >= 0) &&
    (shard.i as number) < (shard.n as number) &&
    typeof task.metric === "string" &&
    Object.hasOwn(METRICS, task.metric);
  if (fits) return value as unknown as Settings;
  throw new InputError("BAD_PART", `${where}: not the first line of a file written by evaluate --out`);
}

/** The first setting that differs between two runs, if any. */
export function difference(a: Settings, b: Settings): string | undefined {
  return SAME.find((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name]));
}

/** How many of `questions` a shard has. */
export function sizeOf({ i, n }: Shard, questions: number): number {
  return Math.max(0, Math.ceil((questions - i) / n));
}

/** Lines of a shard, after a line with the settings of its run. */
export interface ShardPart<S extends { readonly shard: Shard }, R> {
  readonly settings: S;
  readonly rows: readonly R[];
}

/** What is joined: its settings' differences, how many rows they have in all, and what these are called. */
interface Joined<S> {
  readonly difference: (a: S, b: S) => string | undefined;
  readonly total: (settings: S) => number;
  readonly what: string;
  readonly command: string;
}

/** Merges the prediction files of all shards. @throws InputError PARTS_DIFFER, PARTS_MISSING, PART_UNFINISHED */
export function joinParts(parts: ReadonlyMap<string, PredictionFile>): PredictionFile {
  const total = ({ questions }: Settings) => questions;
  return joinShards<Settings, Prediction>(parts, { difference, total, what: "questions", command: "evaluate" });
}

/** Merges the files of all shards of a run. @throws InputError PARTS_DIFFER, PARTS_MISSING, PART_UNFINISHED */
export function joinShards<S extends { readonly shard: Shard }, R>(
  parts: ReadonlyMap<string, ShardPart<S, R>>,
  { difference, total, what, command }: Joined<S>,
): ShardPart<S, R> {
  const [head, ...others] = parts;
  if (!head) throw new InputError("PARTS_MISSING", "there are no files to merge");
  const [firstName, first] = head;
  const { n } = first.settings.shard;
  const names = new Map([[first.settings.shard.i, firstName]]);
  for (const [name, { settings }] of others) {
    const other = settings.shard.n === n ? difference(first.settings, settings) : "shard";
    if (other)
      throw new InputError("PARTS_DIFFER", `${name} and ${firstName} are not of one run: they differ in ${other}`);
    const twin = names.get(settings.shard.i);
    if (twin !== undefined) {
      throw new InputError("PARTS_DIFFER", `${name} and ${twin} are the same shard, ${settings.shard.i}/${n}`);
    }
    names.set(settings.shard.i, name);
  }
  const missing = Array.from({ length: n }, (_, i) => i).filter((i) => !names.has(i));
  if (missing.length > 0) {
    throw new InputError("PARTS_MISSING", `shards are missing: ${missing.map((i) => `${i}/${n}`).join(", ")}`);
  }
  for (const [name, { settings, rows }] of parts) {
    const size = sizeOf(settings.shard, total(settings));
    if (rows.length === size) continue;
    const message = `${name}: ${rows.length} of ${size} ${what} are done`;
    throw new InputError("PART_UNFINISHED", message, { hint: `${command} --resume completes it` });
  }
  return {
    settings: { ...first.settings, shard: { i: 0, n: 1 } },
    rows: [...parts.values()].flatMap(({ rows }) => rows),
  };
}
