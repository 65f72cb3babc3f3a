/** Softmax of rows of S numbers, plain loops in f64. */
export function softmax(x: ArrayLike<number>, S: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += S) {
    let largest = x[start];
    for (let i = 0; i < S; i++) largest = Math.max(largest, x[start + i]);
    let sum = 0;
    for (let i = 0; i < S; i++) sum += Math.exp(x[start + i] - largest);
    for (let i = 0; i < S; i++) y[start + i] = Math.exp(x[start + i] - largest) / sum;
  }
  return y;
}
