/** Two sides of `npm run bench -- --compare`, case by case. */
import type { Compared, Comparison } from "../../bench/compare.ts";
import { formatTime } from "../../bench/report.ts";
import { SERIES, SOFT } from "./drawing.ts";
import { type Figure, tableOf } from "./figure.ts";
import { drawForest } from "./forest.ts";

const COLORS: Readonly<Record<Compared["change"], string>> = {
  slower: "var(--wrong)",
  faster: SERIES[2],
  none: SOFT,
  unknown: SOFT,
};

export function changesFigure({ base, new: fresh, rows, alpha, geometric_mean, wrong, notes }: Comparison): Figure {
  const title = `${fresh.commits.join(", ")} against ${base.commits.join(", ")}`;
  if (rows.length === 0) return { title, summary: ["The file has no cases."], tables: [] };
  const sorted = [...rows].sort((a, b) => b.ratio - a.ratio);
  const of = (change: Compared["change"]) => rows.filter((row) => row.change === change).length;
  const nameOf = ({ kernel, variant, shape }: Compared) =>
    [kernel, variant === "-" ? "" : variant, shape].filter(Boolean).join(" ");
  const items = sorted.map((row, at) => ({
    label: nameOf(row),
    ratios: [
      { value: row.ratio, interval: row.interval, color: COLORS[row.change], symbol: "circle" as const, row: at },
    ],
  }));
  return {
    title,
    summary: [
      `New time over base on ${fresh.machine}; to the right of 1 the new side is slower.`,
      `${of("slower")} slower, ${of("faster")} faster, ${of("none")} unchanged${of("unknown") ? `, ${of("unknown")} with too few times to tell` : ""}; geometric mean ${geometric_mean.toFixed(3)}x.`,
      `Lines are intervals of ${100 * (1 - alpha)} %.`,
      ...(wrong.length ? [`WRONG on the new side: ${wrong.join("; ")}.`] : []),
      ...notes.map((note) => `${note}.`),
    ],
    key: [
      { label: "slower", color: COLORS.slower },
      { label: "faster", color: COLORS.faster },
      { label: "no change seen", color: COLORS.none },
    ],
    draw: (width) => drawForest(items, "new time over base", width),
    tables: [
      tableOf("cases", sorted, [
        { title: "case", left: true, cell: nameOf },
        { title: "base", cell: (row) => formatTime(row.base.ms) },
        { title: "new", cell: (row) => formatTime(row.new.ms) },
        { title: "new/base", cell: ({ ratio }) => `${ratio.toFixed(3)}x` },
        {
          title: "interval",
          cell: ({ interval }) => (interval ? interval.map((end) => end.toFixed(3)).join(" to ") : ""),
        },
        { title: "p", cell: ({ p }) => (p < 0.0005 ? "<0.001" : p.toFixed(3)) },
        {
          title: "",
          left: true,
          cell: ({ change }) => (change === "none" ? "~" : change === "unknown" ? "?" : change),
        },
      ]),
    ],
  };
}
