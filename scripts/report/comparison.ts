/** Two runs, tensor by tensor in order of computation, as `instructblip compare` found them. */
import { formatError } from "../../src/instructblip/compare/summary.ts";
import { axisY, decades, drawn, logRange, Plot, SERIES, SOFT, WRONG } from "./drawing.ts";
import { type Figure, tableOf } from "./figure.ts";
import type { ComparedTensor, ComparisonResult } from "./inputs.ts";

export function comparisonFigure({
  a,
  b,
  tolerance,
  by_itself,
  ordered,
  tensors,
  only_a,
  only_b,
}: ComparisonResult): Figure {
  const title = `${b} against ${a}`;
  if (tensors.length === 0) return { title, summary: ["The file has no tensors."], tables: [] };
  const wrong = tensors.filter(({ different }) => different);
  const points = tensors.flatMap((tensor, at) =>
    tensor.nmse !== null && tensor.nmse > 0 ? [{ tensor, nmse: tensor.nmse, row: at }] : [],
  );
  const most = points.reduce((worst, point) => (point.nmse > worst.nmse ? point : worst), points[0]);
  const equal = tensors.filter(({ nmse }) => nmse === 0).length;
  return {
    title,
    summary: [
      `NMSE of ${tensors.length} tensors of ${b} from those of ${a}, in ${ordered ? "order of computation" : "alphabetical order"}${by_itself ? ", each module given A's inputs" : ""}.`,
      wrong.length
        ? `${wrong.length} are above the tolerance of ${formatError(tolerance)}, the first: ${labelOf(wrong[0])}.`
        : `None is above the tolerance of ${formatError(tolerance)}.`,
      ...(most ? [`Largest: ${labelOf(most.tensor)}, ${formatError(most.nmse)}.`] : []),
      ...(equal ? [`${equal} are equal and not drawn.`] : []),
      ...(only_a.length + only_b.length ? [`Only in A: ${only_a.length}; only in B: ${only_b.length}.`] : []),
    ],
    key: [
      { label: "within the tolerance", color: SERIES[2] },
      { label: "above it", color: WRONG },
      ...(tolerance > 0 ? [{ label: "tolerance", color: WRONG, mark: "dashed" } as const] : []),
    ],
    ...(points.length && { draw: (width: number) => drawErrors(points, tensors, tolerance, width) }),
    tables: [
      tableOf("tensors", tensors, [
        { title: "tensor", left: true, cell: labelOf },
        { title: "NMSE", cell: ({ nmse }) => formatError(nmse) },
        { title: "inherited", cell: ({ inherited }) => (inherited === null ? "" : formatError(inherited)) },
        { title: "added", cell: ({ added }) => (added === null ? "" : formatError(added)) },
        { title: "max |Δ|", cell: ({ max_abs }) => formatError(max_abs) },
        { title: "cosine", cell: ({ cosine }) => (cosine === null ? "" : cosine.toFixed(6)) },
        {
          title: "",
          left: true,
          cell: ({ different }) => (different === null ? "" : different === "error" ? "above tolerance" : different),
        },
      ]),
    ],
  };
}

const labelOf = ({ name, module, at }: ComparedTensor) => (at === "input" ? `${module} (input)` : name);

interface Point {
  readonly tensor: ComparedTensor;
  readonly nmse: number;
  readonly row: number;
}

function drawErrors(
  points: readonly Point[],
  tensors: readonly ComparedTensor[],
  tolerance: number,
  width: number,
): string {
  const ys = logRange([...points.map(({ nmse }) => nmse), ...(tolerance > 0 ? [tolerance] : [])], 0.08);
  const ticks = decades(ys, 7);
  const parts = partsOf(tensors);
  const isLarge = ({ count }: { count: number }) => count > tensors.length / 50;
  const y = "nmse";
  return drawn({
    ...{ width, height: width < 500 ? 280 : 340, marginLeft: 52, marginRight: 12, marginTop: 22, marginBottom: 26 },
    x: { domain: [-0.5, tensors.length - 0.5], axis: null },
    y: { type: "log", domain: [...ys] },
    marks: [
      ...axisY(ticks, "NMSE", (value) => value.toExponential(0).replace("e+", "e")),
      Plot.ruleX(
        parts.filter((part, i) => i > 0 && (isLarge(part) || isLarge(parts[i - 1]))),
        { x: ({ from }) => from - 0.5, stroke: SOFT, strokeOpacity: 0.5 },
      ),
      Plot.text(
        parts.filter(({ count, name }) => (count / tensors.length) * (width - 64) > 6.2 * name.length),
        {
          x: ({ from, count }) => from + count / 2 - 0.5,
          text: "name",
          frameAnchor: "bottom",
          lineAnchor: "top",
          dy: 8,
          fill: SOFT,
          fontSize: 11,
        },
      ),
      ...(tolerance > 0 ? [Plot.ruleY([tolerance], { stroke: WRONG, strokeWidth: 1.5, strokeDasharray: "4 3" })] : []),
      Plot.dot(points, {
        ...{ x: "row", y, r: tensors.length > 600 ? 1.5 : 2.5, title: ({ row }: Point) => String(row) },
        fill: ({ tensor }: Point) => (tensor.different ? WRONG : SERIES[2]),
      }),
    ],
    color: { type: "identity" },
  });
}

/** Runs of tensors of one part of the model. */
function partsOf(tensors: readonly ComparedTensor[]): { name: string; from: number; count: number }[] {
  const parts: { name: string; from: number; count: number }[] = [];
  for (const [i, { module }] of tensors.entries()) {
    const [name] = module.split(".");
    const last = parts.at(-1);
    if (last?.name === name) last.count++;
    else parts.push({ name, from: i, count: 1 });
  }
  return parts;
}
