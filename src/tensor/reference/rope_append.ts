/**
 * Rotates queries by their positions, rotates keys likewise and appends keys and values to the caches in place. f64 loops.
 * qkv: [B, T, H + 2 Hkv, d], table [P, d]: cosines then sines of d/2 angles, caches [rows, Hkv, C, d].
 */
export function ropeAppend(
  qkv: ArrayLike<number>,
  table: ArrayLike<number>,
  positions: ArrayLike<number>,
  [keys, values]: readonly [Float64Array, Float64Array],
  past: number,
  { B, T, H, Hkv, C, d }: Record<"B" | "T" | "H" | "Hkv" | "C" | "d", number>,
): Float64Array {
  const q = new Float64Array(B * T * H * d);
  for (let token = 0; token < B * T; token++) {
    const [b, place] = [Math.floor(token / T), past + (token % T)];
    const angles = positions[token]! * d;
    for (let head = 0; head < H + 2 * Hkv; head++) {
      const x = Array.from({ length: d }, (_, i) => qkv[(token * (H + 2 * Hkv) + head) * d + i]!);
      const turned = x.map((value, i) => {
        const j = i % (d / 2);
        const [cos, sin] = [table[angles + j]!, table[angles + d / 2 + j]!];
        return i < d / 2 ? value * cos - x[i + d / 2]! * sin : value * cos + x[i - d / 2]! * sin;
      });
      if (head < H) q.set(turned, (token * H + head) * d);
      else if (place < C) {
        const isKey = head < H + Hkv;
        const stored = head - H - (isKey ? 0 : Hkv);
        (isKey ? keys : values).set(isKey ? turned : x, ((b * Hkv + stored) * C + place) * d);
      }
    }
  }
  return q;
}
