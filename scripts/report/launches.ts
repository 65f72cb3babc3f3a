/** Launches, submits, bind groups and buffers for a decoded token, of every model and commit. */
import { groupedBy, type Row } from "../../bench/rows.ts";
import { drawn, INK, LINE, Plot, SERIES } from "./drawing.ts";
import { type Figure, tableOf } from "./figure.ts";
import { newestRows } from "./roofline.ts";

/** @param rows of one machine; undefined if none decodes */
export function launchesFigure(rows: readonly Row[]): Figure | undefined {
  const decoding = rows.filter(({ per_token }) => per_token);
  if (decoding.length === 0) return undefined;
  const commits = groupedBy(decoding, ({ commit }) => commit);
  const each = [...commits.values()]
    .flatMap(newestRows)
    .sort((a, b) => (a.shape === b.shape ? (a.date < b.date ? -1 : 1) : 0));
  const label = (row: Row) => (commits.size > 1 ? `${row.shape}, ${row.commit}` : row.shape);
  const models = groupedBy(each, ({ shape }) => shape);
  const ordered = [...models.values()].flat();
  const newest = [...models.values()].map((group) => group.at(-1)!);
  return {
    title: "Launches a token",
    summary: [
      `Launches of kernels for one decoded token: ${newest.map((row) => `${row.shape}: ${countText(row.per_token!.launches)}`).join("; ")}.`,
    ],
    draw: (width) =>
      drawBars(
        ordered.map((row, at) => ({ label: label(row), value: Number(row.per_token!.launches.toFixed(1)), at })),
        "launches",
        width,
      ),
    tables: [
      tableOf("models", ordered, [
        { title: "model", left: true, cell: ({ shape }) => shape },
        { title: "commit", left: true, cell: ({ commit }) => commit },
        { title: "launches", cell: ({ per_token }) => countText(per_token!.launches) },
        { title: "submits", cell: ({ per_token }) => countText(per_token!.submits) },
        { title: "bind groups", cell: ({ per_token }) => countText(per_token!.bind_groups) },
        { title: "buffers", cell: ({ per_token }) => countText(per_token!.buffers) },
        {
          title: "tokens/s",
          cell: ({ tokens_per_second }) => (tokens_per_second ? tokens_per_second.toPrecision(3) : ""),
        },
      ]),
    ],
  };
}

const countText = (count: number) => (Number.isInteger(count) ? String(count) : count.toFixed(1));

interface Bar {
  readonly label: string;
  readonly value: number;
  /** Its row of the table. */
  readonly at: number;
}

/** Bars from 0, each under its label, with the number at its end. */
export function drawBars(bars: readonly Bar[], axis: string, width: number): string {
  const line = 38;
  const most = Math.max(1, ...bars.map(({ value }) => value));
  return drawn({
    ...{ width, height: 46 + line * bars.length, marginLeft: 4, marginRight: 52, marginTop: 4, marginBottom: 38 },
    x: { domain: [0, most], label: axis, labelAnchor: "center", labelArrow: "none", ticks: width < 500 ? 4 : 8 },
    y: { domain: [bars.length - 0.5, -0.5], axis: null },
    marks: [
      Plot.gridX({ stroke: LINE, strokeOpacity: 1, ticks: width < 500 ? 4 : 8 }),
      Plot.rect(bars, {
        x1: 0,
        x2: "value",
        y1: ({ at }) => at + 0.02,
        y2: ({ at }) => at + 0.42,
        fill: SERIES[0],
        rx: 2,
        title: ({ at }) => String(at),
      }),
      Plot.text(bars, { x: 0, y: ({ at }) => at - 0.2, text: "label", textAnchor: "start", fill: INK, fontSize: 11 }),
      Plot.text(bars, {
        x: "value",
        y: ({ at }) => at + 0.22,
        text: "value",
        textAnchor: "start",
        dx: 5,
        fill: INK,
        fontWeight: 600,
      }),
    ],
  });
}
