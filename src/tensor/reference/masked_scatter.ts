/** Rows of x [R, D], those with source > 0 replaced by row source - 1 of features [n, D] if there is one. */
export function maskedScatter(
  x: ArrayLike<number>,
  features: ArrayLike<number>,
  source: ArrayLike<number>,
  D: number,
): number[] {
  const y: number[] = [];
  for (let l = 0; l < source.length; l++) {
    const from = source[l]!;
    const replaced = from > 0 && from * D <= features.length;
    for (let i = 0; i < D; i++) y.push(replaced ? features[(from - 1) * D + i]! : x[l * D + i]!);
  }
  return y;
}
