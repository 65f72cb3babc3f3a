/**
 * The rows of a benchmark run: one for each case, with its machine, as one JSON object per line. Pure: reading, merging and
 * rates; report.ts formats rows.
 */
import type { Work } from "../src/tensor/cases/support/group.ts";
import { type Bound, roofline as boundOf, type Limits } from "../src/tensor/limits.ts";

/** The machine of a run. */
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
  /** Git commit, with `+` if files had been changed; `unknown` outside a repository. */
  readonly commit: string;
  /** ISO 8601, when the run began. */
  readonly date: string;
}

/** The check of a result against the reference. */
export interface CheckResult {
  /** Fraction of the tolerance that was used; above 1 the result is wrong. null: NaN. */
  readonly share: number | null;
  /** Why it failed, if not by the tolerance. */
  readonly note?: string;
}

/** Counts per decoded token. */
export interface PerToken {
  readonly launches: number;
  readonly submits: number;
  readonly bind_groups: number;
  readonly buffers: number;
}

/** The clock that rates and fractions are computed from. */
export type Basis = "gpu" | "wall" | "cpu";

/** The times of every round in order, each for one run; a clock that was not read has none. The first run is none of them. */
export interface Samples {
  readonly wall: readonly number[];
  readonly cpu: readonly number[];
  readonly gpu: readonly number[];
}

/**
 * What a timed run finds: `hot`, its data is in caches; `cold`, successive runs touch more memory than caches hold; `start`, the
 * whole process is new. null: between hot and cold.
 */
export type Caches = "hot" | "cold" | "start";

/** One case. Times in milliseconds for one run of it; null if not measured. */
export interface Row extends Machine {
  readonly kernel: string;
  readonly variant: string;
  /** Whether plan() picks this variant for this shape on this adapter. */
  readonly planned: boolean;
  readonly shape: string;
  /** null: it was not run. */
  readonly check: CheckResult | null;
  /** The first run, compilation included. */
  readonly first_ms: number | null;
  readonly ms: number | null;
  readonly ms_min: number | null;
  /** Of all threads of the process; on a software adapter including its own. */
  readonly cpu_ms: number | null;
  readonly cpu_ms_min: number | null;
  readonly gpu_ms: number | null;
  readonly gpu_ms_min: number | null;
  /** Absent in files from before they were kept. */
  readonly samples?: Samples;
  readonly caches?: Caches | null;
  readonly rounds: number;
  readonly repetitions: number;
  readonly basis: Basis;
  readonly launches: number;
  readonly flops: number;
  readonly bytes: number;
  /** Bytes that successive runs touch before one is touched again. */
  readonly footprint: number;
  readonly gflops: number | null;
  readonly gbs: number | null;
  /** Time that this machine's limits allow, divided by the time taken; null for the limits themselves. */
  readonly share: number | null;
  readonly bound: Bound | null;
  readonly tokens_per_second?: number;
  readonly per_token?: PerToken;
  /** The variant whose kernels this one runs at these sizes: it is not timed, because the other's time would stand under its name. */
  readonly same_as?: string;
  /** Why there are no times. */
  readonly note?: string;
}

/** The least time of some work by the limits, and which limit bounds it: in caches, if all that successive runs touch is. */
export function roofline({ footprint, ...work }: Work, limits: Limits): { ms: number; bound: Bound } {
  return boundOf({ ...work, cached: footprint <= limits.cached_bytes ? work.bytes : 0 }, limits);
}

/** The median of some numbers. */
export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** The median and the least of each clock's samples, as a row has them. */
export function timesOf({ wall, cpu, gpu }: Samples) {
  const middle = (times: readonly number[]) => (times.length ? median(times) : null);
  const least = (times: readonly number[]) => (times.length ? Math.min(...times) : null);
  return {
    ...{ ms: middle(wall), ms_min: least(wall), cpu_ms: middle(cpu), cpu_ms_min: least(cpu) },
    ...{ gpu_ms: middle(gpu), gpu_ms_min: least(gpu) },
  };
}

/** A row's samples on its basis; undefined if they were not kept. As in `basisTime`, wall time stands in for GPU time. */
export function basisSamples({ basis, samples }: Pick<Row, "basis" | "samples">): readonly number[] | undefined {
  return basis === "gpu" && samples?.gpu.length === 0 ? samples.wall : samples?.[basis];
}

/** The standard deviation of some times over their mean; null for fewer than two. */
export function spreadOf(times: readonly number[]): number | null {
  if (times.length < 2) return null;
  const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
  const squares = times.reduce((sum, time) => sum + (time - mean) ** 2, 0);
  return Math.sqrt(squares / (times.length - 1)) / mean;
}

/** By the bytes that successive runs touch, and those of a buffer that fits into caches and of one that does not. */
export function cachesOf(footprint: number, memory: { readonly cached: number; readonly main: number }): Caches | null {
  if (footprint <= memory.cached) return "hot";
  return footprint >= memory.main ? "cold" : null;
}

/** Whether a row's result was wrong. */
export function isWrong({ check }: Pick<Row, "check">): boolean {
  return check !== null && !(check.share !== null && check.share <= 1);
}

/** Groups in the order of their first rows. */
export function groupedBy<R>(rows: readonly R[], key: (row: R) => string): Map<string, R[]> {
  const groups = new Map<string, R[]>();
  for (const row of rows) {
    const known = groups.get(key(row));
    if (known) known.push(row);
    else groups.set(key(row), [row]);
  }
  return groups;
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

/** The rows of `old`, replaced by those of `fresh`, then new ones. */
export function mergeRows(old: readonly Row[], fresh: readonly Row[]): Row[] {
  const key = (row: Row) => [row.adapter, row.cpu, row.kernel, row.variant, row.shape].join("|");
  const latest = new Map(fresh.map((row) => [key(row), row]));
  const known = new Set(old.map(key));
  return [...old.map((row) => latest.get(key(row)) ?? row), ...fresh.filter((row) => !known.has(key(row)))];
}
