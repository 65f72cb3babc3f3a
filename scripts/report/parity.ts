/** Every comparison with PyTorch, as a share of its tolerance, a line for each part of the model. */
import { groupedBy } from "../../bench/rows.ts";
import { axisX, decades, drawn, INK, Plot, SERIES, WRONG } from "./drawing.ts";
import { type Figure, tableOf } from "./figure.ts";
import type { ParityResult, ParityRow } from "./inputs.ts";

/** Shares below are drawn as equal. */
const LEAST = 1e-7;
/** Failed ones are drawn up to here; the table has their numbers. */
const MOST = 100;

interface Kind {
  readonly part: string;
  readonly name: string;
  readonly worst: ParityRow;
  readonly count: number;
  readonly failed: number;
}

export function parityFigure({ seed, adapter, rows }: ParityResult): Figure {
  const title = `Error against PyTorch on ${adapter}`;
  if (rows.length === 0) return { title, summary: ["The file has no comparisons."], tables: [] };
  const kinds = kindsOf(rows);
  const parts = groupedBy(kinds, ({ part }) => part);
  const failed = rows.filter(hasFailed);
  const composites = new Set(rows.map(({ golden }) => golden)).size;
  const numbers = kinds.filter(({ worst }) => !worst.exact && !hasFailed(worst));
  const nearest = numbers.reduce((a, b) => (b.worst.share! > a.worst.share! ? b : a), numbers[0]);
  return {
    title,
    summary: [
      `${rows.length} comparisons of ${composites === 1 ? "1 model" : `${composites} models`} with PyTorch, seed ${seed}: ${failed.length ? `${failed.length} FAILED` : "none failed"}.`,
      ...(nearest
        ? [
            `Nearest to its tolerance is ${nearest.name.startsWith(nearest.part) ? "" : `${nearest.part} `}${nearest.name}, at ${percent(nearest.worst.share)}.`,
          ]
        : []),
      "What is equal lies at 0.",
      ...(failed.length ? [`Failed: ${[...new Set(failed.map(({ name }) => name))].slice(0, 8).join("; ")}.`] : []),
    ],
    key: [
      { label: "a module, or several alike", color: SERIES[2], mark: "line" },
      { label: "the worst of a kind of module", color: SERIES[2] },
      { label: "tolerance; to its right comparisons fail", color: WRONG, mark: "dashed" },
    ],
    draw: (width) => drawStrips([...parts], rowsByPart(rows), kinds, width),
    tables: [
      tableOf("the worst of every kind of module", kinds, [
        { title: "part", left: true, cell: ({ part }) => part },
        { title: "module", left: true, cell: ({ name }) => name },
        { title: "count", cell: ({ count }) => String(count) },
        { title: "NMSE", cell: ({ worst }) => numberOf(worst.nmse, worst) },
        { title: "max |Δ|", cell: ({ worst }) => numberOf(worst.maxAbs, worst) },
        {
          title: "of tolerance",
          cell: ({ worst }) =>
            hasFailed(worst)
              ? `FAILED ${worst.share === null ? "" : percent(worst.share)}`
              : worst.exact
                ? "equal"
                : percent(worst.share),
        },
        { title: "failed", cell: ({ failed }) => (failed ? String(failed) : "") },
        { title: "worst in", left: true, cell: ({ worst }) => worst.golden },
      ]),
    ],
  };
}

const hasFailed = ({ share }: ParityRow) => !(share !== null && share <= 1);
const numberOf = (value: number | null, { exact }: ParityRow) =>
  exact ? "equal" : value === null ? "not finite" : value.toExponential(1);

function percent(share: number | null): string {
  if (share === null) return "";
  return share === 0 ? "0 %" : `${Number((100 * share).toPrecision(2))} %`;
}

/** Modules by the first name of their path, the rest by what is compared. */
const partOf = ({ stage, name }: ParityRow) =>
  stage === "module" || stage === "exact" ? name.split(".")[0].replace(/#\d+$/, "") : stage;

/** Layers of one stack are one kind. */
const kindOf = ({ name }: ParityRow) => name.replace(/\.\d+\b/g, ".*").replace(/#\d+$/, "");

const severity = (row: ParityRow) => (hasFailed(row) ? Number.POSITIVE_INFINITY : row.share!);

function kindsOf(rows: readonly ParityRow[]): Kind[] {
  const kinds = new Map<string, { -readonly [K in keyof Kind]: Kind[K] }>();
  for (const row of rows) {
    const [part, name] = [partOf(row), kindOf(row)];
    const known = kinds.get(`${part}|${name}`);
    if (!known) kinds.set(`${part}|${name}`, { part, name, worst: row, count: 1, failed: Number(hasFailed(row)) });
    else {
      known.count++;
      known.failed += Number(hasFailed(row));
      if (severity(row) > severity(known.worst)) known.worst = row;
    }
  }
  return [...kinds.values()];
}

const rowsByPart = (rows: readonly ParityRow[]) => groupedBy(rows, partOf);

/** All rows as thin lines, one for those at the same place; the worst of every kind can be pointed at. */
function drawStrips(
  parts: readonly (readonly [string, readonly Kind[]])[],
  rows: ReadonlyMap<string, readonly ParityRow[]>,
  kinds: readonly Kind[],
  width: number,
): string {
  const isNarrow = width < 500;
  const line = isNarrow ? 36 : 24;
  const place = (row: ParityRow) => {
    const share = row.share ?? Number.POSITIVE_INFINITY;
    return share <= LEAST ? LEAST : Math.min(MOST, Number(share.toPrecision(2)));
  };
  const y = (part: number) => part + (isNarrow ? 0.22 : 0);
  const marks = parts.flatMap(([part], at) => {
    const places = new Map(
      (rows.get(part) ?? []).map((row) => [place(row), { x: place(row), y: y(at), failed: hasFailed(row) }]),
    );
    return [...places.values()];
  });
  const worst = kinds.map((kind, row) => ({
    x: place(kind.worst),
    y: y(parts.findIndex(([part]) => part === kind.part)),
    row,
    failed: hasFailed(kind.worst),
  }));
  const labels = parts.map(([label], at) => ({ label, at }));
  const high = marks.some(({ failed }) => failed) ? MOST * 1.3 : 1.6;
  const ticks = decades([LEAST, high], isNarrow ? 4 : 10);
  const marginLeft = isNarrow ? 10 : Math.min(260, 20 + 6.8 * Math.max(...labels.map(({ label }) => label.length)));
  const half = isNarrow ? 0.2 : 0.32;
  const height = 46 + line * parts.length;
  return drawn({
    ...{ width, height, marginLeft, marginRight: 14, marginTop: 6, marginBottom: 40 },
    x: { type: "log", domain: [LEAST * 0.7, high], label: null },
    y: { domain: [parts.length - 0.5, -0.5], axis: null },
    marks: [
      ...axisX(ticks, "of the tolerance", (share) =>
        share <= LEAST ? "0" : `${Number((100 * share).toPrecision(1))} %`,
      ),
      Plot.link(marks, {
        x1: "x",
        x2: "x",
        y1: ({ y }) => y - half,
        y2: ({ y }) => y + half,
        stroke: ({ failed }) => (failed ? WRONG : SERIES[2]),
        strokeWidth: 1.25,
        strokeOpacity: 0.55,
      }),
      Plot.ruleX([1], { stroke: WRONG, strokeWidth: 1.5, strokeDasharray: "4 3" }),
      Plot.dot(worst, {
        x: "x",
        y: "y",
        r: 2.5,
        fill: ({ failed }) => (failed ? WRONG : SERIES[2]),
        title: ({ row }) => String(row),
      }),
      isNarrow
        ? Plot.text(labels, {
            frameAnchor: "left",
            y: ({ at }) => at - 0.25,
            text: "label",
            textAnchor: "start",
            dx: 2,
            fontSize: 11,
            fill: INK,
          })
        : Plot.text(labels, { frameAnchor: "left", y: "at", text: "label", textAnchor: "end", dx: -8, fill: INK }),
    ],
    color: { type: "identity" },
  });
}
