/**
 * The area under the ROC curve (AUC): the probability that a positive question scores above a negative one, ties counting
 * half.
 *
 * Sources: Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve"; DeLong, DeLong and Clarke-Pearson
 * 1988 for the standard error. The same numbers as scikit-learn's roc_auc_score.
 */

/** @returns null if a class has no question; the standard error is null if a class has only one */
export function areaUnderCurve(
  positive: readonly number[],
  negative: readonly number[],
): { score: number; error: number | null } | null {
  if (positive.length === 0 || negative.length === 0) return null;
  // For each question, the fraction of the other class on its right side.
  const above = shares(positive, negative);
  const below = shares(
    negative.map((score) => -score),
    positive.map((score) => -score),
  );
  const score = mean(above);
  if (above.length < 2 || below.length < 2) return { score, error: null };
  return { score, error: Math.sqrt(variance(above) / above.length + variance(below) / below.length) };
}

/** For each score, the fraction of `others` below it, ties counting half. */
function shares(scores: readonly number[], others: readonly number[]): number[] {
  const sorted = Float64Array.from(others).sort();
  return scores.map(
    (score) => (countBelow(sorted, score, false) + countBelow(sorted, score, true)) / 2 / sorted.length,
  );
}

/** Number of scores below `score`, or also equal to it. */
function countBelow(sorted: Float64Array, score: number, equal: boolean): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const other = sorted[middle]!;
    if (other < score || (equal && other === score)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function variance(values: readonly number[]): number {
  const middle = mean(values);
  return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1);
}
