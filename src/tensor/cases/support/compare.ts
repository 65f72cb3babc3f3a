/**
 * The one comparison of numbers: every element against a bound, the whole against an NMSE, and no NaN or infinity where a
 * finite number is expected.
 */
import type { Tolerance } from "./tolerances.ts";

export interface Comparison {
  /** Largest |a - e|. */
  readonly maxAbs: number;
  /** Σ(a-e)² / Σe². */
  readonly nmse: number;
  /** The largest share of a bound that was used; above 1 it failed. */
  readonly share: number;
  readonly worstIndex: number;
}

export function compare(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance,
  label = "",
): Comparison {
  if (actual.length !== expected.length) {
    throw new Error(`${label}: ${actual.length} numbers where ${expected.length} are expected`);
  }
  const bounded = tolerance.abs !== undefined || tolerance.rel !== undefined;
  let maxAbs = 0;
  let share = 0;
  let worstIndex = 0;
  let error = 0;
  let power = 0;
  for (let i = 0; i < actual.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!];
    if (a === e) {
      power += e * e;
      continue;
    }
    const distance = Math.abs(a - e);
    if (!Number.isFinite(distance)) throw new Error(`${label}: element ${i} is ${a}, expected ${e}`);
    error += distance * distance;
    power += e * e;
    const used = bounded ? distance / ((tolerance.abs ?? 0) + (tolerance.rel ?? 0) * Math.abs(e)) : 0;
    if (distance > maxAbs) {
      maxAbs = distance;
      if (!bounded) worstIndex = i;
    }
    if (used > share) {
      share = used;
      worstIndex = i;
    }
  }
  const nmse = error === 0 ? 0 : error / power;
  if (tolerance.nmse !== undefined) share = Math.max(share, nmse / tolerance.nmse);
  return { maxAbs, nmse, share, worstIndex };
}
