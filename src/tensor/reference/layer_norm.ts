/** Layer normalisation, plain loops in f64. x: [R, D] row after row. */
export function layerNorm(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  eps: number,
): Float64Array {
  const D = weight.length;
  const y = Float64Array.from(x);
  for (let start = 0; start < y.length; start += D) {
    const row = y.subarray(start, start + D);
    const mean = row.reduce((sum, value) => sum + value / D, 0);
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2 / D, 0);
    row.set(row.map((value, i) => ((value - mean) / Math.sqrt(variance + eps)) * weight[i]! + bias[i]!));
  }
  return y;
}
