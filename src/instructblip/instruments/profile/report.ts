/** A profile by module and by kernel: launches, time, bytes, rates, and the share of the adapter's limits. */
import { type Bound, type Limits, roofline } from "../../../tensor/limits.ts";
import type { LaunchTime, ProfileClock } from "../../../tensor/tensor.ts";
import type { ModelProfile } from "./profile.ts";

/** The sums of some launches. */
export interface ProfileSums {
  readonly launches: number;
  readonly ms: number;
  /** Part of the time of all launches of the phase. */
  readonly share: number;
  readonly flops: number;
  readonly bytes: number;
  readonly gflops: number | null;
  readonly gbs: number | null;
  /** The least time by the limits of the adapter. */
  readonly limit_ms: number;
  /** `limit_ms` over `ms`; null without time. */
  readonly of_limit: number | null;
  /** The limit that most of `limit_ms` is of. */
  readonly bound: Bound;
}

/** One kernel in one module. */
export interface ProfileRow extends ProfileSums {
  /** The module's path; "" outside of modules: image features into the prompt, and the choice of tokens. */
  readonly module: string;
  readonly kernel: string;
}

/** A load, or a generation. */
export interface PhaseReport extends ProfileSums {
  readonly name: string;
  /** On the host's clock, from beginning to end. */
  readonly total_ms: number;
  readonly uploads: { readonly count: number; readonly bytes: number; readonly ms: number };
  /** The most bytes of buffers in use and kept for reuse. */
  readonly memory_bytes: number;
  readonly modules: readonly (ProfileSums & { readonly module: string })[];
  readonly kernels: readonly (ProfileSums & { readonly kernel: string })[];
  readonly rows: readonly ProfileRow[];
}

export interface ProfileReport {
  readonly adapter: string;
  readonly clock: ProfileClock;
  readonly step_ms: number;
  readonly limits: Limits;
  readonly phases: readonly PhaseReport[];
}

/** Adds a profile up. */
export function profileReport(
  adapter: string,
  phases: readonly { readonly name: string; readonly profile: ModelProfile }[],
  limits: Limits,
): ProfileReport {
  const { clock } = phases[0]!.profile;
  const steps = phases.filter(({ profile }) => profile.launches.length > 0).map(({ profile }) => profile.step);
  return {
    ...{ adapter, clock, step_ms: steps.length > 0 ? Math.min(...steps) : 0, limits },
    phases: phases.map(({ name, profile }) => phaseReport(name, profile, limits)),
  };
}

function phaseReport(name: string, profile: ModelProfile, limits: Limits): PhaseReport {
  const { launches, uploads } = profile;
  const used = profile.memory.map(({ live, pooled }) => live + pooled);
  const memory_bytes = used.reduce((most, bytes) => Math.max(most, bytes), 0);
  const total = launches.reduce((sum, { ms }) => sum + ms, 0);
  const sums = (of: readonly LaunchTime[]) => sumsOf(of, total, limits, memory_bytes <= limits.cached_bytes);
  const grouped = (key: (launch: LaunchTime) => string) =>
    [...groupBy(launches, key).values()]
      .map((of) => ({ of, ...sums(of) }))
      .sort((a, b) => b.ms - a.ms)
      .map(({ of, ...sums }) => ({ first: of[0]!, sums }));
  return {
    name,
    total_ms: profile.ms,
    ...sums(launches),
    uploads: {
      count: uploads.length,
      bytes: uploads.reduce((sum, { bytes }) => sum + bytes, 0),
      ms: uploads.reduce((sum, { ms }) => sum + ms, 0),
    },
    memory_bytes,
    modules: grouped(({ site }) => site).map(({ first, sums }) => ({ module: first.site, ...sums })),
    kernels: grouped(({ kernel }) => kernel).map(({ first, sums }) => ({ kernel: first.kernel, ...sums })),
    rows: grouped(({ site, kernel }) => `${site} ${kernel}`).map(({ first, sums }) => ({
      ...{ module: first.site, kernel: first.kernel },
      ...sums,
    })),
  };
}

/** Layers of a stack together: `encoder.layers.3.mlp` -> `encoder.layers.*.mlp`. */
export function layersTogether(rows: PhaseReport["modules"]): readonly (ProfileSums & { readonly module: string })[] {
  const groups = groupBy(rows, ({ module }) => module.replace(/(?<=^|\.)\d+(?=\.|$)/g, "*"));
  return [...groups].map(([module, of]) => ({ module, ...added(of) })).sort((a, b) => b.ms - a.ms);
}

/** The sums of a group of sums. */
export function added(of: readonly ProfileSums[]): ProfileSums {
  const sum = (name: "launches" | "ms" | "share" | "flops" | "bytes" | "limit_ms") =>
    of.reduce((total, one) => total + one[name], 0);
  const [launches, ms, share, flops, bytes, limit_ms] = [
    ...[sum("launches"), sum("ms"), sum("share")],
    ...[sum("flops"), sum("bytes"), sum("limit_ms")],
  ] as [number, number, number, number, number, number];
  const bounds = of.map((one) => [one.bound, one.limit_ms] as const);
  return { launches, ms, share, flops, bytes, ...rates(flops, bytes, ms), limit_ms, ...ofLimit(limit_ms, ms, bounds) };
}

/** @param fits whether all memory in use fits into caches, so that weights are found there as well */
function sumsOf(launches: readonly LaunchTime[], total: number, limits: Limits, fits: boolean): ProfileSums {
  let [ms, flops, bytes, limit_ms] = [0, 0, 0, 0];
  const bounds: [Bound, number][] = [];
  for (const one of launches) {
    ms += one.ms;
    flops += one.flops;
    bytes += one.bytes;
    const near = one.bytes - one.persistent;
    const cached = fits ? one.bytes : near <= limits.cached_bytes ? near : 0;
    const best = roofline({ launches: 1, flops: one.flops, bytes: one.bytes, cached }, limits);
    limit_ms += best.ms;
    bounds.push([best.bound, best.ms]);
  }
  const [share, count] = [total > 0 ? ms / total : 0, launches.length];
  const rest = { ...rates(flops, bytes, ms), limit_ms, ...ofLimit(limit_ms, ms, bounds) };
  return { launches: count, ms, share, flops, bytes, ...rest };
}

function rates(flops: number, bytes: number, ms: number): Pick<ProfileSums, "gflops" | "gbs"> {
  const rate = (amount: number) => (amount > 0 && ms > 0 ? amount / ms / 1e6 : null);
  return { gflops: rate(flops), gbs: rate(bytes) };
}

function ofLimit(
  limit_ms: number,
  ms: number,
  bounds: readonly (readonly [Bound, number])[],
): Pick<ProfileSums, "of_limit" | "bound"> {
  const sums = new Map<Bound, number>();
  for (const [bound, ms] of bounds) sums.set(bound, (sums.get(bound) ?? 0) + ms);
  const [bound] = [...sums].reduce((most, one) => (one[1] > most[1] ? one : most), ["launch", 0]);
  return { of_limit: ms > 0 ? limit_ms / ms : null, bound };
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const name = key(item);
    const group = groups.get(name);
    if (group) group.push(item);
    else groups.set(name, [item]);
  }
  return groups;
}
