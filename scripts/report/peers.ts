/** Other engines beside this project, job by job: how many times as long they take, with the interval where rounds were kept. */

import { ENGINE_NAMES, ENGINES, type EngineName } from "../../bench/peers/engine.ts";
import {
  basisOf,
  type Comparison,
  compareRows,
  GEMM_MEAN_BAR,
  meanOf,
  type PeerRow,
} from "../../bench/peers/results.ts";
import { formatTime } from "../../bench/report.ts";
import { ratioOf } from "../../bench/stats.ts";
import { SERIES, SYMBOLS } from "./drawing.ts";
import { type Figure, type Key, tableOf } from "./figure.ts";
import { drawForest } from "./forest.ts";

/** Intervals have 95 %. */
const ALPHA = 0.05;

/** One engine's time over ours. */
interface Beside {
  readonly job: string;
  readonly row: PeerRow;
  readonly engine: string;
  readonly ours: PeerRow | undefined;
  readonly ratio: number | null;
  readonly interval: readonly [number, number] | null;
  /** The one that the target is about. */
  readonly isRival: boolean;
  readonly comparison: Comparison;
}

/** Colours of the others, and of our own f32. */
const OTHERS = ENGINE_NAMES.filter((name) => name !== "ours");
const looks = (engine: EngineName) => {
  const i = engine === "ours" ? OTHERS.length : OTHERS.indexOf(engine);
  return { color: SERIES[i % SERIES.length], symbol: SYMBOLS[i % SYMBOLS.length] };
};
const titleOf = (engine: EngineName) => (engine === "ours" ? "this project's f32" : ENGINES[engine].title);

/** @param rows of one machine */
export function peersFigure(rows: readonly PeerRow[]): Figure {
  const comparisons = compareRows(newest(rows));
  const basis = basisOf(rows[0]);
  const all = comparisons.flatMap((comparison) => besides(comparison, basis));
  const points = all.flatMap((each, row) => (each.ratio === null ? [] : [{ ...each, at: row }]));
  const items = comparisons
    .map(({ job, bar }) => ({
      label: job,
      bar,
      ratios: points
        .filter((point) => point.job === job)
        .map(({ row: { engine }, ratio, interval, at }) => ({ value: ratio!, interval, ...looks(engine), row: at })),
    }))
    .filter(({ ratios }) => ratios.length > 0);
  const engines = [...ENGINE_NAMES].filter((name) => points.some(({ row }) => row.engine === name));
  const key: Key[] = engines.map((name) => {
    const { color, symbol } = looks(name);
    return { label: titleOf(name), color, mark: symbol === "circle" ? "dot" : symbol };
  });
  return {
    title: "Other engines",
    summary: [
      `Median ${basis === "cpu" ? "CPU" : "wall"} time of an engine, divided by this project's; to the right of 1 this project is faster.`,
      "Of narrow weights, this project's own f32. The upright bar is what the project asks of itself.",
      ...verdicts(comparisons, basis),
      intervalWords(points),
    ],
    key: [...key, { label: "asked for", color: "var(--ink)", mark: "line" }],
    ...(items.length && { draw: (width: number) => drawForest(items, "times as long as this project", width) }),
    tables: [
      tableOf("jobs and engines", all, [
        { title: "job", left: true, cell: ({ job }) => job },
        { title: "engine", left: true, cell: ({ engine }) => engine },
        { title: "version", left: true, cell: ({ row }) => row.version },
        { title: "way", left: true, cell: ({ row }) => row.way },
        { title: "time", cell: ({ row }) => formatTime(timeOf(row, basis)) },
        { title: "this project", cell: ({ ours }) => (ours ? formatTime(timeOf(ours, basis)) : "") },
        { title: "ratio", cell: ({ ratio }) => (ratio === null ? "" : `${ratio.toFixed(2)}x`) },
        {
          title: "95 % interval",
          cell: ({ interval }) => (interval ? interval.map((end) => end.toFixed(2)).join(" to ") : ""),
        },
        { title: "bar", cell: ({ isRival, comparison: { bar } }) => (isRival && bar !== null ? `${bar}x` : "") },
        {
          title: "",
          left: true,
          cell: ({ isRival, comparison: { met } }) => (isRival && met !== null ? (met ? "met" : "missed") : ""),
        },
        { title: "note", left: true, cell: ({ row }) => row.note ?? "" },
      ]),
    ],
  };
}

function intervalWords(points: readonly Beside[]): string {
  if (points.some(({ interval }) => interval)) {
    return `Lines are intervals of ${100 * (1 - ALPHA)} % from the rounds of one run, which take turns.`;
  }
  return points.some(({ row }) => row.samples)
    ? "There are too few rounds for intervals: --rounds 5 are enough."
    : "The rows do not keep their rounds, so there are no intervals: measure again for them.";
}

const timeOf = (row: PeerRow, basis: "cpu" | "wall") => (basis === "cpu" ? row.cpu_ms : row.ms);

/** The newest row of each engine and job. */
function newest(rows: readonly PeerRow[]): PeerRow[] {
  const latest = new Map<string, PeerRow>();
  for (const row of rows) {
    const key = `${row.job}|${row.engine}`;
    const known = latest.get(key);
    if (!known || row.date >= known.date) latest.set(key, row);
  }
  return [...latest.values()];
}

/** The others' rows of a job; of narrow weights, our own f32. */
function besides(comparison: Comparison, basis: "cpu" | "wall"): Beside[] {
  const { job, rows, rival } = comparison;
  const ours = rows.get("ours");
  const others = [...rows.values()].filter(({ engine }) => engine !== "ours");
  if (rival?.engine === "ours") others.push(rival);
  return others.map((row) => {
    const [time, own] = [timeOf(row, basis), ours ? timeOf(ours, basis) : null];
    const [theirs, samples] = [row.samples?.[basis], ours?.samples?.[basis]];
    const hasRounds = theirs && samples && theirs.length > 0 && samples.length > 0;
    return {
      ...{ job, row, ours, comparison, isRival: row === rival, engine: titleOf(row.engine) },
      ratio: time && own ? time / own : null,
      interval: time && own && hasRounds ? ratioOf(samples, theirs, ALPHA).interval : null,
    };
  });
}

function verdicts(comparisons: readonly Comparison[], basis: "cpu" | "wall"): string[] {
  const judged = comparisons.filter(({ met }) => met !== null);
  const missed = judged.filter(({ met }) => !met);
  const mean = meanOf(comparisons, "gemm")[basis];
  const words: string[] = [];
  if (judged.length)
    words.push(
      `${judged.length - missed.length} of ${judged.length} bars are met${missed.length ? `; missed: ${missed.map(({ job }) => job).join("; ")}` : ""}.`,
    );
  if (mean !== null)
    words.push(
      `GEMM, geometric mean of the fastest other WebGPU engine: ${mean.toFixed(2)}x; asked for: ${GEMM_MEAN_BAR}x.`,
    );
  return words;
}
