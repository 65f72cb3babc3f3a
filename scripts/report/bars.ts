/** Bars from 0, each with its label above and its number at its end. */
import { drawn, INK, LINE, Plot, SERIES } from "./drawing.ts";

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** The value, as shown. */
  readonly text: string;
  /** Its row of the table. */
  readonly at: number;
}

export function drawBars(bars: readonly Bar[], axis: string, width: number): string {
  const line = 38;
  const placed = bars.map((bar, y) => ({ ...bar, y }));
  const most = Math.max(...bars.map(({ value }) => value)) || 1;
  return drawn({
    ...{ width, height: 46 + line * bars.length, marginLeft: 4, marginRight: 52, marginTop: 4, marginBottom: 38 },
    x: { domain: [0, most], label: axis, labelAnchor: "center", labelArrow: "none", ticks: width < 500 ? 4 : 8 },
    y: { domain: [bars.length - 0.5, -0.5], axis: null },
    marks: [
      Plot.gridX({ stroke: LINE, strokeOpacity: 1, ticks: width < 500 ? 4 : 8 }),
      Plot.rect(placed, {
        x1: 0,
        x2: "value",
        y1: ({ y }) => y + 0.02,
        y2: ({ y }) => y + 0.42,
        fill: SERIES[0],
        rx: 2,
        title: ({ at }) => String(at),
      }),
      Plot.text(placed, { x: 0, y: ({ y }) => y - 0.2, text: "label", textAnchor: "start", fill: INK, fontSize: 11 }),
      Plot.text(placed, {
        x: "value",
        y: ({ y }) => y + 0.22,
        text: "text",
        textAnchor: "start",
        dx: 5,
        fill: INK,
        fontWeight: 600,
      }),
    ],
  });
}
