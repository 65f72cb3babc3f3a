/** The comparison of the kernels' cases, as an expectation. Prints the share of the tolerance used when TOLERANCE_REPORT=1. */
import { type Comparison, compare } from "../src/tensor/cases/support/compare.ts";
import type { Tolerance } from "./tolerances.ts";

export { type Comparison, compare };

/** Throws, with the worst element, unless `actual` is within `tolerance` of `expected`. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance,
  label = "",
): Comparison {
  const result = compare(actual, expected, tolerance, label);
  if (process.env.TOLERANCE_REPORT) {
    console.log(
      `${label}: ${(100 * result.share).toFixed(1)} % of the tolerance, max |Δ| ${result.maxAbs.toExponential(1)}`,
    );
  }
  if (!(result.share <= 1)) {
    const { worstIndex: i, maxAbs, nmse, share } = result;
    throw new Error(
      `${label}: ${(100 * share).toFixed(0)} % of the tolerance; element ${i} is ${actual[i]}, expected ${expected[i]}; ` +
        `max |Δ| ${maxAbs.toExponential(2)}, NMSE ${nmse.toExponential(2)}`,
    );
  }
  return result;
}
