/**
 * Prediction files: a line with the settings of the run, then a line for each question. Merges the files of all shards of a
 * data set; an incomplete set is refused.
 */
import { METRICS, type Metric } from "./metrics.ts";
import { hasShard, isIndex, joinShards, PartReader, type Shard, type ShardPart } from "./shards.ts";
import type { Prediction } from "./summary.ts";
import { isObject, type Task } from "./task.ts";

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

export type PredictionFile = ShardPart<Settings, Prediction>;

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
export const predictionReader = (name: string) =>
  new PartReader<Settings, Prediction>(name, {
    ...{ command: "evaluate", what: "question", line: "a prediction" },
    settings: ({ evaluation }) => (isSettings(evaluation) ? evaluation : undefined),
    row: (value, { questions, task }) => {
      const row = value as unknown as Prediction;
      const ranked = (METRICS[task.metric] as Metric).candidates !== undefined;
      const fits =
        isIndex(row.index, questions) &&
        (typeof row.prediction === "string") !== isObject(row.error) &&
        (row.error !== undefined || !ranked || (isNumbers(row.scores) && isNumbers(row.right))) &&
        Array.isArray(row.answers) &&
        row.answers.every((answer) => typeof answer === "string") &&
        (row.kind === null || typeof row.kind === "string");
      return fits ? row : undefined;
    },
  });

function isNumbers(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === "number");
}

function isSettings(value: unknown): value is Settings {
  if (!hasShard(value)) return false;
  const { task, questions } = value as Partial<Settings>;
  return (
    Number.isSafeInteger(questions) && questions! >= 0 && isObject(task) && Object.hasOwn(METRICS, String(task.metric))
  );
}

/** The first setting that differs between two runs, if any. */
export function difference(a: Settings, b: Settings): string | undefined {
  return SAME.find((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name]));
}

/** Merges the prediction files of all shards. @throws InputError PARTS_DIFFER, PARTS_MISSING, PART_UNFINISHED */
export function joinParts(parts: ReadonlyMap<string, PredictionFile>): PredictionFile {
  const total = ({ questions }: Settings) => questions;
  return joinShards<Settings, Prediction>(parts, { difference, total, what: "questions", command: "evaluate" });
}
