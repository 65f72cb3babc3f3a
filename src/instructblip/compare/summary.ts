/** A comparison for people: what differs first, what adds most, and a table. */
import { formatShape } from "../../tensor/shape.ts";
import type { Comparison, Row, Side } from "./comparison.ts";
import { isInput, moduleOf, splitRun } from "./trace.ts";

/** Rows that count as different. */
export const wrongRows = ({ rows }: Pick<Comparison, "rows">): readonly Row[] => rows.filter(({ wrong }) => wrong);

/** What a comparison comes to. */
export interface Findings {
  /** The first that counts as different, in the order of computation. */
  readonly first: Row | undefined;
  /** The one that adds most to the error of its inputs; undefined where no inputs are known. */
  readonly most: Row | undefined;
  /** The first with a NaN or an infinity, in either trace. */
  readonly notFinite: Row | undefined;
}

export function findingsOf(comparison: Comparison): Findings {
  const wrong = wrongRows(comparison);
  const inner = explained(comparison.rows);
  const adding = wrong.filter(({ name, added }) => added !== undefined && added > 0 && !inner.has(name));
  return {
    first: wrong[0],
    most: adding.length > 0 ? adding.reduce((a, b) => (b.added! > a.added! ? b : a)) : undefined,
    notFinite: comparison.rows.find(({ a, b }) => a.firstNotFinite || b.firstNotFinite),
  };
}

/** Modules that add no more than twice what the modules inside of them do: those are to be looked at. */
function explained(rows: readonly Row[]): Set<string> {
  const inside = new Map<string, number>();
  const found = new Set<string>();
  for (const { name, added = 0 } of rows) {
    const within = inside.get(name);
    if (within !== undefined && added <= 2 * within) found.add(name);
    if (within !== undefined) continue; // what is inside of it has been counted
    const [path, run] = splitRun(moduleOf(name));
    for (let end = path.lastIndexOf("."); end > 0; end = path.lastIndexOf(".", end - 1)) {
      const around = path.slice(0, end) + run;
      inside.set(around, (inside.get(around) ?? 0) + added);
    }
  }
  return found;
}

/** `a.b (input)`: what no module has returned. */
export const labelOf = (name: string): string => (isInput(name) ? `${moduleOf(name)} (input)` : name);

/** `3.1e-9`; `-` for what is not known. */
export function formatError(x: number | undefined | null): string {
  if (x === undefined || x === null) return "-";
  return x === 0 ? "0" : Number.isFinite(x) ? x.toExponential(1) : String(x);
}

export const modulesText = (count: number): string => (count === 1 ? "1 module" : `${count} modules`);

/** Six digits at most: a number of a tensor. */
export const formatNumber = (x: number | null): string => {
  if (x === null) return "-";
  const text = String(Number(x.toPrecision(5)));
  return text.length > 11 ? x.toExponential(3) : text;
};

/**
 * The rows to show, in order of computation: the first that is different, and the `top` that add most, modules rather than
 * what is around them; where nothing is known of inputs, those that differ most. Where any is different, no others. 0: all.
 */
export function topRows({ rows }: Pick<Comparison, "rows">, top: number): readonly Row[] {
  if (top === 0 || rows.length <= top) return rows;
  const inner = explained(rows);
  const isKnown = rows.some(({ added }) => added !== undefined);
  const weight = ({ name, wrong, added, difference }: Row) => {
    if (wrong && wrong !== "error") return Number.POSITIVE_INFINITY;
    if (inner.has(name)) return 0;
    return added ?? (isKnown ? 0 : (difference?.nmse ?? 0));
  };
  const first = rows.find(({ wrong }) => wrong);
  const others = rows.filter((row) => row !== first && (!first || row.wrong));
  const heaviest = others.sort((a, b) => weight(b) - weight(a));
  const kept = new Set([...(first ? [first] : []), ...heaviest].slice(0, top));
  return rows.filter((row) => kept.has(row));
}

/** The row that differs most. */
function worstOf(rows: readonly Row[]): Row {
  const nmse = ({ wrong, difference }: Row) =>
    !wrong || wrong === "error" ? (difference?.nmse ?? 0) : Number.POSITIVE_INFINITY;
  return rows.reduce((x, y) => (nmse(y) > nmse(x) ? y : x));
}

/** One line: two traces that are equal. */
export function equalLine({ a, b, rows, tolerance, byItself }: Comparison): string {
  const worst = worstOf(rows);
  const error = worst.difference?.nmse ?? 0;
  const most = error === 0 ? "bit by bit" : `largest NMSE ${formatError(error)}, of ${labelOf(worst.name)}`;
  const given = byItself ? ", each module given A's inputs" : "";
  return `equal: ${rows.length} tensors of ${a} and ${b}${given}, within ${formatError(tolerance)}; ${most}\n`;
}

/** What is different, without the table. */
export function findingLines(comparison: Comparison): string[] {
  const { a, b, rows, tolerance, onlyA, onlyB, isOrdered, byItself } = comparison;
  const { first, most, notFinite } = findingsOf(comparison);
  const lines = [
    `A  ${a}`,
    `B  ${b}`,
    `${wrongRows(comparison).length} of ${rows.length} tensors ${byItself ? "are wrong by themselves, given A's inputs:" : "differ by"} an NMSE above ${formatError(tolerance)}`,
  ];
  if (first) lines.push(`first: ${describe(first)}${isOrdered ? "" : " (by name: A has no order of computation)"}`);
  const worst = byItself && first ? worstOf(wrongRows(comparison)) : first;
  if (worst && worst !== first) lines.push(`worst: ${describe(worst)}`);
  if (most && most !== first) lines.push(`most added: ${describe(most)}`);
  if (notFinite) {
    const where = (side: Side, letter: string) => {
      const { nan, infinite } = side.statistics;
      return side.firstNotFinite
        ? [`${letter} has ${nan} NaN and ${infinite} infinite, the first at ${formatShape(side.firstNotFinite)}`]
        : [];
    };
    const both = [...where(notFinite.a, "A"), ...where(notFinite.b, "B")].join("; ");
    lines.push(`not finite: ${labelOf(notFinite.name)}: ${both}`);
  }
  for (const [letter, names] of [
    ["A", onlyA],
    ["B", onlyB],
  ] as const) {
    if (names.length === 0) continue;
    const some = names.slice(0, 3).join(", ");
    lines.push(`only in ${letter}: ${names.length} (${some}${names.length > 3 ? ", …" : ""})`);
  }
  return lines;
}

function describe({ name, wrong, a, b, difference, inherited, added }: Row): string {
  const what = labelOf(name);
  if (wrong === "shape") return `${what} is ${formatShape(a.shape)} in A, ${formatShape(b.shape)} in B`;
  if (wrong === "not finite") {
    return `${what}, ${difference!.broken} numbers are NaN, or infinite in one of the two`;
  }
  const parts = inherited === undefined ? "" : `, ${formatError(inherited)} inherited, ${formatError(added)} added`;
  return `${what}, NMSE ${formatError(difference?.nmse)}${parts}`;
}

/** The table: a head, and a line for each of `rows`. */
export function tableOf({ byItself }: Pick<Comparison, "byItself">, rows: readonly Row[]): string[][] {
  const inheritance = byItself ? [] : ["inherited", "added"];
  const head = ["tensor", "NMSE", ...inheritance, "max |Δ|", "at", "A there", "B there", "cosine", ""];
  const cells = ({ name, a, b, difference, worst, inherited, added, wrong }: Row) => [
    labelOf(name),
    formatError(difference?.nmse),
    ...(byItself ? [] : [formatError(inherited), formatError(added)]),
    formatError(difference?.maxAbs),
    worst ? formatShape(worst.at) : `${formatShape(a.shape)} ${formatShape(b.shape)}`,
    worst ? formatNumber(worst.a) : "-",
    worst ? formatNumber(worst.b) : "-",
    difference ? difference.cosine.toFixed(6) : "-",
    wrong === "error" ? "differs" : (wrong ?? ""),
  ];
  return [head, ...rows.map(cells)];
}

/** Two lines for each of `rows`: min, max, mean, rms, zeros, NaN and infinite numbers of A and B. */
export function statisticsTable(rows: readonly Row[]): string[][] {
  const head = ["tensor", "", "shape", "min", "max", "mean", "rms", "zeros", "NaN", "infinite"];
  const cells = ({ shape, statistics: s }: Side) => [
    formatShape(shape),
    ...[s.min, s.max, s.mean, s.rms].map(formatNumber),
    `${(100 * s.zeros).toFixed(1)} %`,
    String(s.nan),
    String(s.infinite),
  ];
  return [
    head,
    ...rows.flatMap(({ name, a, b }) => [
      [labelOf(name), "A", ...cells(a)],
      ["", "B", ...cells(b)],
    ]),
  ];
}
