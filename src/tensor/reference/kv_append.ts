/** cache[b, h, past + t] = x[b, t, h] in place; positions from C on are dropped. x: [B, T, Hkv, d], cache: [B, Hkv, C, d]. */
export function kvAppend(
  x: ArrayLike<number>,
  cache: Float32Array,
  past: number,
  [B, T, Hkv, C, d]: readonly [number, number, number, number, number],
): void {
  for (let b = 0; b < B; b++) {
    for (let t = 0; t < Math.min(T, C - past); t++) {
      for (let h = 0; h < Hkv; h++) {
        for (let i = 0; i < d; i++) cache[((b * Hkv + h) * C + past + t) * d + i] = x[((b * T + t) * Hkv + h) * d + i]!;
      }
    }
  }
}
