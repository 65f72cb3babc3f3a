/** Softmax of rows of S numbers, plain loops in f64. */
export function softmax(x: ArrayLike<number>, S: number): Float64Array {
  const y = Float64Array.from(x);
  for (let start = 0; start < y.length; start += S) {
    const row = y.subarray(start, start + S);
    const largest = row.reduce((a, b) => Math.max(a, b));
    const sum = row.reduce((total, score) => total + Math.exp(score - largest), 0);
    row.set(row.map((score) => Math.exp(score - largest) / sum));
  }
  return y;
}
