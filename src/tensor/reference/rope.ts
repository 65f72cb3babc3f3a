/**
 * Rotary position embedding in f64, written as the rotation of a complex number. x: [B·T, H, d], one position a token,
 * table [P, d]: cosines then sines of d/2 angles.
 */
export function rope(
  x: ArrayLike<number>,
  table: ArrayLike<number>,
  positions: ArrayLike<number>,
  H: number,
  d: number,
): Float64Array {
  const y = new Float64Array(x.length);
  for (let token = 0; token < positions.length; token++) {
    const angles = positions[token]! * d;
    for (let h = 0; h < H; h++) {
      for (let j = 0; j < d / 2; j++) {
        const at = (token * H + h) * d + j;
        const [re, im] = [x[at]!, x[at + d / 2]!];
        const [cos, sin] = [table[angles + j]!, table[angles + d / 2 + j]!];
        y[at] = re * cos - im * sin;
        y[at + d / 2] = re * sin + im * cos;
      }
    }
  }
  return y;
}
