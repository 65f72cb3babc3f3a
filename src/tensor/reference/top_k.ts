/**
 * The K largest of x + scores over the `rows` rows of V of each prompt, largest first, the lowest place first on ties: a
 * full sort. Sums are rounded to f32, which decides ties; NaN counts as -Infinity. Then -Infinity at 0xffffffff.
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
    const rank = (i: number) => (Number.isNaN(all[i]) ? Number.NEGATIVE_INFINITY : all[i]);
    const order = Array.from(all.keys()).sort((i, j) => (rank(i) === rank(j) ? i - j : rank(j) > rank(i) ? 1 : -1));
    for (let k = 0; k < Math.min(K, N); k++) {
      sums[p * K + k] = all[order[k]];
      places[p * K + k] = order[k];
    }
  }
  return { sums, places };
}
