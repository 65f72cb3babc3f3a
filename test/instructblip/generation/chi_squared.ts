/** Chi-squared test of draws against their probabilities. */
import { expect } from "vitest";

/** Σ(seen - expected)² / expected over cells of at least 5 expected; and its degrees of freedom. */
function chiSquared(seen: readonly number[], expected: readonly number[]): { statistic: number; freedom: number } {
  let statistic = 0;
  let cells = 0;
  const rest = { seen: 0, expected: 0 };
  const add = (s: number, e: number) => {
    statistic += (s - e) ** 2 / e;
    cells++;
  };
  seen.forEach((s, i) => {
    if (expected[i] >= 5) add(s, expected[i]);
    else {
      rest.seen += s;
      rest.expected += expected[i];
    }
  });
  if (rest.expected >= 5) add(rest.seen, rest.expected);
  return { statistic, freedom: cells - 1 };
}

/** The statistic is normal enough: mean k, variance 2k. 4 deviations is once in 30,000; the seed is fixed besides. */
export function expectFits(seen: readonly number[], expected: readonly number[]): void {
  const { statistic, freedom } = chiSquared(seen, expected);
  expect(statistic).toBeLessThan(freedom + 4 * Math.sqrt(2 * freedom) + 4);
}
