/** Patches of P by P of images [B, C, H, W], row after row, each ordered (c, y, x). */
export function unfold(
  pixels: ArrayLike<number>,
  [B, C, H, W]: readonly [number, number, number, number],
  P: number,
): number[] {
  const y: number[] = [];
  for (let b = 0; b < B; b++) {
    for (let top = 0; top + P <= H; top += P) {
      for (let left = 0; left + P <= W; left += P) {
        for (let c = 0; c < C; c++) {
          for (let dy = 0; dy < P; dy++) {
            for (let dx = 0; dx < P; dx++) y.push(pixels[((b * C + c) * H + top + dy) * W + left + dx]!);
          }
        }
      }
    }
  }
  return y;
}
