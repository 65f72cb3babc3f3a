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
    const all = Array.from({ length: N }, (_, place) => {
      const score = scores[p * rows + Math.floor(place / V)]!;
      return { place, sum: Math.fround(x[p * N + place]! + score) };
    });
    const before = (a: number, b: number) => a > b || (Number.isNaN(a) && !Number.isNaN(b));
    all.sort((a, b) => (before(a.sum, b.sum) ? -1 : before(b.sum, a.sum) ? 1 : a.place - b.place));
    for (const [k, { place, sum }] of all.slice(0, K).entries()) {
      sums[p * K + k] = sum;
      places[p * K + k] = place;
    }
  }
  return { sums, places };
}
