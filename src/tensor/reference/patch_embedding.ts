/**
 * Tokens of images [B, C, H, W], plain loops in f64: the class token, then x Wᵀ + bias of every patch of P by P, row after
 * row; to all of them their positions are added. weight: [D, C·P·P], positions: [N + 1, D].
 */
export function patchEmbedding(
  pixels: ArrayLike<number>,
  [B, C, H, W]: readonly [number, number, number, number],
  P: number,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  class_token: ArrayLike<number>,
  positions: ArrayLike<number>,
): Float64Array {
  const D = class_token.length;
  const [rows, columns] = [Math.floor(H / P), Math.floor(W / P)];
  const tokens = rows * columns + 1;
  const y = new Float64Array(B * tokens * D);
  for (let b = 0; b < B; b++) {
    for (let token = 0; token < tokens; token++) {
      const top = Math.floor((token - 1) / columns) * P;
      const left = ((token - 1) % columns) * P;
      for (let n = 0; n < D; n++) {
        let sum = token === 0 ? class_token[n]! : bias[n]!;
        for (let k = 0; token > 0 && k < C * P * P; k++) {
          const [c, dy, dx] = [Math.floor(k / (P * P)), Math.floor(k / P) % P, k % P];
          sum += pixels[((b * C + c) * H + top + dy) * W + left + dx]! * weight[n * C * P * P + k]!;
        }
        y[(b * tokens + token) * D + n] = sum + positions[token * D + n]!;
      }
    }
  }
  return y;
}
