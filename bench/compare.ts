/** Compares the rows of two sides, each of one or more runs of `npm run bench`. Pure. */
import { caseName } from "../src/tensor/cases/support/group.ts";
import { type Column, formatTime, renderTable } from "./report.ts";
import { basisSamples, groupedBy, isWrong, median, type Row } from "./rows.ts";
import type { Clock } from "./settings.ts";
import { geometricMean, leastP, mannWhitney, ratioOf } from "./stats.ts";

/** A difference is reported if equal code would show it less often than this. */
export const ALPHA = 0.02;

/** `unknown`: too few times to see any difference. */
export type Change = "slower" | "faster" | "none" | "unknown";

/** One case on both sides. */
export interface Compared {
  readonly kernel: string;
  readonly variant: string;
  readonly shape: string;
  readonly clock: Clock;
  /** Whether the times are medians of runs, or rounds of one run. */
  readonly unit: "runs" | "rounds";
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
    const times = timesOfRuns(olds, news, clock);
    if (times.base.length > 0 && times.new.length > 0) compared.push(compareTimes(news[0], times, alpha));
    else if (times.base.length > 0) only.base.push(name);
    else if (times.new.length > 0) only.new.push(name);
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
  const item = (text: string) => (markdown ? `- ${text}` : text);
  const sums = [
    [
      `${slower.length} slower, ${faster.length} faster, ${same.length} unchanged (~)`,
      ...(unknown.length ? [`${unknown.length} with too few times to see any change (?): 5 a side are enough`] : []),
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
  { title: "n", cell: (row) => `${row.base.n}+${row.new.n}` },
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
}

/**
 * The times to compare. A run has one, its median: rounds of one run agree more than runs do, as memory, clocks and caches
 * differ from process to process, so that rounds find differences in equal code. Only single runs are compared by rounds.
 */
function timesOfRuns(base: readonly Row[], fresh: readonly Row[], wanted: Clock | undefined): Times {
  const bases = new Set([...base, ...fresh].map(({ basis }) => basis));
  const clock = wanted ?? (bases.size === 1 ? [...bases][0] : "wall");
  const rounds = [base, fresh].map((rows) => (rows.length === 1 ? (roundsOf(rows[0], clock) ?? []) : []));
  if (rounds.every(({ length }) => length > 1)) return { clock, unit: "rounds", base: rounds[0], new: rounds[1] };
  const runs = (rows: readonly Row[]) => rows.flatMap((row) => timeOf(row, clock) ?? []).filter((ms) => ms > 0);
  return { clock, unit: "runs", base: runs(base), new: runs(fresh) };
}

function roundsOf(row: Row, clock: Clock): readonly number[] | undefined {
  if (clock === "first") return undefined;
  return basisSamples({ ...row, basis: clock })?.filter((ms) => ms > 0);
}

function timeOf(row: Row, clock: Clock): number | null {
  return { cpu: row.cpu_ms, gpu: row.gpu_ms ?? row.ms, wall: row.ms, first: row.first_ms }[clock];
}

function compareTimes({ kernel, variant, shape }: Row, { clock, unit, ...of }: Times, alpha: number): Compared {
  const p = mannWhitney(of.base, of.new);
  const { ratio, interval } = ratioOf(of.base, of.new, alpha);
  const side = (ms: readonly number[]) => ({ ms: median(ms), n: ms.length });
  const differs = p < alpha ? (ratio > 1 ? "slower" : "faster") : "none";
  const change = leastP(of.base.length, of.new.length) >= alpha ? "unknown" : differs;
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
