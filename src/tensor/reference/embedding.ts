/** Rows of a table [V, D] by their numbers; zeros for a number of V or more. */
export function embedding(ids: ArrayLike<number>, table: ArrayLike<number>, D: number): Float64Array {
  const y = new Float64Array(ids.length * D);
  for (let t = 0; t < ids.length; t++) {
    for (let i = 0; i < D; i++) y[t * D + i] = table[ids[t]! * D + i] ?? 0;
  }
  return y;
}
