/** x + by, each element, modulo 2^32. */
export function increment(x: ArrayLike<number>, by: number): Uint32Array {
  return Uint32Array.from(x, (value) => (value + by) % 2 ** 32);
}
