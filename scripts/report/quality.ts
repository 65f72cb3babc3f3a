/** What narrower dtypes cost: how far the next token's distribution is from that of f32. */
import { axisX, decades, drawn, INK, logRange, Plot, SERIES, SOFT, tick, WRONG } from "./drawing.ts";
import { type Figure, tableOf } from "./figure.ts";
import type { QualityResult, QualityRow } from "./inputs.ts";

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

export function qualityFigure({ adapter, questions, modes }: QualityResult): Figure {
  const title = `What dtypes cost on ${adapter}`;
  if (modes.length === 0) return { title, summary: ["The file has no dtypes."], tables: [] };
  const points = modes.flatMap((mode, row) => (mode.mean_kl > 0 ? [{ mode, row }] : []));
  const failed = modes.filter((mode) => passes(mode) === false);
  return {
    title,
    summary: [
      `KL divergence of the next token's distribution from that of f32, over ${modes[0].tokens} tokens of ${questions} questions.`,
      ...points.map(
        ({ mode }) =>
          `${mode.dtype}: ${tick(Number(mode.mean_kl.toPrecision(2)))} nats, the same token ${percent(mode.top_1)}.`,
      ),
      failed.length
        ? `Outside their gates: ${failed.map(({ dtype }) => dtype).join(", ")}.`
        : "All are within their gates, where there is one.",
    ],
    key: [
      { label: "mean; the line ends at the 99 % quantile and at the largest", color: SERIES[0] },
      { label: "gate of the mean", color: WRONG, mark: "line" },
    ],
    ...(points.length && { draw: (width: number) => drawCosts(points, width) }),
    tables: [
      tableOf("dtypes", modes, [
        { title: "dtype", left: true, cell: ({ dtype }) => dtype },
        { title: "mean KL", cell: ({ mean_kl }) => mean_kl.toExponential(1) },
        { title: "99 % KL", cell: ({ kl_99 }) => kl_99.toExponential(1) },
        { title: "max KL", cell: ({ max_kl }) => max_kl.toExponential(1) },
        { title: "top-1", cell: ({ top_1 }) => percent(top_1) },
        { title: "same answer", cell: ({ same_answers }) => percent(same_answers) },
        { title: "right", cell: ({ accuracy }) => percent(accuracy) },
        {
          title: "gate",
          left: true,
          cell: (mode) => ({ true: "ok", false: "FAIL", undefined: "" })[String(passes(mode)) as "true"],
        },
      ]),
    ],
  };
}

const passes = ({ gate, mean_kl, top_1 }: QualityRow) =>
  gate ? mean_kl <= gate.mean_kl && top_1 >= gate.top_1 : undefined;

interface Point {
  readonly mode: QualityRow;
  readonly row: number;
}

function drawCosts(points: readonly Point[], width: number): string {
  const items = points.map(({ mode, row }, at) => ({ ...mode, row, y: at + 0.2, top: at - 0.2 }));
  const gates = items.flatMap(({ gate, y }) => (gate && gate.mean_kl > 0 ? [{ x: gate.mean_kl, y }] : []));
  const xs = logRange(
    [...items.flatMap(({ mean_kl, kl_99, max_kl }) => [mean_kl, kl_99, max_kl]), ...gates.map(({ x }) => x)],
    0.06,
  );
  const ticks = decades(xs, width < 500 ? 5 : 10);
  return drawn({
    ...{ width, height: 52 + 42 * items.length, marginLeft: 6, marginRight: 12, marginTop: 6, marginBottom: 40 },
    x: { type: "log", domain: [...xs] },
    y: { domain: [items.length - 0.5, -0.5], axis: null },
    marks: [
      ...axisX(ticks, "KL divergence in nats"),
      Plot.text(items, { x: xs[0], y: "top", text: "dtype", textAnchor: "start", dx: 2, fill: INK }),
      Plot.link(items, { x1: "mean_kl", x2: "max_kl", y1: "y", y2: "y", stroke: SOFT }),
      Plot.link(
        items.filter(({ kl_99 }) => kl_99 > 0),
        { x1: "mean_kl", x2: "kl_99", y1: "y", y2: "y", stroke: SERIES[0], strokeWidth: 3 },
      ),
      Plot.link(gates, {
        x1: "x",
        x2: "x",
        y1: ({ y }) => y - 0.2,
        y2: ({ y }) => y + 0.2,
        stroke: WRONG,
        strokeWidth: 2.5,
      }),
      Plot.dot(items, { x: "mean_kl", y: "y", r: 5, fill: SERIES[0], title: ({ row }) => String(row) }),
    ],
  });
}
