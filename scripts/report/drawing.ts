/** Observable Plot's charts as SVG text, drawn without a browser. */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

const { document } = parseHTML("<html><body></body></html>");

/** Colours of the page: the style sheet has them for light and dark. */
export const INK = "var(--ink)";
export const SOFT = "var(--soft)";
export const LINE = "var(--line)";
export const CARD = "var(--card)";
export const WRONG = "var(--wrong)";
export const SERIES = ["var(--s1)", "var(--s2)", "var(--s3)", "var(--s4)", "var(--s5)"] as const;
export const SYMBOLS = ["circle", "triangle", "square", "diamond", "star"] as const;

/** Text over lines and points stays readable. */
export const HALO = { stroke: CARD, strokeWidth: 4, paintOrder: "stroke" } as const;

/**
 * One chart. The `title` of a mark is the number of its row in the chart's table; the page's script tells what is there. Marks
 * without a row have no title.
 */
export function drawn(options: Plot.PlotOptions): string {
  const svg = Plot.plot({
    ...options,
    document: document as unknown as Document,
    className: "plot",
    style: { fontSize: "12px", ...(options.style as object) },
  }) as unknown as Element;
  svg.querySelector("style")?.remove(); // the page has it, once
  for (const title of svg.querySelectorAll("title")) {
    title.parentElement?.setAttribute("data-row", title.textContent ?? "");
    title.remove();
  }
  // An accessible name belongs to the chart, not to its groups.
  for (const group of svg.querySelectorAll("[aria-label], [aria-description]")) {
    group.removeAttribute("aria-label");
    group.removeAttribute("aria-description");
  }
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  return rounded(svg.outerHTML);
}

/** Coordinates to a tenth of a pixel. */
function rounded(svg: string): string {
  return svg.replace(/ (?:[xyrd]|[xy][12]|c[xy]|transform|height|width)="[^"]*"/g, (attribute) =>
    attribute.replace(/-?\d+\.\d{2,}(?:e-?\d+)?/g, (digits) => String(Number(Number(digits).toFixed(1)))),
  );
}

/** Grid lines with their numbers and a label, for x. */
export function axisX(
  ticks: readonly number[],
  label: string,
  tickFormat: (value: number) => string = tick,
): Plot.Markish[] {
  return [
    Plot.gridX(ticks, { stroke: LINE, strokeOpacity: 1 }),
    // Without the infinity a logarithmic axis leaves numbers out.
    Plot.axisX(ticks, { tickFormat, ticks: INFINITE, label, labelAnchor: "center", labelArrow: "none", tickSize: 0 }),
  ];
}

/** The same for y, with the label above. */
export function axisY(
  ticks: readonly number[],
  label: string,
  tickFormat: (value: number) => string = tick,
): Plot.Markish[] {
  return [
    Plot.gridY(ticks, { stroke: LINE, strokeOpacity: 1 }),
    Plot.axisY(ticks, { tickFormat, ticks: INFINITE, label, labelArrow: "none", tickSize: 0 }),
  ];
}

const INFINITE = Number.POSITIVE_INFINITY;

/** Round numbers between two, at most `most`: as many digits as there is room for. */
export function ticksOf([low, high]: readonly [number, number], most: number): number[] {
  for (const digits of [
    [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9],
    [1, 2, 3, 5, 7],
    [1, 2, 5],
  ]) {
    const ticks: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      ticks.push(
        ...digits.map((digit) => Number(`${digit}e${power}`)).filter((value) => value >= low && value <= high),
      );
    }
    if (ticks.length <= most) return ticks;
  }
  return decades([low, high], most);
}

/** The whole powers of ten between two numbers, at most `most` of them, evenly. */
export function decades([low, high]: readonly [number, number], most: number): number[] {
  const [from, to] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const step = Math.max(1, Math.ceil((to - from + 1) / most));
  const ticks: number[] = [];
  for (let power = from; power <= to; power += step) ticks.push(Number(`1e${power}`));
  return ticks;
}

/** The range of some positive numbers, widened by a share of it on a logarithmic axis. */
export function logRange(values: readonly number[], margin = 0.04): [number, number] {
  const logs = values.filter((value) => value > 0 && Number.isFinite(value)).map(Math.log10);
  if (logs.length === 0) return [0.1, 10];
  const [low, high] = logs.reduce(([a, b], log) => [Math.min(a, log), Math.max(b, log)], [logs[0], logs[0]]);
  const more = Math.max(0.2, (high - low) * margin);
  return [10 ** (low - more), 10 ** (high + more)];
}

/** 0.001, 10, 1000; from a million on 1e6, below a thousandth 1e-4. */
export function tick(value: number): string {
  if (value === 0) return "0";
  const power = Math.log10(Math.abs(value));
  return power < -3.01 || power > 5.99
    ? value.toExponential(0).replace("e+", "e")
    : String(Number(value.toPrecision(3)));
}

export { Plot };
