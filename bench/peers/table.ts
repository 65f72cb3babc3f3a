/** Formats a comparison: a table and its summary, for the terminal and, between markers, for docs/benchmarks.md. Pure. */
import { byMachine, formatTime, replacePart } from "../report.ts";
import { ENGINE_NAMES, ENGINES, type EngineName } from "./engine.ts";
import { basisOf, type Comparison, compareRows, GEMM_MEAN_BAR, meanOf, type PeerRow } from "./results.ts";

/** Machine, table, summary and errors, for each machine. */
export function renderPeers(rows: readonly PeerRow[], markdown = false): string {
  return byMachine(rows)
    .map((group) => renderMachine(group, markdown))
    .join("\n\n");
}

function renderMachine(rows: readonly PeerRow[], markdown: boolean): string {
  const [first] = rows;
  const engines = ENGINE_NAMES.filter((name) => rows.some(({ engine }) => engine === name));
  const comparisons = compareRows(rows);
  const dates = rows.map((row) => row.date.slice(0, 10)).sort();
  const when = dates[0] === dates.at(-1) ? dates[0] : `${dates[0]} to ${dates.at(-1)}`;
  const basis = basisOf(first);
  const lines = (texts: readonly string[]) => texts.map((text) => (markdown ? `- ${text}` : text)).join("\n");
  const about = engines.map((name) => {
    const { version, engine_adapter } = rows.findLast(({ engine }) => engine === name)!;
    return `${ENGINES[name].title} ${version} on ${engine_adapter}`;
  });
  const legend = [
    `Times are the median ${basis === "cpu" ? "CPU" : "wall"} time of one run. wall, CPU: time of the fastest other WebGPU engine, divided by this project's`,
    "(attention: of ONNX Runtime; f16, int8 and int4 weights: of this project's f32), by wall clock and by CPU time.",
    `bar: the required ratio, by ${basis === "cpu" ? "CPU" : "wall"} time. -: the engine does not support the job, or its result is wrong.`,
  ];
  return [
    `${first.adapter} · ${first.cpu}, ${first.cores} cores · ${first.os} · Node ${first.node} · webgpu ${first.webgpu} · ${when}`,
    lines(about),
    renderTable(
      [
        ["job", ...engines.map((name) => ENGINES[name].title), "rival", "wall", "CPU", "bar", ""],
        ...comparisons.map((each) => cells(each, engines, basis)),
      ],
      markdown,
    ),
    lines(legend),
    lines(summary(comparisons, basis)),
    lines(complaints(rows)),
  ]
    .filter(Boolean)
    .join("\n\n");
}

function cells(
  { job, rows, rival, wall, cpu, bar, met }: Comparison,
  engines: readonly EngineName[],
  basis: "cpu" | "wall",
): string[] {
  const time = (name: EngineName) => {
    const row = rows.get(name);
    if (!row) return "";
    return formatTime(basis === "cpu" ? row.cpu_ms : row.ms) || "-";
  };
  const against = rival ? (rival.engine === "ours" ? "own f32" : ENGINES[rival.engine].title) : "";
  const verdict = met === null ? "" : met ? "met" : "missed";
  return [job, ...engines.map(time), against, ratio(wall), ratio(cpu), bar === null ? "" : `${bar}x`, verdict];
}

/** Means, number of met targets, and names of missed ones. */
function summary(comparisons: readonly Comparison[], basis: "cpu" | "wall"): string[] {
  const lines: string[] = [];
  const gemm = meanOf(comparisons, "gemm");
  const judged = gemm[basis];
  if (judged !== null) {
    const verdict = judged >= GEMM_MEAN_BAR ? "met" : "missed";
    lines.push(
      `GEMM, geometric mean: ${ratio(gemm.wall)} wall, ${ratio(gemm.cpu)} CPU; bar ${GEMM_MEAN_BAR}x: ${verdict}`,
    );
  }
  const barred = comparisons.filter(({ met }) => met !== null);
  const missed = barred.filter(({ met }) => !met);
  if (barred.length) lines.push(`${barred.length - missed.length} of ${barred.length} bars met`);
  for (const { job, wall, cpu, bar } of missed) {
    lines.push(`missed: ${job}: ${ratio(wall)} wall, ${ratio(cpu)} CPU, bar ${bar}x`);
  }
  return lines;
}

/** Why rows have no times, or those of an unexpected way; each reason once per engine. */
function complaints(rows: readonly PeerRow[]): string[] {
  const reasons = new Map<string, string[]>();
  for (const { engine, note, way, job } of rows) {
    if (!note) continue;
    const key = `${ENGINES[engine].title}: ${note}${way && `; measured: ${way}`}`;
    reasons.set(key, [...(reasons.get(key) ?? []), job]);
  }
  return [...reasons].map(([reason, jobs]) => {
    return `${reason} (${jobs.length > 3 ? `${jobs.length} jobs` : jobs.join("; ")})`;
  });
}

function ratio(value: number | null): string {
  return value === null ? "" : `${value.toFixed(2)}x`;
}

/** The first column to the left, the others to the right. */
function renderTable([head, ...body]: readonly (readonly string[])[], markdown: boolean): string {
  const widths = head.map((_, i) => Math.max(...[head, ...body].map((line) => line[i].length)));
  const pad = (line: readonly string[]) =>
    line.map((text, i) => (i ? text.padStart(widths[i]) : text.padEnd(widths[i])));
  if (!markdown) return [head, ...body].map((line) => pad(line).join("  ").trimEnd()).join("\n");
  const rule = widths.map((width, i) => (i ? `${"-".repeat(Math.max(1, width - 1))}:` : "-".repeat(width)));
  return [pad(head), rule, ...body.map(pad)].map((line) => `| ${line.join(" | ")} |`).join("\n");
}

/**
 * `page` with the comparison between the peers' markers.
 *
 * @throws Error if the markers are missing
 */
export function replacePeersInDocs(page: string, rows: readonly PeerRow[]): string {
  return replacePart(page, "peers", renderPeers(rows, true));
}
