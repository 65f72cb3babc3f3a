/** Rows of x [R, D] by their numbers; zeros for a row of R or more. */
export function takeRows(x: ArrayLike<number>, rows: ArrayLike<number>, D: number): number[] {
  const y: number[] = [];
  for (let n = 0; n < rows.length; n++) {
    for (let i = 0; i < D; i++) y.push(x[rows[n]! * D + i] ?? 0);
  }
  return y;
}
