/** Attention with grouped heads, plain loops in f64, all arrays contiguous. */
export interface AttentionSizes {
  readonly B: number;
  readonly T: number;
  readonly S: number;
  readonly H: number;
  readonly Hkv: number;
  readonly d: number;
}

/**
 * q: [B, T, H, d], k and v: [B, S, Hkv, d], mask: [B, S], 1 = visible. With `causal`, query t sees the keys up to past + t.
 * A query that sees no key gives zeros. bias: [B, H, T, S], or [H, T, S] for all of them.
 * edges: [B, H, T, S], 0 = the query does not attend to the key.
 */
export function attention(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  { B, T, S, H, Hkv, d }: AttentionSizes,
  options: {
    scale: number;
    causal?: boolean;
    mask?: ArrayLike<number>;
    past?: number;
    bias?: ArrayLike<number>;
    edges?: ArrayLike<number>;
  },
): Float64Array {
  const { scale, causal = false, mask, past = 0, bias, edges } = options;
  const y = new Float64Array(B * T * H * d);
  for (let b = 0; b < B; b++) {
    for (let t = 0; t < T; t++) {
      for (let h = 0; h < H; h++) {
        const hkv = Math.floor(h / (H / Hkv));
        const query = ((b * T + t) * H + h) * d;
        const key = (s: number) => ((b * S + s) * Hkv + hkv) * d;
        const scores: [number, number][] = [];
        for (let s = 0; s < S; s++) {
          if ((causal && s > past + t) || (mask && !mask[b * S + s])) continue;
          if (edges && edges[((b * H + h) * T + t) * S + s] === 0) continue;
          let dot = 0;
          for (let i = 0; i < d; i++) dot += q[query + i]! * k[key(s) + i]!;
          scores.push([s, scale * dot + (bias ? bias[(((b * H + h) * T + t) * S + s) % bias.length]! : 0)]);
        }
        const largest = Math.max(...scores.map(([, score]) => score));
        const total = scores.reduce((sum, [, score]) => sum + Math.exp(score - largest), 0);
        for (const [s, score] of scores) {
          const p = Math.exp(score - largest) / total;
          for (let i = 0; i < d; i++) y[query + i]! += p * v[key(s) + i]!;
        }
      }
    }
  }
  return y;
}
