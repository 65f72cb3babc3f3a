/** A grid of vectors x [h, w, D] resized to [H, W, D]: cubic through four points an axis, a = -0.75, edges repeated. */
export function bicubic(
  x: ArrayLike<number>,
  [h, w, D]: readonly [number, number, number],
  [H, W]: readonly [number, number],
): number[] {
  const y: number[] = [];
  for (let i = 0; i < H; i++) {
    const rows = points(i, h, H);
    for (let j = 0; j < W; j++) {
      const columns = points(j, w, W);
      for (let c = 0; c < D; c++) {
        let sum = 0;
        for (const [row, wy] of rows) {
          for (const [column, wx] of columns) sum += wy * wx * x[(row * w + column) * D + c]!;
        }
        y.push(sum);
      }
    }
  }
  return y;
}

/** The four points of n that the i-th of N is made of, each with its weight. */
function points(i: number, n: number, N: number): [point: number, weight: number][] {
  const middle = (i + 0.5) * (n / N) - 0.5;
  return [-1, 0, 1, 2].map((step) => {
    const point = Math.floor(middle) + step;
    return [Math.min(Math.max(point, 0), n - 1), cubic(Math.abs(middle - point))];
  });
}

/** Keys' kernel at a distance of at most 2. */
function cubic(d: number): number {
  const a = -0.75;
  return d <= 1 ? (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1 : a * (d ** 3 - 5 * d ** 2 + 8 * d - 4);
}
