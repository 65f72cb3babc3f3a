/** The elements of a strided view in row-major order. */
export function copy(
  x: ArrayLike<number>,
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
): number[] {
  const [n, ...sizes] = shape;
  const [stride, ...steps] = strides;
  if (n === undefined || stride === undefined) return [x[offset]!];
  const y: number[] = [];
  for (let i = 0; i < n; i++) {
    for (const value of copy(x, sizes, steps, offset + i * stride)) y.push(value);
  }
  return y;
}
