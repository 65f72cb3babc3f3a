/** Checks that work is linear in its size, on any machine under any load: by a ratio of processor times. */
import { expect } from "vitest";

/** Sizes are this far apart: linear work then takes 8 times as long, quadratic work 64 times. */
const FACTOR = 8;
/** Between the two. */
const MOST = 24;
const TRIES = 5;

/**
 * Expects `run(size)` to take at most 24 times the processor time of `run(size / 8)`, in the best of five tries: what else
 * the process does, collecting garbage say, only ever adds to a time.
 */
export async function expectLinear(run: (size: number) => unknown, size: number, label?: string): Promise<void> {
  const seconds = async (size: number) => {
    const start = process.cpuUsage();
    await run(size);
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1e6;
  };
  const best = { few: Number.POSITIVE_INFINITY, many: Number.POSITIVE_INFINITY };
  // Clocks of a process may tick in milliseconds: a time below some ticks says nothing.
  const ratio = () => best.many / Math.max(best.few, 0.002);
  for (let i = 0; i < TRIES && !(ratio() <= MOST); i++) {
    best.many = Math.min(best.many, await seconds(size)); // first, so that the code is compiled when the small one runs
    best.few = Math.min(best.few, await seconds(size / FACTOR));
  }
  expect(ratio(), `${label ?? ""} ${best.few} s, ${FACTOR} times the work ${best.many} s`).toBeLessThanOrEqual(MOST);
}
