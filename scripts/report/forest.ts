/** Ratios with their intervals, an item a line, on a logarithmic axis. */
import { axisX, CARD, drawn, HALO, INK, logRange, Plot, type SYMBOLS, ticksOf } from "./drawing.ts";

export interface Ratio {
  readonly value: number;
  readonly interval: readonly [number, number] | null;
  readonly color: string;
  readonly symbol: (typeof SYMBOLS)[number];
  /** Its row of the table. */
  readonly row: number;
}

export interface Item {
  readonly label: string;
  readonly ratios: readonly Ratio[];
  /** A value that is asked for. */
  readonly bar?: number | null;
}

/** @param axis what the ratio is */
export function drawForest(items: readonly Item[], axis: string, width: number): string {
  const isNarrow = width < 500; // then labels have lines of their own
  const line = isNarrow ? 34 : 20;
  const [marginTop, marginBottom] = [8, 40];
  const marginLeft = isNarrow ? 6 : Math.min(320, 14 + 6.6 * Math.max(...items.map(({ label }) => label.length)));
  /** Ratios with intervals lie a little above each other, so that none hides another. */
  const apart = (i: number, { length }: readonly Ratio[]) =>
    length > 1 ? (i / (length - 1) - 0.5) * (isNarrow ? 0.28 : 0.5) : 0;
  const flat = items.flatMap(({ ratios }, at) =>
    ratios.map((ratio, i) => ({ ...ratio, y: at + (isNarrow ? 0.3 : 0) + (ratio.interval ? apart(i, ratios) : 0) })),
  );
  const bars = items.flatMap(({ bar }, at) => (bar ? [{ bar, y: at + (isNarrow ? 0.3 : 0) }] : []));
  const all = flat.flatMap(({ value, interval }) => [value, ...(interval ?? [])]);
  const domain = logRange([1, ...all, ...bars.map(({ bar }) => bar)], 0.06);
  const ticks = ticksOf(domain, isNarrow ? 5 : 9);
  const half = isNarrow ? 0.2 : 0.36;
  const labels = items.map(({ label }, y) => ({ label, y }));
  const common = { x: "value", y: "y", title: (ratio: Ratio) => String(ratio.row) } as const;
  const symbols = [...new Set(flat.map(({ symbol }) => symbol))];
  return drawn({
    ...{
      width,
      height: marginTop + marginBottom + line * items.length,
      marginTop,
      marginBottom,
      marginLeft,
      marginRight: 12,
    },
    x: { type: "log", domain: [...domain] },
    y: { type: "linear", domain: [items.length - 0.5, -0.5], axis: null },
    marks: [
      ...axisX(ticks, axis),
      Plot.ruleX([1], { stroke: INK, strokeWidth: 1 }),
      isNarrow
        ? Plot.text(labels, {
            x: domain[0],
            y: ({ y }) => y - 0.2,
            text: "label",
            textAnchor: "start",
            dx: 2,
            fontSize: 11,
            fill: INK,
            ...HALO,
          })
        : Plot.text(labels, { frameAnchor: "left", y: "y", text: "label", textAnchor: "end", dx: -8, fill: INK }),
      Plot.link(bars, {
        x1: "bar",
        x2: "bar",
        y1: ({ y }) => y - half,
        y2: ({ y }) => y + half,
        stroke: INK,
        strokeWidth: 2.5,
      }),
      Plot.link(
        flat.filter(({ interval }) => interval),
        {
          x1: ({ interval }) => interval![0],
          x2: ({ interval }) => interval![1],
          y1: "y",
          y2: "y",
          stroke: "color",
          strokeWidth: 2,
          strokeOpacity: 0.7,
        },
      ),
      ...symbols.map((symbol) =>
        Plot.dot(
          flat.filter((ratio) => ratio.symbol === symbol),
          { ...common, symbol, r: 4.5, fill: "color", stroke: CARD, strokeWidth: 0.75 },
        ),
      ),
    ],
    color: { type: "identity" },
  });
}
