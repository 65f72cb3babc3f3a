/** The elements of a strided view in row-major order. */
export function copy(
  x: ArrayLike<number>,
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
): number[] {
  if (shape.length === 0) return [x[offset]];
  const y: number[] = [];
  for (let i = 0; i < shape[0]; i++) {
    for (const value of copy(x, shape.slice(1), strides.slice(1), offset + i * strides[0])) y.push(value);
  }
  return y;
}
