/** The drawings of roofline.ts: points on logarithmic axes, and what the machine's limits allow above them. */
import { formatRate } from "../../bench/report.ts";
import { isWrong, type Row } from "../../bench/rows.ts";
import type { Limits } from "../../src/tensor/limits.ts";
import { axisX, axisY, CARD, decades, drawn, HALO, INK, logRange, Plot, tick, ticksOf, WRONG } from "./drawing.ts";
import { FAMILIES, familyOf } from "./families.ts";

/** A row with its place on a chart. */
export interface Point {
  readonly row: Pick<Row, "kernel" | "planned" | "check">;
  /** Its row of the table. */
  readonly at: number;
  readonly x: number;
  readonly y: number;
}

export const gflopsOf = ({ ms_per_flop }: Limits) => 1e-6 / ms_per_flop;
export const cachedGbs = ({ ms_per_cached_byte }: Limits) => 1e-6 / ms_per_cached_byte;
export const memoryGbs = ({ ms_per_byte }: Limits) => 1e-6 / ms_per_byte;

const MARGINS = { marginLeft: 52, marginBottom: 40, marginTop: 22, marginRight: 12 } as const;
const AT = { x: "x", y: "y" } as const;
const ROOF = { ...AT, stroke: INK, strokeWidth: 1.5 } as const;
const DASHED = { ...ROOF, strokeDasharray: "4 3" } as const;
const LABEL = { ...AT, ...HALO, text: "text", fill: INK, fontSize: 11 } as const;

type Range = readonly [number, number];

/** GFLOP/s over FLOP a byte. Without limits, the points alone. */
export function drawRoofline(points: readonly Point[], limits: Limits | null, width: number, height: number): string {
  const knees = limits ? [gflopsOf(limits) / cachedGbs(limits), gflopsOf(limits) / memoryGbs(limits)] : [];
  const xs = logRange([...points.map(({ x }) => x), ...knees.flatMap((knee) => [knee / 4, knee * 2])]);
  const tops = limits ? [gflopsOf(limits), Math.min(gflopsOf(limits), xs[0] * memoryGbs(limits))] : [];
  const ys = logRange([...points.map(({ y }) => y), ...tops]);
  return drawn({
    ...{ width, height, ...MARGINS },
    x: { type: "log", domain: [...xs] },
    y: { type: "log", domain: [...ys] },
    marks: [
      ...axisX(ticksOf(xs, width < 500 ? 5 : 10), "FLOP a byte"),
      ...axisY(ticksOf(ys, 9), "GFLOP/s"),
      ...(limits ? roofs(limits, xs, slopeOf(xs, ys, width, height)) : []),
      ...pointMarks(points, width),
    ],
  });
}

/** Memory's lines rise to the arithmetic's. @param slope degrees at which they rise on the screen */
function roofs(limits: Limits, xs: Range, slope: number): Plot.Markish[] {
  const peak = gflopsOf(limits);
  const within = (x: number) => Math.min(xs[1], Math.max(xs[0], x));
  const rising = (gbs: number, name: string, style: typeof ROOF | typeof DASHED, isUpper: boolean) => {
    const knee = within(peak / gbs);
    const marks: Plot.Markish[] = [
      Plot.line(
        [xs[0], knee].map((x) => ({ x, y: x * gbs })),
        style,
      ),
    ];
    const x = Math.sqrt(xs[0] * Math.min(knee, 100 * xs[0]));
    const side = isUpper
      ? ({ lineAnchor: "bottom", dx: -2, dy: -5 } as const)
      : ({ lineAnchor: "top", dx: 2, dy: 5 } as const);
    const label = { x, y: x * gbs, text: `${name} ${formatRate(gbs)} GB/s` };
    return [...marks, Plot.text([label], { ...LABEL, ...side, rotate: -slope })];
  };
  const [cached, memory] = [cachedGbs(limits), memoryGbs(limits)];
  const flat = [within(peak / Math.max(cached, memory)), xs[1]].map((x) => ({ x, y: peak }));
  const label = { x: xs[1], y: peak, text: `multiply-add ${formatRate(peak)} GFLOP/s` };
  return [
    ...rising(cached, "caches", ROOF, cached >= memory),
    ...rising(memory, "memory", DASHED, cached < memory),
    Plot.line(flat, ROOF),
    Plot.text([label], { ...LABEL, textAnchor: "end", lineAnchor: "bottom", dy: -4 }),
  ];
}

/** The angle of lines that rise a decade for each to the right. */
function slopeOf(xs: Range, ys: Range, width: number, height: number): number {
  const decadesIn = ([low, high]: Range) => Math.log10(high / low);
  const x = (width - MARGINS.marginLeft - MARGINS.marginRight) / decadesIn(xs);
  const y = (height - MARGINS.marginTop - MARGINS.marginBottom) / decadesIn(ys);
  return (180 / Math.PI) * Math.atan2(y, x);
}

/** GB/s over the bytes of a run. */
export function drawBandwidth(points: readonly Point[], limits: Limits | null, width: number, height: number): string {
  const xs = logRange(points.map(({ x }) => x));
  const ys = logRange([...points.map(({ y }) => y), ...(limits ? [cachedGbs(limits), memoryGbs(limits)] : [])]);
  return drawn({
    ...{ width, height, ...MARGINS },
    x: { type: "log", domain: [...xs] },
    y: { type: "log", domain: [...ys] },
    marks: [
      ...axisX(decades(xs, width < 500 ? 5 : 10), "bytes a run", bytesText),
      ...axisY(ticksOf(ys, 7), "GB/s"),
      ...(limits ? ceilings(limits, xs, ys) : []),
      ...pointMarks(points, width),
    ],
  });
}

/** What one launch moves at most in its time, up to the limits of memory. */
function ceilings(limits: Limits, xs: Range, ys: Range): Plot.Markish[] {
  const { ms_per_launch } = limits;
  const within = (x: number) => Math.min(xs[1], Math.max(xs[0], x));
  const bytesAt = (gbs: number) => 1e6 * gbs * ms_per_launch;
  const [from, to] = [within(bytesAt(ys[0])), within(bytesAt(cachedGbs(limits)))];
  const level = (gbs: number, style: typeof ROOF | typeof DASHED) =>
    Plot.line(
      [within(bytesAt(gbs)), xs[1]].map((x) => ({ x, y: gbs })),
      style,
    );
  // In the margin: points lie close to the lines.
  const names = `caches ${formatRate(cachedGbs(limits))} GB/s, memory ${formatRate(memoryGbs(limits))} GB/s (dashed)`;
  return [
    ...(to > from
      ? [
          Plot.line(
            [from, to].map((x) => ({ x, y: (1e-6 * x) / ms_per_launch })),
            ROOF,
          ),
        ]
      : []),
    level(cachedGbs(limits), ROOF),
    level(memoryGbs(limits), DASHED),
    Plot.text([names], { frameAnchor: "top-right", text: (name: string) => name, dy: -14, fill: INK, fontSize: 11 }),
  ];
}

/** 100 B, 10 kB, 1 MB. */
function bytesText(bytes: number): string {
  for (const [unit, size] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const) {
    if (bytes >= 0.999 * size) return `${tick(bytes / size)} ${unit}`;
  }
  return `${tick(bytes)} B`;
}

/** Other variants below, chosen ones above them, wrong ones red. */
function pointMarks(points: readonly Point[], width: number): Plot.Markish[] {
  const r = width < 500 ? 3 : 4;
  const at = { ...AT, title: ({ at }: Point) => String(at) } as const;
  const right = points.filter(({ row }) => !isWrong(row));
  const of = (planned: boolean) =>
    FAMILIES.map((family) => ({
      ...family,
      own: right.filter(({ row }) => familyOf(row) === family && row.planned === planned),
    }));
  return [
    ...of(false).map(({ own, color, symbol }) =>
      Plot.dot(own, { ...at, symbol, r: r - 0.5, stroke: color, strokeOpacity: 0.5, fill: "none" }),
    ),
    ...of(true).map(({ own, color, symbol }) =>
      Plot.dot(own, { ...at, symbol, r, fill: color, stroke: CARD, strokeWidth: 0.75 }),
    ),
    Plot.dot(
      points.filter(({ row }) => isWrong(row)),
      { ...at, symbol: "times", r: r + 1, stroke: WRONG, strokeWidth: 2 },
    ),
  ];
}
