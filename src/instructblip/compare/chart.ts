/** The chart of a comparison: a bar for each tensor, as high as its error is large, on a logarithmic axis. SVG and HTML. */
import { escapeHtml } from "../instruments/page.ts";
import type { Comparison, Row } from "./comparison.ts";
import { formatError } from "./summary.ts";
import { moduleOf } from "./trace.ts";

/** A logarithmic axis of NMSE. */
export interface Axis {
  /** Powers of ten of its ends. */
  readonly low: number;
  readonly high: number;
  /** Where an error lies on it, from 0 to 1. 0 is below it, and lies at 0. */
  share(nmse: number): number;
}

/** The axis of all errors and the tolerance. */
export function axisOf({ rows, tolerance }: Pick<Comparison, "rows" | "tolerance">): Axis {
  const errors = [tolerance, ...rows.map(({ difference }) => difference?.nmse ?? 0)].filter(
    (nmse) => nmse > 0 && Number.isFinite(nmse),
  );
  const powers = errors.map(Math.log10);
  const low = Math.max(-20, Math.floor(powers.reduce((a, b) => Math.min(a, b), 0)) - 1);
  const high = Math.ceil(powers.reduce((a, b) => Math.max(a, b), low + 1));
  const share = (nmse: number) =>
    nmse > 0 ? Math.max(0, Math.min(1, (Math.log10(nmse) - low) / (high - low))) : nmse === 0 ? 0 : 1;
  return { low, high, share };
}

const [WIDTH, HEIGHT] = [1000, 100];

export function chartOf({ rows, tolerance, byItself }: Comparison, axis: Axis): string {
  const step = Math.max(1, Math.ceil((axis.high - axis.low) / 6));
  const ticks: number[] = [];
  for (let power = axis.high; power > axis.low; power -= step) ticks.push(power);
  const y = (nmse: number) => HEIGHT * (1 - axis.share(nmse));
  const across = (kind: string, nmse: number) =>
    `<line class="${kind}" x1="0" x2="${WIDTH}" y1="${y(nmse).toFixed(2)}" y2="${y(nmse).toFixed(2)}"/>`;
  const labels = ticks.map((power) => {
    const bottom = (100 * axis.share(10 ** power)).toFixed(1);
    return `<span style="bottom: ${bottom}%">1e${power}</span>`;
  });
  const slot = WIDTH / rows.length;
  const most = rows.reduce((worst, { difference }) => Math.max(worst, difference?.nmse ?? 0), 0);
  return `<div class="chart"><div class="axis" aria-hidden="true">${labels.join("")}</div>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="NMSE of ${rows.length} tensors, up to ${formatError(most)}; the table has the numbers">
${ticks.map((power) => across("grid", 10 ** power)).join("")}
${rows.map((row, i) => bars(byItself ? { ...row, inherited: 0 } : row, [slot * (i + 0.1), slot * 0.8], y)).join("")}
${tolerance > 0 ? across("tolerance", tolerance) : ""}<line class="cursor" x1="0" x2="0" y1="0" y2="${HEIGHT}"/></svg>
<div class="parts" aria-hidden="true">${partsOf(rows)}</div>
<div class="key">${byItself ? "" : key("var(--soft)", "inherited")}${key("var(--accent)", byItself ? "of the module itself" : "added")}${key("var(--wrong)", "the same, above the tolerance (dashed)")}${byItself ? "" : "<span>pale: inherited is not known</span>"}</div></div>`;
}

const key = (color: string, label: string) => `<span><i style="--color: ${color}"></i>${label}</span>`;

/** The inherited part, and what is above it. Without a difference, as for another shape, the whole height. */
function bars(
  { difference, inherited, wrong }: Row,
  [x, width]: readonly [number, number],
  y: (nmse: number) => number,
): string {
  const nmse = wrong === "error" || !wrong ? (difference?.nmse ?? 0) : Number.POSITIVE_INFINITY;
  const bar = (kind: string, from: number, to: number) => {
    const height = (y(from) - y(to)).toFixed(2);
    return `<rect class="${kind}" x="${x.toFixed(2)}" width="${width.toFixed(2)}" y="${y(to).toFixed(2)}" height="${height}"/>`;
  };
  const below = Math.min(inherited ?? 0, nmse);
  const kind = `${inherited === undefined ? "whole" : "added"}${wrong ? " wrong" : ""}`;
  return (below > 0 ? bar("inherited", 0, below) : "") + (nmse > below ? bar(kind, below, nmse) : "");
}

/** The model's parts under the chart, as wide as they have tensors. */
function partsOf(rows: readonly Row[]): string {
  const parts: { name: string; count: number }[] = [];
  for (const { name } of rows) {
    const [first = ""] = moduleOf(name).split(".");
    const last = parts.at(-1);
    if (last?.name === first) last.count++;
    else parts.push({ name: first, count: 1 });
  }
  return parts
    .map(({ name, count }) => {
      const label = escapeHtml(name);
      return `<span style="--share: ${count}" title="${label}">${count > rows.length / 12 ? label : ""}</span>`;
    })
    .join("");
}
