/** The results of a comparison: rows, ratios to the best peer, means, and the project's targets. Pure. */
import { type Basis, type CheckResult, type Machine, median } from "../rows.ts";
import { ENGINE_NAMES, ENGINES, type EngineName } from "./engine.ts";
import type { Kind } from "./jobs.ts";

/** The row of one engine and job. Times in milliseconds for one run; null: not measured, for the reason in `note`. */
export interface PeerRow extends Machine {
  readonly engine: EngineName;
  /** Of the engine; ours is the commit. */
  readonly version: string;
  /** The engine's adapter, reported or detected. */
  readonly engine_adapter: string;
  readonly job: string;
  readonly kind: Kind;
  /** How the weight is stored, where there is one. */
  readonly weight?: string;
  /** The fastest way of the engine's interface. */
  readonly way: string;
  readonly check: CheckResult | null;
  /** The first run, fetching the result included, and compiling where no earlier run has left that in a cache. */
  readonly first_ms: number | null;
  readonly ms: number | null;
  readonly ms_min: number | null;
  readonly cpu_ms: number | null;
  readonly cpu_ms_min: number | null;
  /** Ours only. */
  readonly gpu_ms: number | null;
  /** The times of every round in order. Absent in files from before they were kept. */
  readonly samples?: Readonly<Record<"wall" | "cpu", readonly number[]>>;
  readonly rounds: number;
  readonly repetitions: number;
  readonly flops: number;
  readonly bytes: number;
  readonly note?: string;
}

export function parsePeerRows(text: string): PeerRow[] {
  return text.split("\n").flatMap((line, i) => {
    if (!line.trim()) return [];
    try {
      const row = JSON.parse(line) as PeerRow;
      if (typeof row.job !== "string" || !ENGINE_NAMES.includes(row.engine))
        throw new Error("not a row of bench:peers");
      return [row];
    } catch (cause) {
      throw new Error(`line ${i + 1}: ${(cause as Error).message}`, { cause });
    }
  });
}

/** The rows of `old` that `fresh` does not replace, then those of `fresh`. */
export function mergePeerRows(old: readonly PeerRow[], fresh: readonly PeerRow[]): PeerRow[] {
  const key = (row: PeerRow) => [row.adapter, row.cpu, row.job, row.engine].join("|");
  const latest = new Map(fresh.map((row) => [key(row), row]));
  const known = new Set(old.map(key));
  return [...old.map((row) => latest.get(key(row)) ?? row), ...fresh.filter((row) => !known.has(key(row)))];
}

/** On a software adapter CPU time, as the clock shows what else runs on the machine; elsewhere wall time. */
export function basisOf({ software }: Pick<Machine, "software">): Exclude<Basis, "gpu"> {
  return software ? "cpu" : "wall";
}

/** The targets: least ratio, and what it is relative to. */
export interface Bar {
  readonly least: number;
  readonly against: "peers" | "onnxruntime" | "own f32";
}

const BARS: Readonly<Record<Kind, Bar>> = {
  gemm: { least: 1.5, against: "peers" },
  gemv: { least: 1.5, against: "peers" },
  layer_norm: { least: 1.5, against: "peers" },
  rms_norm: { least: 1.5, against: "peers" },
  softmax: { least: 1.5, against: "peers" },
  gelu: { least: 1.5, against: "peers" },
  attention: { least: 1.2, against: "onnxruntime" },
};
export const KINDS = Object.keys(BARS) as Kind[];
/** Narrow weights save memory; int8 must be faster, too. */
const NARROW_BARS: Readonly<Record<string, number>> = { int8: 1.3 };
/** Of the geometric mean over all GEMM shapes. */
export const GEMM_MEAN_BAR = 2;

/** One job: the times of engines, and our target. */
export interface Comparison {
  readonly job: string;
  readonly kind: Kind;
  readonly rows: ReadonlyMap<EngineName, PeerRow>;
  /** The rival: the best peer on the basis, or our own f32. */
  readonly rival?: PeerRow;
  /** The rival's time divided by ours. */
  readonly wall: number | null;
  readonly cpu: number | null;
  readonly bar: number | null;
  /** On the basis; null without a target or rival. */
  readonly met: boolean | null;
}

/** All jobs of one machine's rows, in order. */
export function compareRows(rows: readonly PeerRow[]): Comparison[] {
  const jobs = new Map<string, PeerRow[]>();
  for (const row of rows) jobs.set(row.job, [...(jobs.get(row.job) ?? []), row]);
  return [...jobs].map(([job, group]) => {
    const byEngine = new Map(group.map((row) => [row.engine, row]));
    const { kind, weight = "f32" } = group[0];
    const ours = byEngine.get("ours");
    const narrow = weight !== "f32";
    const bar = narrow ? (NARROW_BARS[weight] ?? null) : BARS[kind].least;
    const rivals = narrow
      ? (jobs.get(job.replace(/ \w+$/, " f32")) ?? []).filter(({ engine }) => engine === "ours")
      : group.filter(({ engine }) =>
          BARS[kind].against === "onnxruntime" ? engine === "onnxruntime" : engine !== "ours" && ENGINES[engine].webgpu,
        );
    const time = (row: PeerRow) => (basisOf(row) === "cpu" ? row.cpu_ms : row.ms);
    const timed = rivals.filter((row) => time(row) !== null).sort((a, b) => time(a)! - time(b)!);
    const rival = timed.at(0);
    const ratio = (of: "ms" | "cpu_ms") => (rival && ours?.[of] ? rival[of]! / ours[of] : null);
    const [wall, cpu] = [ratio("ms"), ratio("cpu_ms")];
    const judged = basisOf(group[0]) === "cpu" ? cpu : wall;
    const met = bar === null || judged === null ? null : judged >= bar;
    return { job, kind, rows: byEngine, ...(rival && { rival }), wall, cpu, bar, met };
  });
}

export function geometricMean(numbers: readonly number[]): number | null {
  if (numbers.length === 0) return null;
  return Math.exp(numbers.reduce((sum, number) => sum + Math.log(number), 0) / numbers.length);
}

/** The geometric means of the ratios of one kind. */
export function meanOf(comparisons: readonly Comparison[], kind: Kind): { wall: number | null; cpu: number | null } {
  const of = (which: "wall" | "cpu") =>
    geometricMean(
      comparisons.filter((each) => each.kind === kind && each.rows.size > 1).flatMap((each) => each[which] ?? []),
    );
  return { wall: of("wall"), cpu: of("cpu") };
}

/** The times of some rounds, as a row has them. */
export function timesOf(rounds: readonly { readonly wall: number; readonly cpu: number }[]) {
  const [wall, cpu] = [rounds.map((round) => round.wall), rounds.map((round) => round.cpu)];
  const over = (numbers: readonly number[], f: (numbers: readonly number[]) => number) =>
    numbers.length ? f(numbers) : null;
  const least = (numbers: readonly number[]) => Math.min(...numbers);
  return {
    ...{ ms: over(wall, median), ms_min: over(wall, least), cpu_ms: over(cpu, median), cpu_ms_min: over(cpu, least) },
    samples: { wall, cpu },
  };
}
