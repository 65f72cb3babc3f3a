/**
 * The K largest of x + scores over the `rows` rows of V of each prompt, largest first, the lowest place first on ties: a
 * full sort. Sums are rounded to f32, which decides ties; NaN is larger than any number. Then -Infinity at 0xffffffff.
 */
export function topK(
  x: ArrayLike<number>,
  scores: ArrayLike<number>,
  V: number,
  rows: number,
  K: number,
): { sums: Float32Array; places: Uint32Array } {
  const N = rows * V;
  const P = x.length / N;
  const sums = new Float32Array(P * K).fill(Number.NEGATIVE_INFINITY);
  const places = new Uint32Array(P * K).fill(0xffffffff);
  for (let p = 0; p < P; p++) {
    const all = new Float32Array(N);
    for (let i = 0; i < N; i++) all[i] = x[p * N + i] + scores[p * rows + Math.floor(i / V)];
    const before = (i: number, j: number) => all[i] > all[j] || (Number.isNaN(all[i]) && !Number.isNaN(all[j]));
    const order = Array.from(all.keys()).sort((i, j) => (before(i, j) ? -1 : before(j, i) ? 1 : i - j));
    for (let k = 0; k < Math.min(K, N); k++) {
      sums[p * K + k] = all[order[k]];
      places[p * K + k] = order[k];
    }
  }
  return { sums, places };
}
