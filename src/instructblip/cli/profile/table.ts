/** A profile as text. */
import { formatBytes } from "../../../tensor/device/memory.ts";
import type { Limits } from "../../../tensor/limits.ts";
import {
  layersTogether,
  type PhaseReport,
  type ProfileReport,
  type ProfileSums,
} from "../../instruments/profile/report.ts";
import { formatDuration, formatTable } from "../format.ts";

export interface TableOptions {
  readonly by: "module" | "kernel";
  /** A row for each layer. */
  readonly each: boolean;
  /** Rows; 0: all. */
  readonly top: number;
}

const CLOCKS = {
  timestamps: "the GPU's timestamps",
  sync: "the host's clock, with a sync at each launch, whose time is in each",
};

/** The adapter with its limits, then each phase: a line, and a table of its launches if it has any. */
export function profileText(report: ProfileReport, options: TableOptions): string {
  const step = report.clock === "timestamps" && report.step_ms > 0.001 ? `, in steps of ${micro(report.step_ms)}` : "";
  const facts = [
    ["adapter", report.adapter],
    ["times", `${CLOCKS[report.clock]}${step}`],
    ["limits", limitsText(report.limits)],
    ...report.phases.map((phase) => [phase.name, phaseText(phase)]),
  ];
  const tables = report.phases.filter(({ launches }) => launches > 0).map((phase) => `\n${tableOf(phase, options)}`);
  return formatTable(facts) + tables.join("");
}

function limitsText({ ms_per_launch, ms_per_flop, ms_per_byte, ms_per_cached_byte }: Limits): string {
  const rate = (ms: number) => number(1 / ms / 1e6);
  return `${micro(ms_per_launch)} a launch, ${rate(ms_per_flop)} GFLOP/s, ${rate(ms_per_byte)} GB/s, in caches ${rate(ms_per_cached_byte)} GB/s`;
}

function phaseText({ total_ms, launches, ms, uploads, memory_bytes }: PhaseReport): string {
  const parts = [formatDuration(total_ms)];
  if (launches > 0) parts.push(`${launches} ${launches === 1 ? "launch" : "launches"} of ${duration(ms)}`);
  if (uploads.count > 0)
    parts.push(`${uploads.count} uploads of ${formatBytes(uploads.bytes)} in ${duration(uploads.ms)}`);
  parts.push(`at most ${formatBytes(memory_bytes)} of memory`);
  return parts.join(", ");
}

function tableOf(phase: PhaseReport, { by, each, top }: TableOptions): string {
  const named: readonly (ProfileSums & { readonly name: string })[] =
    by === "kernel"
      ? phase.kernels.map(({ kernel, ...sums }) => ({ name: kernel, ...sums }))
      : (each ? phase.modules : layersTogether(phase.modules)).map(({ module, ...sums }) => ({
          name: module || "(outside of modules)",
          ...sums,
        }));
  const shown = top === 0 ? named : named.slice(0, top);
  const rest = named.length - shown.length;
  const head = [`${phase.name}: ${by}`, "launches", "time", "", "bytes", "GFLOP/s", "GB/s", "of limit", "bound"];
  const rows = [head, ...shown.map(({ name, ...sums }) => cells(name, sums)), cells("all", phase)];
  const table = formatTable(rows, [1, 2, 3, 4, 5, 6, 7]);
  return rest > 0 ? `${table}${rest} more: --top 0\n` : table;
}

function cells(name: string, { launches, ms, share, bytes, gflops, gbs, of_limit, bound }: ProfileSums): string[] {
  const rate = (value: number | null) => (value === null ? "" : number(value));
  return [
    ...[name, String(launches), duration(ms), percent(share), formatBytes(bytes)],
    ...[rate(gflops), rate(gbs), of_limit === null ? "" : percent(of_limit), bound],
  ];
}

function percent(part: number): string {
  const text = (100 * part).toFixed(part < 0.0995 ? 1 : 0);
  return `${text} %`;
}

function duration(ms: number): string {
  return ms < 1000 ? `${number(ms)} ms` : formatDuration(ms);
}

function micro(ms: number): string {
  return `${number(1000 * ms)} µs`;
}

/** Three digits. */
function number(value: number): string {
  if (value === 0) return "0";
  return value >= 99.95 ? value.toFixed(0) : value.toPrecision(value >= 9.995 ? 3 : 2);
}
