/** From answered and failed questions to figures. The same rows give the same figures, however they were come by. */
import { METRICS, type Metric, type MetricName } from "./metrics.ts";
import type { Item } from "./task.ts";

/** What became of a question: an answer or an error, never an empty answer for an error. */
export type Row = Pick<Item, "id" | "kind" | "prompt" | "answers"> & {
  /** Its place in the data, from 0. */
  readonly index: number;
} & (
    | { readonly prediction: string; readonly error?: undefined }
    | { readonly prediction?: undefined; readonly error: { readonly code: string; readonly message: string } }
  );

/** Scores are 100 times the mean, as papers print them. */
export interface Figure {
  /** Of the answered questions; null where there is none. */
  readonly score: number | null;
  /** 95 %: Wilson's for shares, else mean ± 1.96 standard errors; null below two questions. */
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

/** Figures for rows in any order. */
export function summarize(metric: MetricName, rows: readonly Row[]): Summary {
  const ordered = [...rows].sort((a, b) => a.index - b.index);
  const answered = ordered.filter((row) => row.error === undefined);
  const scores = METRICS[metric].scores(answered);
  const kinds = new Set(ordered.map((row) => row.kind).filter((kind) => kind !== null));
  const figureOf = (kind?: string): Figure => {
    const mine = scores.filter((_, i) => kind === undefined || answered[i].kind === kind);
    const asked = ordered.filter((row) => kind === undefined || row.kind === kind).length;
    return { ...estimate(mine, METRICS[metric]), count: mine.length, failed: asked - mine.length };
  };
  return { metric, ...figureOf(), kinds: Object.fromEntries([...kinds].sort().map((kind) => [kind, figureOf(kind)])) };
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
    // Wilson 1927: of use at 100 % too, where the standard error is 0
    middle = (mean + Z ** 2 / (2 * n)) / (1 + Z ** 2 / n);
    half = (Z * Math.sqrt((mean * (1 - mean)) / n + Z ** 2 / (4 * n ** 2))) / (1 + Z ** 2 / n);
  } else {
    const squares = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0);
    half = Z * Math.sqrt(squares / (n - 1) / n);
  }
  return { score: 100 * mean, interval: [100 * Math.max(0, middle - half), 100 * Math.min(best, middle + half)] };
}
