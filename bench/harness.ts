/**
 * Measures cases: the result is checked first, and a wrong one is not timed; then all cases of a kernel are timed in
 * interleaved rounds, so that other load on the machine affects them equally.
 *
 * A round repeats a case, without waiting in between, for the time in SETTINGS. Three clocks: wall time; CPU time of all
 * threads of the process, the reliable one on a software adapter; GPU timestamps around every launch if the adapter has
 * them, in a separate pass because they slow launches down.
 */

import { type Case, caseName } from "../src/tensor/cases/support/group.ts";
import type { Caps } from "../src/tensor/device/caps.ts";
import type { Device } from "../src/tensor/device/device.ts";
import { DeviceError } from "../src/tensor/errors.ts";
import type { Limits } from "../src/tensor/limits.ts";
import { atOnce, type Pace } from "./pace.ts";
import { type Basis, type CheckResult, type Machine, type Row, roofline, timesOf } from "./rows.ts";
import { HANDICAP, type Settings } from "./settings.ts";

/** Most launches with GPU timestamps in a round: timestamps take time. */
const TIMESTAMPED = 250;

/** The measured and derived fields of a row. */
export type Measured = Omit<Row, keyof Machine | "share" | "bound">;

/** A measured row with the fraction of the limits that was reached. */
export type Shared = Omit<Row, keyof Machine>;

interface Prepared {
  readonly item: Case;
  readonly check: CheckResult | null;
  readonly firstMs: number | null;
  readonly launches: number;
  /** Repetitions in a round; 0: not timed, for the reason in `note`. */
  readonly repetitions: number;
  readonly isSlowed?: boolean;
  readonly note?: string;
  readonly same_as?: string;
  readonly turns: Turn[];
}

interface Turn {
  readonly wall: number;
  readonly cpu: number;
  readonly gpu: number | null;
}

/**
 * Checks every case, times those that passed, and returns a row for each in order.
 *
 * @throws DeviceError an error that makes the device unusable; others, as of a kernel that does not compile, fail their row
 */
export async function measure(
  device: Device,
  cases: readonly Case[],
  { rounds, turnMs, slowMs, handicap }: Settings,
  pace: Pace = atOnce(),
): Promise<Measured[]> {
  const prepared: Prepared[] = [];
  /** Milliseconds per operation so far, by kernel and variant. */
  const speeds = new Map<string, number>();
  const twins = twinsOf(cases);
  for (const item of cases) {
    const same_as = twins.get(item);
    if (same_as !== undefined) {
      const note = `not timed: runs the kernels of ${same_as}`;
      prepared.push({ item, check: null, firstMs: null, launches: 0, repetitions: 0, note, same_as, turns: [] });
      continue;
    }
    const name = `${item.kernel} ${item.variant}`;
    const foreseen = item.flops * (speeds.get(name) ?? 0);
    if (!item.planned && foreseen > 2 * slowMs) {
      const note = `not run: about ${(foreseen / 1000).toFixed(1)} s`;
      prepared.push({ item, check: null, firstMs: null, launches: 0, repetitions: 0, note, turns: [] });
      continue;
    }
    pace.show(`checking ${caseName(item)}`);
    const before = device.counts.launches;
    const { check, firstMs } = await firstRun(item);
    const launches = device.counts.launches - before;
    const common = { item, check, firstMs, launches, turns: [] };
    if (check.share === null || check.share > 1) {
      prepared.push({ ...common, repetitions: 0, note: "not timed" });
      continue;
    }
    // The first run compiled; this one estimates the time.
    const { wall } = await time(device, item, 1);
    if (item.flops > 0) speeds.set(name, wall / item.flops);
    if (wall > slowMs && !item.planned) {
      prepared.push({ ...common, repetitions: 0, note: `not timed: ${(wall / 1000).toFixed(1)} s` });
    } else {
      const repetitions = await calibrate(device, item, wall, turnMs);
      const isSlowed = handicap?.test(caseName(item)) ?? false;
      // Tens of runs, of which a tenth is a whole number.
      prepared.push({ ...common, isSlowed, repetitions: isSlowed ? 10 * Math.ceil(repetitions / 10) : repetitions });
    }
  }
  const timed = prepared.filter(({ repetitions }) => repetitions > 0);
  const names = timed.map(({ item }) => caseName(item));
  await pace.begin(names, rounds);
  for (let round = 0; round < rounds; round++) {
    for (const [i, { item, repetitions, isSlowed, turns }] of timed.entries()) {
      await pace.turn(round, names[i]);
      const turn = await time(device, item, repetitions, isSlowed);
      // On a software adapter timestamps are wall-clock times: one round suffices.
      const timestamps = device.caps.timestamps && (!device.caps.isSoftware || round === 0);
      turns.push({ ...turn, gpu: timestamps ? await gpuTime(device, item, repetitions, isSlowed) : null });
    }
  }
  const basis = basisOf(device.caps);
  return prepared.map(({ item, check, firstMs, launches, note, same_as, repetitions, turns }) => {
    const { kernel, variant, planned, shape, flops, bytes, footprint } = item;
    const samples = {
      wall: turns.map((turn) => turn.wall),
      cpu: turns.map((turn) => turn.cpu),
      gpu: turns.flatMap((turn) => turn.gpu ?? []),
    };
    const times = timesOf(samples);
    const row = {
      kernel,
      variant,
      planned,
      shape,
      check,
      first_ms: firstMs,
      ...times,
      samples,
      rounds: turns.length,
      repetitions,
    };
    const ms = basisTime({ basis, ...times });
    const rates = { gflops: rate(flops, ms), gbs: rate(bytes, ms) };
    return {
      ...row,
      basis,
      launches,
      flops,
      bytes,
      footprint,
      ...rates,
      ...(same_as && { same_as }),
      ...(note && { note }),
    };
  });
}

/** Of the variants of a group that launch the same kernels all but the planned one, else the first; with that one's name. */
function twinsOf(cases: readonly Case[]): Map<Case, string> {
  const groups = new Map<string, Case[]>();
  for (const item of cases) {
    const key = `${item.kernel}|${item.shape}`;
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  const twins = new Map<Case, string>();
  for (const group of groups.values()) {
    if (group.length === 1) continue;
    const known = new Map<string, Case>();
    for (const item of [...group].sort((a, b) => Number(b.planned) - Number(a.planned))) {
      const kernels = kernelsOf(item);
      const twin = known.get(kernels);
      if (twin && kernels !== "") twins.set(item, twin.variant);
      else known.set(kernels, item);
    }
  }
  return twins;
}

/** "" also of a case that cannot be recorded: its check says why. */
function kernelsOf(item: Case): string {
  try {
    return item.kernels?.() ?? "";
  } catch {
    return "";
  }
}

/** Adds the fraction of the limits that was reached. */
export function withShare<R extends Measured>(row: R, limits: Limits): R & Pick<Row, "share" | "bound"> {
  const ms = basisTime(row);
  const best = roofline(row, limits);
  if (!ms || best.ms === 0) return { ...row, share: null, bound: null };
  return { ...row, share: best.ms / ms, bound: best.bound };
}

/** The time for rates: GPU time if available, but CPU time on a software adapter. */
export function basisOf(caps: Pick<Caps, "isSoftware" | "timestamps">): Basis {
  if (caps.isSoftware) return "cpu";
  return caps.timestamps ? "gpu" : "wall";
}

/** A row's median time on its basis, in milliseconds. */
export function basisTime(row: Pick<Row, "basis" | "ms" | "cpu_ms" | "gpu_ms">): number | null {
  return { wall: row.ms, cpu: row.cpu_ms, gpu: row.gpu_ms ?? row.ms }[row.basis];
}

/** The check of the first run, and its time. */
async function firstRun(item: Case): Promise<{ check: CheckResult; firstMs: number | null }> {
  let firstMs: number | null = null;
  const start = performance.now();
  try {
    const { share } = await item.check(() => {
      firstMs = performance.now() - start;
    });
    return { check: Number.isNaN(share) ? { share: null, note: "not a number" } : { share }, firstMs };
  } catch (error) {
    if (error instanceof DeviceError) throw error;
    return { check: { share: null, note: (error as Error).message }, firstMs };
  }
}

/** Wall and CPU milliseconds of one run, of `repetitions` recorded in sequence. */
async function time(
  device: Device,
  item: Case,
  repetitions: number,
  isSlowed = false,
): Promise<{ wall: number; cpu: number }> {
  const launched = launchesOf(repetitions, isSlowed);
  const cpu = process.cpuUsage();
  const start = performance.now();
  for (let i = 0; i < launched; i++) item.launch();
  await device.sync();
  const wall = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  return { wall: wall / repetitions, cpu: (user + system) / 1000 / repetitions };
}

/** Milliseconds of one run by GPU timestamps; null if it launches no kernel. */
async function gpuTime(device: Device, item: Case, repetitions: number, isSlowed = false): Promise<number | null> {
  const runs = Math.min(repetitions, TIMESTAMPED);
  const launched = launchesOf(runs, isSlowed);
  const { launches } = await device.profile(() => {
    for (let i = 0; i < launched; i++) item.launch();
  });
  return launches.length ? launches.reduce((sum, { ms }) => sum + ms, 0) / runs : null;
}

/** The runs that are launched where `repetitions` are counted. */
function launchesOf(repetitions: number, isSlowed = false): number {
  return Math.round(repetitions * (isSlowed ? 1 + HANDICAP : 1));
}

/** Number of repetitions that take `turnMs`; measuring it is also the warm-up. */
async function calibrate(device: Device, item: Case, onceMs: number, turnMs: number): Promise<number> {
  let repetitions = 1;
  const timed = async () => (await time(device, item, repetitions)).wall;
  // The less of two: one that something else slowed down would end this too early.
  let ms = Math.min(onceMs, await timed());
  while (ms * repetitions < turnMs) {
    const wanted = Math.ceil((1.1 * turnMs) / ms);
    if (wanted <= repetitions) break;
    // The share of the wait at the end falls with the number of repetitions, so the estimate is repeated.
    repetitions = Math.min(wanted, 10 * repetitions);
    ms = Math.min(await timed(), await timed());
  }
  return repetitions;
}

function rate(amount: number, ms: number | null): number | null {
  return amount && ms ? amount / ms / 1e6 : null;
}
