/** Launches, submits, bind groups and buffers for a decoded token, of every model and commit. */
import { groupedBy, type Row } from "../../bench/rows.ts";
import { drawBars } from "./bars.ts";
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
        ordered.map((row, at) => {
          const { launches } = row.per_token!;
          return { label: label(row), value: launches, text: countText(launches), at };
        }),
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
