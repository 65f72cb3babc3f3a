/**
 * The first index of the largest number of each row of V, NaN being larger than any, and then for each row whether that is
 * NaN or an infinity: u32[2, R].
 */
export function argmax(x: ArrayLike<number>, V: number): Uint32Array {
  const R = x.length / V;
  const y = new Uint32Array(2 * R);
  for (let row = 0; row < R; row++) {
    let best = 0;
    for (let i = 1; i < V; i++) {
      const [value, least] = [x[row * V + i]!, x[row * V + best]!];
      if (value > least || (Number.isNaN(value) && !Number.isNaN(least))) best = i;
    }
    y[row] = best;
    y[R + row] = Number(!Number.isFinite(x[row * V + best]));
  }
  return y;
}
