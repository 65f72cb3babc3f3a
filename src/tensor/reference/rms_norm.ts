/** Root mean square normalisation, plain loops in f64. x: [R, D] row after row. */
export function rmsNorm(x: ArrayLike<number>, weight: ArrayLike<number>, eps: number): Float64Array {
  const D = weight.length;
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += D) {
    let meanSquare = 0;
    for (let i = 0; i < D; i++) meanSquare += x[start + i] ** 2 / D;
    for (let i = 0; i < D; i++) y[start + i] = (x[start + i] / Math.sqrt(meanSquare + eps)) * weight[i];
  }
  return y;
}
