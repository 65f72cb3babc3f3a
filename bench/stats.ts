/** Statistics of two samples: is there a difference, and how large is it. Pure; held against scipy in test/bench/stats.test.ts. */
import { median } from "./rows.ts";

/** Up to so many pairs the distribution of U is counted; beyond, it is normal to all digits that matter. */
const EXACT_PAIRS = 900;

/**
 * The two-sided p of the Mann-Whitney test: how often two samples of the same distribution differ as much. Exact without ties;
 * with ties, or many samples, by the normal distribution with tie and continuity corrections.
 */
export function mannWhitney(a: readonly number[], b: readonly number[]): number {
  const [n, m] = [a.length, b.length];
  if (n === 0 || m === 0) return 1;
  const { rankSum, ties } = ranks(a, b);
  const u = rankSum - (n * (n + 1)) / 2;
  const least = Math.min(u, n * m - u);
  if (ties === 0 && n * m <= EXACT_PAIRS) return Math.min(1, 2 * cumulative(n, m)[least]);
  const all = n + m;
  const sd = Math.sqrt(((n * m) / 12) * (all + 1 - ties / (all * (all - 1))));
  if (!(sd > 0)) return 1; // all are equal
  return Math.min(1, 2 * normalTail(((n * m) / 2 - least - 0.5) / sd));
}

/** The sum of a's ranks among both samples, and the sum of t³ - t over groups of t equal numbers. */
function ranks(a: readonly number[], b: readonly number[]): { rankSum: number; ties: number } {
  const all = [...a.map((value) => ({ value, own: 1 })), ...b.map((value) => ({ value, own: 0 }))];
  all.sort((x, y) => x.value - y.value);
  let [rankSum, ties] = [0, 0];
  for (let start = 0, end = 0; start < all.length; start = end) {
    while (end < all.length && all[end].value === all[start].value) end++;
    const t = end - start;
    ties += t ** 3 - t;
    for (let i = start; i < end; i++) rankSum += all[i].own * ((start + 1 + end) / 2);
  }
  return { rankSum, ties };
}

/** P(U <= u) for every u from 0 to n·m, of samples without a difference. */
function cumulative(n: number, m: number): Float64Array {
  // The counts are the coefficients of the product of (1 - q^(m+i)) / (1 - q^i) over i from 1 to n.
  const counts = new Float64Array(n * m + 1);
  counts[0] = 1;
  for (let i = 1; i <= n; i++) {
    for (let u = n * m; u >= m + i; u--) counts[u] -= counts[u - m - i];
    for (let u = i; u <= n * m; u++) counts[u] += counts[u - i];
  }
  for (let u = 1; u <= n * m; u++) counts[u] += counts[u - 1];
  return counts.map((count) => count / counts[n * m]);
}

/** The least p that samples of these sizes can have: when all of one are below all of the other. */
export function leastP(n: number, m: number): number {
  return n === 0 || m === 0 ? 1 : Math.min(1, 2 * cumulative(n, m)[0]);
}

export interface Ratio {
  /** b / a: the median of the ratios of all pairs (Hodges-Lehmann, of logarithms). */
  readonly ratio: number;
  /** Its interval of confidence 1 - alpha, which has 1 outside when the test's p is below alpha; null for too few samples. */
  readonly interval: readonly [number, number] | null;
}

/** How many times as large b's numbers are as a's; all are positive. */
export function ratioOf(a: readonly number[], b: readonly number[], alpha: number): Ratio {
  const logs = b.flatMap((y) => a.map((x) => Math.log(y / x))).sort((x, y) => x - y);
  const ratio = Math.exp(median(logs));
  // The interval ends at the first pair whose removal the test would not notice.
  const outside = lowerQuantile(a.length, b.length, alpha / 2);
  if (outside === 0) return { ratio, interval: null };
  return { ratio, interval: [Math.exp(logs[outside - 1]), Math.exp(logs[logs.length - outside])] };
}

/** The least u with P(U <= u) >= share: that of R's qwilcox; 0 if even P(U = 0) is more. */
function lowerQuantile(n: number, m: number, share: number): number {
  if (n * m <= EXACT_PAIRS) return cumulative(n, m).findIndex((p) => p >= share);
  const sd = Math.sqrt((n * m * (n + m + 1)) / 12);
  let z = 0;
  while (normalTail(z) > share) z += 1e-3;
  return Math.max(0, Math.floor((n * m) / 2 - z * sd));
}

/**
 * The two-sided p of Wilcoxon's signed-rank test: how often differences that are as often positive as negative are as much on one
 * side. Exact, also with ties; zeros are left out.
 */
export function signedRank(differences: readonly number[]): number {
  const all = differences.filter((difference) => difference !== 0);
  // Twice the ranks of the sizes: of equal ones the mean rank, which may end in a half.
  const ranks = all.map((one) => {
    const size = Math.abs(one);
    const [below, equal] = [all.filter((x) => Math.abs(x) < size), all.filter((x) => Math.abs(x) === size)];
    return 2 * below.length + equal.length + 1;
  });
  const sum = ranks.reduce((total, rank) => total + rank, 0);
  const positive = ranks.reduce((total, rank, i) => total + (all[i] > 0 ? rank : 0), 0);
  return Math.min(1, 2 * signedRanks(ranks)[Math.min(positive, sum - positive)]);
}

/** P(sum of the positive ranks <= s) for every s from 0 to the sum of all. */
function signedRanks(ranks: readonly number[]): Float64Array {
  const sum = ranks.reduce((total, rank) => total + rank, 0);
  const shares = new Float64Array(sum + 1);
  shares[0] = 1;
  for (const rank of ranks) for (let s = sum; s >= 0; s--) shares[s] = (shares[s] + (shares[s - rank] ?? 0)) / 2;
  for (let s = 1; s <= sum; s++) shares[s] += shares[s - 1];
  return shares;
}

/** The least p that so many differences can have: when all are on one side. */
export const leastSignedP = (n: number): number => Math.min(1, 2 ** (1 - n));

/** The ratio of pairs, from the logarithm of each one's: the median of the means of all two (Hodges-Lehmann). */
export function ratioOfPairs(logs: readonly number[], alpha: number): Ratio {
  const means = logs.flatMap((x, i) => logs.slice(i).map((y) => (x + y) / 2)).sort((x, y) => x - y);
  const ratio = Math.exp(median(means));
  const outside = signedRanks(logs.map((_, i) => i + 1)).findIndex((p) => p >= alpha / 2);
  if (outside === 0) return { ratio, interval: null };
  return { ratio, interval: [Math.exp(means[outside - 1]), Math.exp(means[means.length - outside])] };
}

/** The geometric mean. */
export function geometricMean(numbers: readonly number[]): number {
  return Math.exp(numbers.reduce((sum, number) => sum + Math.log(number), 0) / numbers.length);
}

/** The interval of confidence 95 % of a share of which `found` of `of` were seen (Wilson). */
export function wilson(found: number, of: number): readonly [number, number] {
  const z = 1.959964;
  const share = found / of;
  const middle = (share + z ** 2 / (2 * of)) / (1 + z ** 2 / of);
  const half = (z / (1 + z ** 2 / of)) * Math.sqrt((share * (1 - share)) / of + z ** 2 / (4 * of ** 2));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/** P(Z > z) of the normal distribution, to 1e-7 relative (Numerical Recipes' erfc). */
function normalTail(z: number): number {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.5 * x);
  const terms = [-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277]; // biome-ignore format: a table
  const erfc = t * Math.exp(-x * x + terms.reduceRight((sum, term) => term + t * sum, 0));
  return z >= 0 ? erfc / 2 : 1 - erfc / 2;
}
