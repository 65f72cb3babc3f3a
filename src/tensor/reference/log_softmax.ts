/** Log probabilities of rows of V numbers, plain loops in f64. NaN where there is no largest finite number. */
export function logSoftmax(x: ArrayLike<number>, V: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += V) {
    let largest = x[start];
    for (let i = 0; i < V; i++) largest = Math.max(largest, x[start + i]);
    let sum = 0;
    for (let i = 0; i < V; i++) sum += Math.exp(x[start + i] - largest);
    for (let i = 0; i < V; i++) y[start + i] = x[start + i] - largest - Math.log(sum);
  }
  return y;
}
