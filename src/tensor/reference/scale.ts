/** factor · x, each element. */
export function scale(x: ArrayLike<number>, factor: number): Float64Array {
  return Float64Array.from(x, (value) => factor * value);
}
