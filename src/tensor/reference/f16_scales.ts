/** The power of two that brings the largest magnitude of each row into [16, 32), at most 2^126. x: [R, D] row after row. */
export function f16Scales(x: ArrayLike<number>, D: number): Float64Array {
  return Float64Array.from({ length: x.length / D }, (_, row) => {
    let most = 0;
    for (let i = row * D; i < (row + 1) * D; i++) most = Math.max(most, Math.abs(x[i]!));
    let scale = 2 ** 126;
    while (most * scale >= 32) scale /= 2;
    return scale;
  });
}
