/** Scores of predictions. They do not depend on the order of predictions or on sharding. */
import { METRICS, type Metric, type MetricName, type Pooled } from "./metrics.ts";
import type { Question } from "./task.ts";

/** A question's prediction, or its error. */
export type Prediction = Pick<Question, "id" | "kind" | "prompt" | "answers"> & {
  /** Its place in the data, from 0. */
  readonly index: number;
} & (
    | {
        readonly prediction: string;
        /** NLL of each candidate, and the correct ones, if the metric is of candidates. */
        readonly scores?: readonly number[];
        readonly right?: readonly number[];
        readonly error?: undefined;
      }
    | { readonly prediction?: undefined; readonly error: { readonly code: string; readonly message: string } }
  );

/** Scores are 100 times the mean, as papers print them. */
export interface Figure {
  /** Of the answered questions; null if there is none. */
  readonly score: number | null;
  /** 95 %: Wilson's for proportions, else ± 1.96 standard errors, of an AUC DeLong's; null for too few questions. */
  readonly interval: readonly [low: number, high: number] | null;
  /** Answered questions. */
  readonly count: number;
  /** Questions without an answer, which are not in the score. */
  readonly failed: number;
}

export interface Summary extends Figure {
  readonly metric: MetricName;
  /** By kind, if any question has one. */
  readonly kinds: Readonly<Record<string, Figure>>;
}

/** Scores of predictions in any order. */
export function summarize(name: MetricName, rows: readonly Prediction[]): Summary {
  const metric: Metric = METRICS[name];
  const ordered = [...rows].sort((a, b) => a.index - b.index);
  const answered = ordered.filter((row) => row.error === undefined);
  const scores = "scores" in metric ? metric.scores(answered) : [];
  const kinds = new Set(ordered.map((row) => row.kind).filter((kind) => kind !== null));
  const figureOf = (kind?: string): Figure => {
    const mine = answered.filter((row) => kind === undefined || row.kind === kind);
    const figure =
      "scores" in metric
        ? estimate(
            scores.filter((_, i) => kind === undefined || answered[i]!.kind === kind),
            metric,
          )
        : withinReach(metric.pooled(mine), metric);
    const asked = ordered.filter((row) => kind === undefined || row.kind === kind).length;
    return { ...figure, count: mine.length, failed: asked - mine.length };
  };
  return {
    metric: name,
    ...figureOf(),
    kinds: Object.fromEntries([...kinds].sort().map((kind) => [kind, figureOf(kind)])),
  };
}

/** Of 95 % of a normal distribution. */
const Z = 1.959963984540054;

function estimate(scores: readonly number[], { binary, best }: Metric): Pick<Figure, "score" | "interval"> {
  const n = scores.length;
  if (n === 0) return { score: null, interval: null };
  const mean = scores.reduce((sum, score) => sum + score, 0) / n;
  if (n === 1) return { score: 100 * mean, interval: null };
  let [middle, half] = [mean, 0];
  if (binary) {
    // Wilson 1927: valid at 100 % too, where the standard error is 0
    middle = (mean + Z ** 2 / (2 * n)) / (1 + Z ** 2 / n);
    half = (Z * Math.sqrt((mean * (1 - mean)) / n + Z ** 2 / (4 * n ** 2))) / (1 + Z ** 2 / n);
  } else {
    const squares = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0);
    half = Z * Math.sqrt(squares / (n - 1) / n);
  }
  return { score: 100 * mean, interval: ends(middle, half, best) };
}

function withinReach(pooled: Pooled | null, { best }: Metric): Pick<Figure, "score" | "interval"> {
  if (!pooled) return { score: null, interval: null };
  const { score, error } = pooled;
  return { score: 100 * score, interval: error === null ? null : ends(score, Z * error, best) };
}

/** Times 100, clamped to the range of a score. */
function ends(middle: number, half: number, best: number): [number, number] {
  return [100 * Math.max(0, middle - half), 100 * Math.min(best, middle + half)];
}
