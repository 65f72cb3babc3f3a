/** Layer normalisation, plain loops in f64. x: [R, D] row after row. */
export function layerNorm(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  eps: number,
): Float64Array {
  const D = weight.length;
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += D) {
    let mean = 0;
    for (let i = 0; i < D; i++) mean += x[start + i] / D;
    let variance = 0;
    for (let i = 0; i < D; i++) variance += (x[start + i] - mean) ** 2 / D;
    for (let i = 0; i < D; i++)
      y[start + i] = ((x[start + i] - mean) / Math.sqrt(variance + eps)) * weight[i] + bias[i];
  }
  return y;
}
