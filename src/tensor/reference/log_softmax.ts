/** Log probabilities of rows of V numbers, plain loops in f64. NaN where there is no largest finite number. */
export function logSoftmax(x: ArrayLike<number>, V: number): Float64Array {
  const y = Float64Array.from(x);
  for (let start = 0; start < y.length; start += V) {
    const row = y.subarray(start, start + V);
    const largest = row.reduce((a, b) => Math.max(a, b));
    const sum = row.reduce((total, score) => total + Math.exp(score - largest), 0);
    row.set(row.map((score) => score - largest - Math.log(sum)));
  }
  return y;
}
