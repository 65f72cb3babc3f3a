/** Penalises, then bans ids of rows of V scores, plain loops in f64: `penalised` and `banned` have a list for each row. */
export function editScores(
  scores: ArrayLike<number>,
  V: number,
  penalty: number,
  penalised: readonly (readonly number[])[],
  banned: readonly (readonly number[])[],
): Float64Array {
  const y = Float64Array.from(scores);
  for (const [row, ids] of penalised.entries()) {
    for (const id of ids) {
      const score = y[row * V + id]!;
      y[row * V + id] = score < 0 ? score * penalty : score / penalty;
    }
  }
  for (const [row, ids] of banned.entries()) {
    for (const id of ids) y[row * V + id] = Number.NEGATIVE_INFINITY;
  }
  return y;
}
