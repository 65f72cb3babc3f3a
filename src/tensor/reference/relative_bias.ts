/** table[distance of key s behind query past + t, clamped][h] at [h, t, s]; table: [2P - 1, H]. */
export function relativeBias(
  table: ArrayLike<number>,
  { P, H, T, S, past }: { P: number; H: number; T: number; S: number; past: number },
): Float64Array {
  const y = new Float64Array(H * T * S);
  for (let h = 0; h < H; h++) {
    for (let t = 0; t < T; t++) {
      for (let s = 0; s < S; s++) {
        const distance = Math.max(-(P - 1), Math.min(P - 1, s - (past + t)));
        y[(h * T + t) * S + s] = table[(distance + P - 1) * H + h]!;
      }
    }
  }
  return y;
}
