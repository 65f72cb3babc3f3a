/** Negative log probability of the label of each row of V numbers, plain loops in f64; 0 where the label is -100. */
export function crossEntropy(x: ArrayLike<number>, labels: ArrayLike<number>, V: number): Float64Array {
  return Float64Array.from(labels, (label, row) => {
    if (label >> 0 === -100) return 0;
    let largest = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < V; i++) largest = Math.max(largest, x[row * V + i]);
    let sum = 0;
    for (let i = 0; i < V; i++) sum += Math.exp(x[row * V + i] - largest);
    return largest - x[row * V + label] + Math.log(sum);
  });
}
