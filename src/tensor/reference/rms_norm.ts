/** Root mean square normalisation, plain loops in f64. x: [R, D] row after row. */
export function rmsNorm(x: ArrayLike<number>, weight: ArrayLike<number>, eps: number): Float64Array {
  const D = weight.length;
  const y = Float64Array.from(x);
  for (let start = 0; start < y.length; start += D) {
    const row = y.subarray(start, start + D);
    const meanSquare = row.reduce((sum, value) => sum + value ** 2 / D, 0);
    row.set(row.map((value, i) => (value / Math.sqrt(meanSquare + eps)) * weight[i]!));
  }
  return y;
}
