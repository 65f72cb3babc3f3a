/**
 * Checks every runnable variant of every kernel against the f64 references, at small shapes that fill no tile and at real
 * ones.
 */
import { CASES } from "../../tensor/cases/support/all.ts";
import { type Group, makeCase, type Opened } from "../../tensor/cases/support/group.ts";
import { AWKWARD_SHAPES, MODEL_SHAPES } from "../../tensor/cases/support/shapes.ts";
import type { Device } from "../../tensor/device/device.ts";
import { EngineError } from "../../tensor/errors.ts";
import { fileOf } from "../../tensor/wgsl.ts";
import { type Check, firstLine, Tally, type Watch } from "./check.ts";

/**
 * Milliseconds of a run above which a variant that this adapter does not use is skipped, as at real shapes on a software
 * adapter.
 */
const SLOW_MS = 2000;
/** Codes of errors after which the device cannot be used. */
const FATAL = ["DEVICE_LOST", "DISPOSED", "GPU_TIMEOUT"];
/** Codes of errors by which a shape is too large for this adapter, which is not the kernel's fault. */
const TOO_LARGE = ["GPU_OOM", "BUDGET", "LIMIT"];

/** An op's groups: at small shapes that fill no tile, and at real ones. */
export interface OpGroups {
  readonly small: readonly Group[];
  readonly real: readonly Group[];
}

/** Of every op; with `quick` small shapes only. They keep references from one call of `checkKernels` to the next. */
export function groupsOfOps({ caps }: Device, quick: boolean): readonly OpGroups[] {
  return Object.values(CASES).map((groups) => ({
    small: groups(AWKWARD_SHAPES, caps),
    real: quick ? [] : groups(MODEL_SHAPES, caps),
  }));
}

/**
 * Checks op after op, and yields a check for each of its variants.
 *
 * @param used of variants that this adapter uses at one shape at least; false: of the others
 * @throws EngineError DEVICE_LOST, GPU_TIMEOUT after the check in which it occurred; the signal's reason
 */
export async function* checkKernels(
  device: Device,
  ops: readonly OpGroups[],
  used: boolean,
  { wanted = () => true, ...watch }: Watch = {},
): AsyncGenerator<Check> {
  for (const { small, real } of ops) {
    const tallies = new Map<string, Tally>();
    let fatal: unknown;
    const planned = new Set([...small, ...real].map(({ kernel, planned }) => nameOf(kernel, planned)));
    const options = { ...watch, wanted: (name: string) => wanted(name) && planned.has(name) === used };
    for (const group of small) fatal ??= await checkGroup(device, group, tallies, undefined, options);
    /** Milliseconds per operation, by variant, so far: at small shapes mostly compilation. */
    const pace = new Map<string, number>();
    for (const group of real) fatal ??= await checkGroup(device, group, tallies, pace, options);
    for (const tally of tallies.values()) yield tally.check();
    if (fatal) throw fatal;
  }
}

const nameOf = (kernel: string, variant: string) => (variant === "-" ? kernel : `${kernel} ${variant}`);

/** Checks all variants at one shape. @returns an error that makes the device unusable, if any */
async function checkGroup(
  device: Device,
  group: Group,
  tallies: Map<string, Tally>,
  pace: Map<string, number> | undefined,
  { signal, progress, wanted = () => true }: Watch,
): Promise<unknown> {
  const { kernel, shape } = group;
  const variants = group.variants.filter((variant) => wanted(nameOf(kernel, variant)));
  if (variants.length === 0) return undefined;
  let opened: Opened | undefined;
  let fatal: unknown;
  const tallyOf = (variant: string) => {
    const name = nameOf(kernel, variant);
    if (!tallies.has(name)) tallies.set(name, new Tally(name));
    return tallies.get(name)!;
  };
  try {
    await device.scope(async () => {
      for (const variant of variants) {
        signal?.throwIfAborted();
        const tally = tallyOf(variant);
        const isUsed = variant === group.planned;
        if (isUsed) tally.used();
        progress?.(`${nameOf(kernel, variant)}, ${shape}`);
        const start = performance.now();
        try {
          opened ??= await group.open(device);
          const foreseen = opened.flops * (pace?.get(variant) ?? 0);
          if (!isUsed && foreseen > SLOW_MS) {
            tally.skipped(shape, `not used here, and would take ${(foreseen / 1000).toFixed(0)} s`);
            continue;
          }
          const item = makeCase(device, group, opened, variant);
          let ranMs = 0;
          const ran = () => {
            ranMs = performance.now() - start;
          };
          const { share } = await device.exclusive(() => item.check(ran), { signal });
          if (item.flops > 0) pace?.set(variant, ranMs / item.flops);
          if (share <= 1) tally.right(share);
          else {
            const why = Number.isNaN(share) ? "not a number" : `${share.toPrecision(2)} times the tolerance`;
            tally.wrong({ what: shape, why, kernels: namesOfKernels(device, opened, variant) });
          }
        } catch (error) {
          if (signal?.aborted) throw signal.reason;
          const code = error instanceof EngineError ? error.code : "";
          const why = firstLine((error as Error).message);
          if (TOO_LARGE.includes(code)) tally.skipped(shape, why);
          else tally.wrong({ what: shape, why, kernels: opened ? namesOfKernels(device, opened, variant) : [] });
          if (FATAL.includes(code)) {
            fatal = error;
            return;
          }
        } finally {
          tally.took(performance.now() - start);
        }
      }
    });
  } catch (error) {
    if (signal?.aborted || !(error instanceof EngineError) || !FATAL.includes(error.code)) throw error;
    fatal = error;
  } finally {
    opened?.dispose?.();
    if (!fatal) device.memory.trim();
  }
  return fatal;
}

/** The kernels that a run launches, each with its parts; empty if the device is lost. */
function namesOfKernels(device: Device, opened: Opened, variant: string): string[] {
  try {
    return device
      .dryRun(() => opened.run(variant))
      .map(({ kernel, uses }) => {
        const parts = Object.values(uses ?? {});
        return parts.length ? `${fileOf(kernel)} (${parts.join(", ")})` : fileOf(kernel);
      });
  } catch {
    return [];
  }
}
