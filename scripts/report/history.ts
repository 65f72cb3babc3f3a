/** Times of one machine over commits: an index of each family of kernels, and every case that was measured at several commits. */

import { basisTime } from "../../bench/harness.ts";
import { formatTime } from "../../bench/report.ts";
import { median, type Row } from "../../bench/rows.ts";
import { geometricMean } from "../../bench/stats.ts";
import { axisY, drawn, HALO, INK, logRange, Plot, tick, ticksOf } from "./drawing.ts";
import { FAMILIES, type Family, familyOf } from "./families.ts";
import { type Figure, type Key, tableOf } from "./figure.ts";

/** A case's time at each commit; undefined where it was not measured. */
interface Case {
  readonly name: string;
  readonly family: Family;
  readonly times: readonly (number | undefined)[];
}

/** @param rows of one machine, of any number of commits */
export function historyFigure(rows: readonly Row[]): Figure {
  const timed = rows.filter((row) => row.kernel !== "limit" && (basisTime(row) ?? 0) > 0);
  const commits = commitsOf(timed);
  const cases = casesOf(
    timed,
    commits.map(({ commit }) => commit),
  ).filter(({ times }) => times.filter((ms) => ms !== undefined).length > 1);
  const title = "History over commits";
  if (cases.length === 0) {
    const where = commits.map(({ commit }) => commit).join(", ");
    return {
      title,
      summary: [
        `No case was measured at two commits (${where || "no times"}): give files of several, or --history for the earlier versions of a file that git keeps.`,
      ],
      tables: [],
    };
  }
  const indices = FAMILIES.map((family) => ({
    family,
    index: indexOf(cases.filter((each) => each.family === family)),
  })).filter(({ index }) => index.some((value) => value !== null));
  const last = commits.length - 1;
  const words = indices.map(
    ({ family, index }) => `${family.name} ${changeOf(index.findLast((value) => value !== null)!)}`,
  );
  const key: Key[] = indices.map(({ family: { name, color, symbol } }) => ({
    label: name,
    color,
    mark: symbol === "circle" ? "dot" : symbol,
  }));
  return {
    title,
    summary: [
      `Time of ${cases.length} cases over ${commits.length} commits, as a share of the first; lower is faster.`,
      `An index is the geometric mean over a family's cases; a case that was not measured at a commit counts as unchanged there.`,
      `From ${commits[0].commit} to ${commits[last].commit}: ${words.join(", ")}.`,
    ],
    key,
    draw: (width) =>
      drawHistory(
        commits.map(({ commit }) => commit),
        indices,
        width,
      ),
    tables: [
      tableOf("commits", commits, [
        { title: "commit", left: true, cell: ({ commit }) => commit },
        { title: "date", left: true, cell: ({ date }) => date.slice(0, 10) },
        ...indices.map(({ family, index }) => ({
          title: family.name,
          cell: ({ at }: { at: number }) => (index[at] === null ? "" : `${(100 * index[at]!).toFixed(1)} %`),
        })),
      ]),
      tableOf("cases", cases, [
        { title: "case", left: true, cell: ({ name }) => name },
        ...commits.map(({ commit, at }) => ({
          title: commit,
          cell: ({ times }: Case) => formatTime(times[at] ?? null),
        })),
        {
          title: "last/first",
          cell: ({ times }) =>
            `${(times.findLast((ms) => ms !== undefined)! / times.find((ms) => ms !== undefined)!).toFixed(3)}x`,
        },
      ]),
    ],
  };
}

function changeOf(index: number): string {
  return index > 1 ? `+${(100 * (index - 1)).toFixed(1)} %` : `−${(100 * (1 - index)).toFixed(1)} %`;
}

/** Commits in the order in which they were first measured. */
function commitsOf(rows: readonly Row[]): { commit: string; date: string; at: number }[] {
  const first = new Map<string, string>();
  for (const { commit, date } of rows) {
    const known = first.get(commit);
    if (known === undefined || date < known) first.set(commit, date);
  }
  return [...first].sort(([, a], [, b]) => (a < b ? -1 : 1)).map(([commit, date], at) => ({ commit, date, at }));
}

/** Of several runs at a commit, the median. */
function casesOf(rows: readonly Row[], commits: readonly string[]): Case[] {
  const cases = new Map<string, { family: Family; times: Map<string, number[]> }>();
  for (const row of rows) {
    const name = [row.kernel, row.variant === "-" ? "" : row.variant, row.shape].filter(Boolean).join(" ");
    const known = cases.get(name) ?? { family: familyOf(row), times: new Map<string, number[]>() };
    cases.set(name, known);
    known.times.set(row.commit, [...(known.times.get(row.commit) ?? []), basisTime(row)!]);
  }
  return [...cases].map(([name, { family, times }]) => ({
    ...{ name, family },
    times: commits.map((commit) => (times.has(commit) ? median(times.get(commit)!) : undefined)),
  }));
}

/**
 * Each commit's times over the first's, as a chain: from one commit to the next the geometric mean of the ratios of all cases known
 * by then, 1 for those not measured anew. A case that is new changes nothing. null before there are cases.
 */
export function indexOf(cases: readonly Pick<Case, "times">[]): (number | null)[] {
  const latest = new Map<Pick<Case, "times">, number>();
  let index: number | null = null;
  return (cases[0]?.times ?? []).map((_, at) => {
    const measured = cases.flatMap((each) => (each.times[at] === undefined ? [] : [[each, each.times[at]!] as const]));
    const ratios = [...latest].map(([each, before]) => (each.times[at] ?? before) / before);
    if (ratios.length) index = index! * geometricMean(ratios);
    for (const [each, ms] of measured) latest.set(each, ms);
    index ??= latest.size ? 1 : null;
    return index;
  });
}

function drawHistory(
  commits: readonly string[],
  indices: readonly { readonly family: Family; readonly index: readonly (number | null)[] }[],
  width: number,
): string {
  const values = indices.flatMap(({ index }) => index.filter((value) => value !== null));
  const domain = logRange([1, ...values], 0.12);
  const step = (width - 70) / commits.length;
  const every = Math.ceil(56 / step);
  const ticks = ticksOf(domain, 9);
  return drawn({
    ...{ width, height: width < 500 ? 260 : 320, marginLeft: 52, marginRight: 14, marginBottom: 44, marginTop: 22 },
    x: { type: "point", domain: [...commits], label: "commit" },
    y: { type: "log", domain: [...domain], label: "time, of the first commit's" },
    marks: [
      Plot.ruleY([1], { stroke: INK }),
      Plot.axisX(
        commits.filter((_, i) => (commits.length - 1 - i) % every === 0),
        { label: "commit", labelAnchor: "center", labelArrow: "none", tickSize: 0 },
      ),
      ...axisY(ticks, "time, of the first commit's", (value) => `${tick(100 * value)} %`),
      ...indices.flatMap(({ family: { color, symbol }, index }) => {
        const line = index.flatMap((value, at) => (value === null ? [] : [{ commit: commits[at], value, at }]));
        return [
          Plot.line(line, { x: "commit", y: "value", stroke: color, strokeWidth: 2 }),
          Plot.dot(line, {
            x: "commit",
            y: "value",
            fill: color,
            symbol,
            r: 4.5,
            title: ({ at }) => String(at),
            ...HALO,
            strokeWidth: 1,
          }),
        ];
      }),
    ],
  });
}
