/**
 * What a benchmark run leaves behind: one row for each case, with the machine it ran on, kept as one JSON object a line.
 * Pure: reading, merging and the arithmetic of rates; how rows look is in report.ts.
 */
import type { Work } from "../src/tensor/cases/support/group.ts";

/** Where a run took place. */
export interface Machine {
  readonly adapter: string;
  readonly vendor: string;
  readonly architecture: string;
  /** The adapter computes on the CPU. */
  readonly software: boolean;
  readonly cpu: string;
  readonly cores: number;
  readonly os: string;
  readonly node: string;
  /** Version of the npm package `webgpu` (Dawn). */
  readonly webgpu: string;
  /** Git commit, with `+` behind it when files had been changed; `unknown` outside a repository. */
  readonly commit: string;
  /** ISO 8601, when the run began. */
  readonly date: string;
}

/** What a check of a result against the reference found. */
export interface CheckResult {
  /** Share of the tolerance that was used; above 1 the result is wrong. null: it was not a number. */
  readonly share: number | null;
  /** Why it failed, where the share does not say it. */
  readonly note?: string;
}

/** Decoding costs by the token. */
export interface PerToken {
  readonly launches: number;
  readonly submits: number;
  readonly bind_groups: number;
  readonly buffers: number;
}

/** Which time rates and shares are computed from. */
export type Basis = "gpu" | "wall" | "cpu";

/** What held a case back at best: the limit whose time is the longest. */
export type Bound = "launch" | "arithmetic" | "memory" | "cache";

/** One case. Times in milliseconds for one run of it; what could not be measured is null. */
export interface Row extends Machine {
  readonly kernel: string;
  readonly variant: string;
  /** Whether plan() picks this variant for this shape on this adapter. */
  readonly planned: boolean;
  readonly shape: string;
  /** null: it was not run. */
  readonly check: CheckResult | null;
  /** The very first run, compiling included. */
  readonly first_ms: number | null;
  readonly ms: number | null;
  readonly ms_min: number | null;
  /** Of all threads of the process; on a software adapter those that compute are among them. */
  readonly cpu_ms: number | null;
  readonly cpu_ms_min: number | null;
  readonly gpu_ms: number | null;
  readonly gpu_ms_min: number | null;
  readonly rounds: number;
  readonly repetitions: number;
  readonly basis: Basis;
  readonly launches: number;
  readonly flops: number;
  readonly bytes: number;
  /** Bytes that runs after each other touch before the first comes again. */
  readonly footprint: number;
  readonly gflops: number | null;
  readonly gbs: number | null;
  /** Time that this machine's limits allow, divided by the time taken; null for the limits themselves. */
  readonly share: number | null;
  readonly bound: Bound | null;
  readonly tokens_per_second?: number;
  readonly per_token?: PerToken;
  /** Why there are no times. */
  readonly note?: string;
}

/** What this machine can do at best, measured; milliseconds. */
export interface Limits {
  readonly ms_per_launch: number;
  readonly ms_per_flop: number;
  /** Of memory that caches hold, up to `cached_bytes`, and of memory that they do not. */
  readonly ms_per_cached_byte: number;
  readonly ms_per_byte: number;
  readonly cached_bytes: number;
}

/** The time that the limits allow for some work, and which of them it is. Limits overlap, so the slowest counts. */
export function roofline(work: Work, limits: Limits): { ms: number; bound: Bound } {
  const cached = work.footprint <= limits.cached_bytes;
  const times: [Bound, number][] = [
    ["launch", work.launches * limits.ms_per_launch],
    ["arithmetic", work.flops * limits.ms_per_flop],
    cached ? ["cache", work.bytes * limits.ms_per_cached_byte] : ["memory", work.bytes * limits.ms_per_byte],
  ];
  const [bound, ms] = times.reduce((longest, time) => (time[1] > longest[1] ? time : longest));
  return { ms, bound };
}

/** The middle of some numbers; the mean of the two in the middle if there is no one. */
export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Whether a row's result was wrong. */
export function isWrong({ check }: Pick<Row, "check">): boolean {
  return check !== null && !(check.share !== null && check.share <= 1);
}

/** A file name's stem for an adapter: `llvmpipe-mesa-25.0.7`. */
export function slug(adapter: string): string {
  const words = adapter
    .toLowerCase()
    .replace(/\(.*?\)/g, "")
    .split(/[^a-z0-9.]+/)
    .filter(Boolean);
  return (
    words
      .join("-")
      .slice(0, 60)
      .replace(/[-.]+$/, "") || "adapter"
  );
}

/** Reads a .jsonl file's text. @throws Error with the line number */
export function parseRows(text: string): Row[] {
  return text.split("\n").flatMap((line, i) => {
    if (!line.trim()) return [];
    try {
      const row = JSON.parse(line) as Row;
      if (typeof row.kernel !== "string" || typeof row.shape !== "string") throw new Error("not a benchmark row");
      return [row];
    } catch (cause) {
      throw new Error(`line ${i + 1}: ${(cause as Error).message}`, { cause });
    }
  });
}

export function formatRows(rows: readonly Row[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

/** The rows of `old` that `fresh` does not measure anew, in their places, then those that are new. */
export function mergeRows(old: readonly Row[], fresh: readonly Row[]): Row[] {
  const key = (row: Row) => [row.adapter, row.cpu, row.kernel, row.variant, row.shape].join("|");
  const latest = new Map(fresh.map((row) => [key(row), row]));
  const known = new Set(old.map(key));
  return [...old.map((row) => latest.get(key(row)) ?? row), ...fresh.filter((row) => !known.has(key(row)))];
}
