/** Files of sweeps: a line with the settings of the run, then a line for each unit. */
import { hasShard, isIndex, joinShards, PartReader, type Shard, type ShardPart } from "../../evaluation/shards.ts";
import { isObject } from "../../evaluation/task.ts";
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
export const sweepReader = (name: string, kind: SweepSubject["kind"]) =>
  new PartReader<SweepSettings, SweepRow>(name, {
    ...{ command: kind, what: "part", line: "a line" },
    settings: ({ sweep }) => (isSettings(sweep, kind) ? sweep : undefined),
    row: (value, { units }) => {
      const row = value as unknown as SweepRow;
      const fits =
        isIndex(row.index, units) &&
        [row.group, row.row, row.column].every((name) => typeof name === "string") &&
        typeof row.logprob === "number";
      return fits ? row : undefined;
    },
  });

function isSettings(value: unknown, kind: SweepSubject["kind"]): value is SweepSettings {
  if (!hasShard(value)) return false;
  const { units, subject } = value as Partial<SweepSettings>;
  return (
    Number.isSafeInteger(units) &&
    units! >= 0 &&
    isObject(subject) &&
    subject.kind === kind &&
    isObject(subject.columns) &&
    (kind === "ablate") === (subject.corrupted_logprob === undefined) &&
    Array.isArray(subject.answer_tokens) &&
    subject.answer_tokens.every((token: unknown) => isObject(token) && typeof token.logprob === "number")
  );
}
