/** Compares the rows of two sides, each of one or more runs of `npm run bench`. Pure. */
import { caseName } from "../src/tensor/cases/support/group.ts";
import { type Column, formatTime, renderTable } from "./report.ts";
import { basisSamples, groupedBy, isWrong, median, type Row } from "./rows.ts";
import type { Clock } from "./settings.ts";
import { geometricMean, leastP, leastSignedP, mannWhitney, ratioOf, ratioOfPairs, signedRank } from "./stats.ts";

/** A difference is reported if equal code would show it less often than this. */
export const ALPHA = 0.02;

/** `unknown`: too few times to see any difference. */
export type Change = "slower" | "faster" | "none" | "unknown";

/** What is compared: medians of runs, rounds of one run, or runs of both sides, interleaved. */
export const UNITS = ["runs", "rounds", "pairs"] as const;

/** One case on both sides. */
export interface Compared {
  readonly kernel: string;
  readonly variant: string;
  readonly shape: string;
  readonly clock: Clock;
  readonly unit: (typeof UNITS)[number];
  /** Median milliseconds of one execution, and the number of times compared. */
  readonly base: { readonly ms: number; readonly n: number };
  readonly new: { readonly ms: number; readonly n: number };
  /** new / base; above 1 it is slower. */
  readonly ratio: number;
  readonly interval: readonly [number, number] | null;
  readonly p: number;
  readonly change: Change;
}

export interface Comparison {
  readonly alpha: number;
  readonly base: Side;
  readonly new: Side;
  /** Rows of kernels, layers and the model. */
  readonly rows: readonly Compared[];
  /** Rows of this machine's limits, by kernels of the bench: not counted in the mean. */
  readonly limits: readonly Compared[];
  /** Of the rows' ratios. */
  readonly geometric_mean: number;
  /** Names of cases that are wrong, or failed, on the new side only. */
  readonly wrong: readonly string[];
  /** Names of cases that only one side has times of. */
  readonly only: { readonly base: readonly string[]; readonly new: readonly string[] };
  readonly notes: readonly string[];
}

interface Side {
  readonly commits: readonly string[];
  readonly machine: string;
}

/** @throws Error if the sides have no case in common */
export function compareRows(base: readonly Row[], fresh: readonly Row[], clock?: Clock, alpha = ALPHA): Comparison {
  return compareSides(base, fresh, (olds, news) => timesOfRuns(olds, news, clock), alpha);
}

/** The rows of both sides of a run. */
export type RunOfBoth = readonly [base: readonly Row[], fresh: readonly Row[]];

/**
 * Compares runs in which both sides took turns.
 *
 * @throws Error if the sides have no case in common
 */
export function comparePairs(runs: readonly RunOfBoth[], clock?: Clock, alpha = ALPHA): Comparison {
  const [base, fresh] = [0, 1].map((side) => runs.flatMap((sides) => sides[side]));
  const runOf = new Map(runs.flatMap((sides, run) => sides.flat().map((row) => [row, run])));
  const timesOf = (olds: readonly Row[], news: readonly Row[]) => {
    const pairs = olds.flatMap((old) => {
      const beside = news.find((row) => runOf.get(row) === runOf.get(old));
      return beside ? [[old, beside] as const] : [];
    });
    return timesOfPairs(pairs, clock ?? clockOf([...olds, ...news]));
  };
  return compareSides(base, fresh, timesOf, alpha);
}

function compareSides(
  base: readonly Row[],
  fresh: readonly Row[],
  timesOf: (olds: readonly Row[], news: readonly Row[]) => Times,
  alpha: number,
): Comparison {
  const machines = [base, fresh].map((rows) => [...new Set(rows.map(machineOf))]);
  const shared = machines[0].filter((machine) => machines[1].includes(machine));
  if (shared.length === 0 && machines.some((names) => names.length > 1)) {
    throw new Error(`the sides are of different machines: ${machines.map((names) => names.join(", ")).join(" and ")}`);
  }
  // Several machines are told apart, but one can be compared with another.
  const key = (row: Row) => (shared.length > 1 ? `${caseName(row)} on ${machineOf(row)}` : caseName(row));
  const isShared = (row: Row) => shared.length === 0 || shared.includes(machineOf(row));
  const sides = [base, fresh].map((rows) => groupedBy(rows.filter(isShared), key));
  const compared: Compared[] = [];
  const wrong: string[] = [];
  const only = { base: [] as string[], new: [] as string[] };
  for (const name of new Set([...sides[0].keys(), ...sides[1].keys()])) {
    const [olds, news] = sides.map((side) => side.get(name) ?? []);
    if (news.some(isWrong) && !olds.some(isWrong)) wrong.push(name);
    const times = timesOf(olds, news);
    if (times.base.length > 0 && times.new.length > 0) compared.push(compareTimes(news[0], times, alpha));
    else if (olds.some((row) => timeOf(row, times.clock) !== null)) only.base.push(name);
    else if (news.some((row) => timeOf(row, times.clock) !== null)) only.new.push(name);
  }
  const rows = compared.filter(({ kernel }) => kernel !== "limit");
  if (rows.length === 0) throw new Error("the sides have no timed case in common");
  return {
    ...{ alpha, wrong, only, rows, limits: compared.filter(({ kernel }) => kernel === "limit") },
    ...{ base: describe(base.filter(isShared)), new: describe(fresh.filter(isShared)) },
    geometric_mean: geometricMean(rows.map(({ ratio }) => ratio)),
    notes: notesOn(rows, shared.length === 0),
  };
}

/** 1 if a result became wrong, 3 if a case became slower, else 0. */
export function exitCodeOf({ wrong, rows }: Comparison): number {
  if (wrong.length > 0) return 1;
  return rows.some(({ change }) => change === "slower") ? 3 : 0;
}

/** The table: changed rows, all of them with `all`; then sums and notes. */
export function renderComparison(comparison: Comparison, { all = false, markdown = false } = {}): string {
  const { rows, limits, wrong, only, base, notes, geometric_mean } = comparison;
  const by = (changes: readonly Change[]) => rows.filter(({ change }) => changes.includes(change));
  const [slower, faster] = [by(["slower"]), by(["faster"])];
  slower.sort((a, b) => b.ratio - a.ratio);
  faster.sort((a, b) => a.ratio - b.ratio);
  const [same, unknown] = [by(["none"]), by(["unknown"])];
  const rest = [...same, ...unknown];
  const shown = [...slower, ...faster, ...(all ? rest : [])];
  const enough = unknown.some(({ unit }) => unit === "pairs") ? "7 runs" : "5 a side";
  const item = (text: string) => (markdown ? `- ${text}` : text);
  const sums = [
    [
      `${slower.length} slower, ${faster.length} faster, ${same.length} unchanged (~)`,
      ...(unknown.length ? [`${unknown.length} with too few times to see any change (?): ${enough} are enough`] : []),
      ...(all || rest.length === 0 ? [] : ["--all shows these"]),
    ].join("; "),
    `geometric mean of ${rows.length} rows: ${times(geometric_mean)}`,
    ...(limits.length
      ? [`this machine's limits, not counted: ${times(geometricMean(limits.map(({ ratio }) => ratio)))}`]
      : []),
    ...(only.base.length ? [`only in base: ${listed(only.base)}`] : []),
    ...(only.new.length ? [`only in new: ${listed(only.new)}`] : []),
    ...notes,
    ...wrong.map((name) => `WRONG in new, not in base: ${name}`),
  ];
  return [
    `base: ${base.commits.join(", ")} · new: ${comparison.new.commits.join(", ")} · ${comparison.new.machine}`,
    ...(shown.length ? [renderTable(shown, columnsOf(comparison.alpha), markdown)] : []),
    sums.map(item).join("\n"),
  ].join("\n\n");
}

const columnsOf = (alpha: number): readonly Column<Compared>[] => [
  { title: "case", left: true, cell: caseName },
  { title: "clock", left: true, cell: ({ clock }) => clock },
  { title: "base", cell: ({ base }) => formatTime(base.ms) },
  { title: "new", cell: (row) => formatTime(row.new.ms) },
  { title: "change", cell: changeText },
  { title: "new/base", cell: ({ ratio }) => times(ratio) },
  {
    title: `${100 * (1 - alpha)} % interval`,
    cell: ({ interval }) => (interval ? `${interval[0].toFixed(3)} to ${interval[1].toFixed(3)}` : ""),
  },
  { title: "p", cell: ({ p }) => (p < 0.0005 ? "<0.001" : p.toFixed(3)) },
  { title: "n", cell: (row) => (row.unit === "pairs" ? `${row.new.n}` : `${row.base.n}+${row.new.n}`) },
  { title: "of", left: true, cell: ({ unit }) => unit },
];

function changeText({ change, ratio }: Compared): string {
  if (change === "unknown") return "?";
  if (change === "none") return "~";
  return `${ratio > 1 ? "+" : "−"}${Math.abs(100 * (ratio - 1)).toFixed(1)} %`;
}

const times = (ratio: number) => `${ratio.toFixed(3)}x`;

function listed(names: readonly string[]): string {
  return `${names.slice(0, 5).join("; ")}${names.length > 5 ? `; ${names.length - 5} more` : ""}`;
}

const machineOf = ({ adapter, cpu }: Row) => `${adapter} · ${cpu}`;

function describe(rows: readonly Row[]): Side {
  return {
    commits: [...new Set(rows.map(({ commit }) => commit))],
    machine: [...new Set(rows.map(machineOf))].join(", "),
  };
}

interface Times {
  readonly clock: Clock;
  readonly unit: Compared["unit"];
  readonly base: readonly number[];
  readonly new: readonly number[];
  /** Of pairs: the logarithm of each one's ratio. */
  readonly logs?: readonly number[];
}

/**
 * The times to compare. A run has one, its median: rounds of one run agree more than runs do, as memory, clocks and caches
 * differ from process to process, so that rounds find differences in equal code. Only single runs are compared by rounds.
 */
function timesOfRuns(base: readonly Row[], fresh: readonly Row[], wanted: Clock | undefined): Times {
  const clock = wanted ?? clockOf([...base, ...fresh]);
  const rounds = [base, fresh].map((rows) =>
    rows.length === 1 ? (roundsOf(rows[0], clock) ?? []).filter(isPositive) : [],
  );
  if (rounds.every(({ length }) => length > 1)) return { clock, unit: "rounds", base: rounds[0], new: rounds[1] };
  const runs = (rows: readonly Row[]) => rows.flatMap((row) => timeOf(row, clock) ?? []).filter(isPositive);
  return { clock, unit: "runs", base: runs(base), new: runs(fresh) };
}

/**
 * Of each pair of runs the median of its rounds' ratios: in a round both sides are measured within a moment, which a machine that
 * slows down, or is shared, affects alike. Not every round counts as one: what differs from process to process, such as where
 * memory lies, is in all rounds of a run.
 */
function timesOfPairs(pairs: readonly (readonly [Row, Row])[], clock: Clock): Times {
  const [base, fresh, logs]: number[][] = [[], [], []];
  for (const pair of pairs) {
    const [olds, news] = pair.map((row) => roundsOf(row, clock) ?? []);
    const rounds = olds.map((old, i) => Math.log(news[i] / old)).filter((log) => Number.isFinite(log));
    if (rounds.length === 0) continue;
    base.push(median(olds));
    fresh.push(median(news));
    logs.push(median(rounds));
  }
  return { clock, unit: "pairs", base, new: fresh, logs };
}

/** The clock of the rows' rates, or wall time if they are of different ones. */
function clockOf(rows: readonly Row[]): Clock {
  const bases = new Set(rows.map(({ basis }) => basis));
  return bases.size === 1 ? [...bases][0] : "wall";
}

function roundsOf(row: Row, clock: Clock): readonly number[] | undefined {
  if (clock === "first") return undefined;
  return basisSamples({ ...row, basis: clock });
}

const isPositive = (ms: number) => ms > 0;

function timeOf(row: Row, clock: Clock): number | null {
  return { cpu: row.cpu_ms, gpu: row.gpu_ms ?? row.ms, wall: row.ms, first: row.first_ms }[clock];
}

function compareTimes({ kernel, variant, shape }: Row, { clock, unit, logs, ...of }: Times, alpha: number): Compared {
  const p = logs ? signedRank(logs) : mannWhitney(of.base, of.new);
  const { ratio, interval } = logs ? ratioOfPairs(logs, alpha) : ratioOf(of.base, of.new, alpha);
  const least = logs ? leastSignedP(logs.length) : leastP(of.base.length, of.new.length);
  const side = (ms: readonly number[]) => ({ ms: median(ms), n: ms.length });
  const differs = p < alpha ? (ratio > 1 ? "slower" : "faster") : "none";
  const change = least >= alpha ? "unknown" : differs;
  return {
    ...{ kernel, variant, shape, clock, unit, base: side(of.base), new: side(of.new), ratio, interval, p, change },
  };
}

function notesOn(rows: readonly Compared[], differentMachines: boolean): string[] {
  const notes: string[] = [];
  if (differentMachines) notes.push("the sides are of different machines");
  if (rows.some(({ unit }) => unit === "rounds")) {
    notes.push(
      "each side is one run: what differs from run to run looks like a change. Several runs (--json - >> FILE), or --against, tell them apart",
    );
  }
  return notes;
}
