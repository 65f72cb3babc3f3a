/** Negative log probability of the label of each row of V numbers, plain loops in f64; 0 where the label is -100. */
export function crossEntropy(x: ArrayLike<number>, labels: ArrayLike<number>, V: number): Float64Array {
  const logits = Float64Array.from(x);
  return Float64Array.from(labels, (label, r) => {
    if (label >> 0 === -100) return 0;
    const row = logits.subarray(r * V, (r + 1) * V);
    const largest = row.reduce((a, b) => Math.max(a, b));
    const sum = row.reduce((total, logit) => total + Math.exp(logit - largest), 0);
    return largest - (row[label] ?? Number.NaN) + Math.log(sum);
  });
}
