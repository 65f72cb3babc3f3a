/** Files of sweeps: a line with the settings of the run, then a line for each unit. */
import { InputError } from "../../../tensor/errors.ts";
import { joinShards, type Shard, type ShardPart } from "../../evaluation/prediction_file.ts";
import { isObject, parseObject } from "../../evaluation/task.ts";
import type { SweepRow, SweepSubject } from "./report.ts";

/** The first line, under "sweep". */
export interface SweepSettings {
  readonly version: string;
  /** The folder's name. */
  readonly model: string;
  /** SHA-256 of the config and of a part of the weights. */
  readonly model_sha256: string;
  readonly dtype: string;
  /** SHA-256 of the images' pixels. */
  readonly images_sha256: string;
  readonly subject: SweepSubject;
  /** Of the whole sweep. */
  readonly units: number;
  /** Names of groups. */
  readonly groups: readonly string[];
  readonly shard: Shard;
}

export type SweepFile = ShardPart<SweepSettings, SweepRow>;

export function headerLine(settings: SweepSettings): string {
  return `${JSON.stringify({ sweep: settings })}\n`;
}

/** The first setting that differs between two runs, if any: of numbers that were measured only the answer's ids count. */
export function difference(a: SweepSettings, b: SweepSettings): string | undefined {
  const of = ({ subject, ...settings }: SweepSettings) => ({
    kind: subject.kind,
    ...settings,
    prompt: subject.prompt,
    corrupted_prompt: subject.corrupted_prompt,
    mean: subject.mean_images?.length,
    answer: subject.answer_tokens.map(({ id }) => id),
    model: undefined,
    shard: undefined,
  });
  const [one, other] = [of(a), of(b)];
  const names = Object.keys(one) as (keyof typeof one)[];
  return names.find((name) => JSON.stringify(one[name]) !== JSON.stringify(other[name]));
}

/** Merges the files of all shards. @throws InputError PARTS_DIFFER, PARTS_MISSING, PART_UNFINISHED */
export function joinSweeps(parts: ReadonlyMap<string, SweepFile>): SweepFile {
  const command = [...parts.values()][0]?.settings.subject.kind ?? "ablate";
  return joinShards(parts, { difference, total: ({ units }) => units, what: "parts", command });
}

/** Reads a file line by line. @throws InputError BAD_PART */
export class SweepFileReader {
  readonly #name: string;
  readonly #kind: SweepSubject["kind"];
  readonly #rows: SweepRow[] = [];
  readonly #seen = new Set<number>();
  #settings: SweepSettings | undefined;
  #line = 0;

  constructor(name: string, kind: SweepSubject["kind"]) {
    this.#name = name;
    this.#kind = kind;
  }

  add(text: string): void {
    const where = `${this.#name}: line ${++this.#line}`;
    const value = parseObject(text, "BAD_PART", where);
    if (!this.#settings) {
      this.#settings = settingsOf(value.sweep, this.#kind, where);
      return;
    }
    const row = value as unknown as SweepRow;
    const { shard, units } = this.#settings;
    const fits =
      Number.isSafeInteger(row.index) &&
      row.index >= 0 &&
      row.index < units &&
      [row.group, row.row, row.column].every((name) => typeof name === "string") &&
      typeof row.logprob === "number";
    if (!fits) throw new InputError("BAD_PART", `${where}: this is not a line written by ${this.#kind}`);
    if (row.index % shard.n !== shard.i) {
      throw new InputError("BAD_PART", `${where}: part ${row.index} is not in shard ${shard.i}/${shard.n}`);
    }
    if (this.#seen.has(row.index)) throw new InputError("BAD_PART", `${where}: part ${row.index} is there twice`);
    this.#seen.add(row.index);
    this.#rows.push(row);
  }

  /** The file's content; undefined for an empty file. */
  file(): SweepFile | undefined {
    return this.#settings && { settings: this.#settings, rows: this.#rows };
  }
}

function settingsOf(value: unknown, kind: SweepSubject["kind"], where: string): SweepSettings {
  const subject = isObject(value) && isObject(value.subject) ? value.subject : {};
  const shard = isObject(value) && isObject(value.shard) ? value.shard : { i: -1, n: 0 };
  const counts = [shard.i, shard.n, isObject(value) ? value.units : undefined];
  const fits =
    counts.every((count) => Number.isSafeInteger(count) && (count as number) >= 0) &&
    (shard.i as number) < (shard.n as number) &&
    subject.kind === kind &&
    isObject(subject.columns) &&
    (kind === "ablate") === (subject.corrupted_logprob === undefined) &&
    Array.isArray(subject.answer_tokens) &&
    subject.answer_tokens.every((token: unknown) => isObject(token) && typeof token.logprob === "number");
  if (fits) return value as SweepSettings;
  throw new InputError("BAD_PART", `${where}: not the first line of a file written by ${kind} --out`);
}
