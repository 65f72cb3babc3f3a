/** y = x Wᵀ + bias, plain loops in f64. x: [M, K], weight: [N, K], both row after row. */
export function linear(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number> | undefined,
  [M, N, K]: readonly [number, number, number],
): Float64Array {
  const y = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = bias ? bias[n]! : 0;
      for (let k = 0; k < K; k++) sum += x[m * K + k]! * weight[n * K + k]!;
      y[m * N + n] = sum;
    }
  }
  return y;
}
