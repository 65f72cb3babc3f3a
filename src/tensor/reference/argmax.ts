/** The first index of the largest number of each row of V; NaN never wins, a row of nothing else gives 0. */
export function argmax(x: ArrayLike<number>, V: number): Uint32Array {
  const y = new Uint32Array(x.length / V);
  for (let row = 0; row < y.length; row++) {
    let best = Number.NaN;
    for (let i = 0; i < V; i++) {
      const value = x[row * V + i];
      if (value > best || (Number.isNaN(best) && !Number.isNaN(value))) {
        best = value;
        y[row] = i;
      }
    }
  }
  return y;
}
