/** a + b in f64; b begins anew wherever it ends. */
export function add(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  return Float64Array.from(a, (value, i) => value + b[i % b.length]!);
}
