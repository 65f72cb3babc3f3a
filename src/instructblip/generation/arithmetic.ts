/**
 * Softmax, entropy and ranking over one row of scores on the host, in f32 where PyTorch rounds to f32. PyTorch's CPU softmax
 * rounds each exponential; its cumsum accumulates in f64 and rounds each partial sum.
 */

const f = Math.fround;

/** Largest score; -Infinity for none. */
export function maximum(scores: ArrayLike<number>): number {
  let best = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < scores.length; i++) if (scores[i]! > best) best = scores[i]!;
  return best;
}

/** Index of the largest score, the lowest on ties. */
export function argmaxOf(scores: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i]! > scores[best]!) best = i;
  return best;
}

/** Probabilities, f32[n]. NaN throughout when all scores are -Infinity, as in PyTorch. */
export function softmax(scores: ArrayLike<number>): Float32Array {
  const max = maximum(scores);
  const y = Float32Array.from({ length: scores.length }, (_, i) => Math.exp(f(scores[i]! - max)));
  let sum = 0;
  for (const value of y) sum += value;
  sum = f(sum);
  for (let i = 0; i < y.length; i++) y[i]! /= sum;
  return y;
}

/** Log probabilities in place, f32[n]. */
export function logSoftmaxInPlace(scores: Float32Array): void {
  const max = maximum(scores);
  let sum = 0;
  for (const score of scores) sum += f(Math.exp(f(score - max)));
  const log = f(Math.log(sum));
  for (let i = 0; i < scores.length; i++) scores[i] = f(scores[i]! - max) - log;
}

/** Running sums, added in f64, each rounded to f32. */
export function cumsum(values: Float32Array): Float32Array {
  let sum = 0;
  return values.map((value) => {
    sum += value;
    return sum;
  });
}

/** Indices of scores above -Infinity. */
export function finiteIndices(scores: Float32Array): number[] {
  const left: number[] = [];
  for (let i = 0; i < scores.length; i++) if (scores[i] !== Number.NEGATIVE_INFINITY) left.push(i);
  return left;
}

/** Indices of the `k` largest, in falling order, lowest index first on ties. NaN counts as smallest. */
export function topIndices(scores: ArrayLike<number>, k: number): number[] {
  const best: number[] = [];
  const score = (i: number) => {
    const s = scores[i]!;
    return Number.isNaN(s) ? Number.NEGATIVE_INFINITY : s;
  };
  for (let i = 0; i < scores.length; i++) {
    const s = score(i);
    if (best.length === k && !(s > score(best[k - 1]!))) continue;
    let low = 0;
    let high = best.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (score(best[middle]!) >= s) low = middle + 1;
      else high = middle;
    }
    best.splice(low, 0, i);
    if (best.length > k) best.pop();
  }
  return best;
}
