/**
 * The kernels of one adapter under its limits: those that compute by operations a byte (roofline), those that only move data by the
 * bytes of a run.
 */
import { limitsOf } from "../../bench/limits.bench.ts";
import { formatRate, formatTime, KERNEL_COLUMNS, MODEL_COLUMNS } from "../../bench/report.ts";
import { isWrong, median, type Row } from "../../bench/rows.ts";
import type { Limits } from "../../src/tensor/limits.ts";
import { INK, SOFT } from "./drawing.ts";
import { FAMILIES, familyOf } from "./families.ts";
import { type Figure, type Key, tableOf } from "./figure.ts";
import { cachedGbs, drawBandwidth, drawRoofline, gflopsOf, memoryGbs, type Point } from "./roofline_chart.ts";

/** The newest row of every case, in the order in which cases came. */
export function newestRows(rows: readonly Row[]): Row[] {
  const newest = new Map<string, Row>();
  for (const row of rows) {
    const key = [row.kernel, row.variant, row.shape].join("|");
    const known = newest.get(key);
    if (!known || row.date >= known.date) newest.set(key, row);
  }
  return [...newest.values()];
}

/** The limits that the newest run has measured; null if it has not. */
export function measuredLimits(rows: readonly Row[]): Limits | null {
  const all = rows.filter(({ kernel }) => kernel === "limit");
  const last = all.reduce((latest, { date }) => (date > latest ? date : latest), "");
  const limits = all.filter(({ date }) => date === last);
  const sizes = limits.filter(({ variant }) => variant === "copy" || variant === "read").map(({ bytes }) => bytes);
  if (sizes.length === 0) return null;
  const memory = { cached: Math.min(...sizes), main: Math.max(...sizes) };
  try {
    return limitsOf(limits, { memory });
  } catch {
    return null; // one of them was not timed
  }
}

/** @param rows of one adapter */
export function rooflineFigures(rows: readonly Row[]): Figure[] {
  const newest = newestRows(rows).filter(({ kernel }) => kernel !== "limit");
  const limits = measuredLimits(rows);
  return [rooflineFigure(newest, limits), bandwidthFigure(newest, limits), otherFigure(newest)].filter(
    (figure) => figure !== undefined,
  );
}

function rooflineFigure(rows: readonly Row[], limits: Limits | null): Figure | undefined {
  const all = rows.filter(({ flops }) => flops > 0);
  if (all.length === 0) return undefined;
  const points = pointsOf(all);
  return {
    title: "Roofline",
    summary: [
      `GFLOP/s over operations a byte of ${counted(all)}${limits ? ", under what this machine's limits allow" : ""}.`,
      ...limitWords(limits),
      ...shareWords(all),
      ...missing(all, points),
    ],
    key: keyOf(points, limits),
    ...(points.length && { draw: (width: number) => drawRoofline(points, limits, width, heightOf(width)) }),
    tables: [tableOf("kernels with arithmetic", all, columnsOf(all))],
  };
}

/** Those with a time, by operations a byte. */
export function pointsOf(rows: readonly Row[]): Point[] {
  return rows.flatMap((row, at) =>
    row.gflops && row.bytes > 0 ? [{ row, at, x: row.flops / row.bytes, y: row.gflops }] : [],
  );
}

function bandwidthFigure(rows: readonly Row[], limits: Limits | null): Figure | undefined {
  const all = rows.filter(({ flops, bytes }) => flops === 0 && bytes > 0);
  if (all.length === 0) return undefined;
  const points = all.flatMap((row, at) => (row.gbs ? [{ row, at, x: row.bytes, y: row.gbs }] : []));
  return {
    title: "Bandwidth of what only moves data",
    summary: [
      `GB/s over the bytes of a run of ${counted(all)}, whose arithmetic is not counted.`,
      ...(limits
        ? [`A launch takes ${formatTime(limits.ms_per_launch)}: small runs cannot be faster than the slanted line.`]
        : []),
      ...shareWords(all),
      ...missing(all, points),
    ],
    key: keyOf(points, limits),
    ...(points.length && {
      draw: (width: number) => drawBandwidth(points, limits, width, 0.8 * heightOf(width)),
    }),
    tables: [tableOf("kernels that move data", all, columnsOf(all))],
  };
}

/** Times of what has neither, such as the first answer. */
function otherFigure(rows: readonly Row[]): Figure | undefined {
  const all = rows.filter(({ flops, bytes }) => flops === 0 && bytes === 0);
  if (all.length === 0) return undefined;
  return {
    title: "Other times",
    summary: [
      "Times of what has no arithmetic or bytes to count.",
      ...all.map((row) => `${nameOf(row)}: ${formatTime(row.ms) || row.note || "no time"}.`),
    ],
    tables: [tableOf("other times", all, KERNEL_COLUMNS)],
  };
}

export const heightOf = (width: number) => Math.round(Math.min(560, Math.max(330, width * 0.56)));

function columnsOf(rows: readonly Row[]) {
  const [first, ...rest] = KERNEL_COLUMNS;
  const tokens = MODEL_COLUMNS.filter(({ title }) => title === "tokens/s");
  return [first, ...rest, ...(rows.some(({ tokens_per_second }) => tokens_per_second) ? tokens : [])];
}

function counted(rows: readonly Row[]): string {
  const planned = rows.filter((row) => row.planned).length;
  const others = rows.length - planned;
  const cases = (count: number, what: string) => `${count} ${count === 1 ? "case" : "cases"} ${what}`;
  return `${cases(planned, "that plan() chooses here")}${others ? ` and ${others} of other variants` : ""}`;
}

export function limitWords(limits: Limits | null): string[] {
  if (!limits)
    return [
      "The files have no rows of this machine's limits (npm run bench measures them first), so there is no roof.",
    ];
  return [
    `Limits: ${formatRate(gflopsOf(limits))} GFLOP/s, ${formatRate(cachedGbs(limits))} GB/s within caches, ${formatRate(memoryGbs(limits))} GB/s of memory.`,
  ];
}

/** How near the planned ones come to the limits. */
function shareWords(rows: readonly Row[]): string[] {
  const shares = rows.filter(({ planned, share }) => planned && share !== null).sort((a, b) => a.share! - b.share!);
  const wrong = rows.filter(isWrong);
  const words: string[] = [];
  if (shares.length > 1) {
    const [worst, best] = [shares[0], shares.at(-1)!];
    const half = median(shares.map(({ share }) => share!));
    words.push(
      `Of the chosen ones half reach ${percent(half)} of their limit or more; nearest: ${nameOf(best)}, ${percent(best.share!)}; farthest: ${nameOf(worst)}, ${percent(worst.share!)}.`,
    );
  }
  if (wrong.length) words.push(`WRONG results: ${wrong.map(nameOf).join("; ")}.`);
  return words;
}

function missing(rows: readonly Row[], points: readonly Point[]): string[] {
  const without = rows.length - points.length;
  return without ? [`${without} without a time are in the table only, with the reason.`] : [];
}

const nameOf = ({ kernel, variant, shape }: Row) => `${kernel} ${variant === "-" ? "" : `${variant} `}${shape}`;
const percent = (share: number) => (share < 0.01 ? "less than 1 %" : `${Math.round(100 * share)} %`);

export function keyOf(points: readonly Point[], limits: Limits | null): Key[] {
  const there = FAMILIES.filter((family) => points.some(({ row }) => familyOf(row) === family));
  return [
    ...there.map(
      ({ name, color, symbol }) => ({ label: name, color, mark: symbol === "circle" ? "dot" : symbol }) as Key,
    ),
    ...(points.some(({ row }) => !row.planned)
      ? [{ label: "hollow: a variant that plan() does not choose", color: SOFT, mark: "ring" } as const]
      : []),
    ...(limits ? [{ label: "limits of the machine", color: INK, mark: "line" } as const] : []),
  ];
}
