/** The K best continuations of each prompt over all of its rows. */
import { ShapeError } from "../errors.ts";
import { formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/** Numbers a workgroup looks at: 64 for each thread, so that a thread's rescans are short beside its first pass. */
const CHUNK = 4096;

/**
 * The K largest of x[r, v] + scores[r] over the n rows of each prompt, largest first, the lowest place first on ties. NaN
 * counts as -Infinity.
 *
 * @param x f32[P * n, V]
 * @param scores f32[P * n]
 * @param rows n, of each prompt
 * @returns u32[2, P, K]: bits of the f32 sums, then places, row * V + column with rows counted from 0 for each prompt.
 *   Beyond n * V numbers, -Infinity at 0xffffffff.
 * @throws ShapeError
 */
export function topK(x: Tensor, scores: Tensor, rows: number, K: number): Tensor<"u32"> {
  const [R, V] = x.shape;
  const fits = x.rank === 2 && V > 0 && scores.rank === 1 && scores.shape[0] === R;
  if (!fits || !(rows > 0) || R % rows !== 0 || !(K > 0)) {
    throw new ShapeError(
      `topK: x must be [P * n, V] and scores [P * n], V and K above 0, got ${formatShape(x.shape)} and ` +
        `${formatShape(scores.shape)} for n = ${rows}, K = ${K}`,
    );
  }
  const P = R / rows;
  const select = (from: Tensor<"f32" | "u32">, N: number, ids: number): Tensor<"u32"> => {
    const chunk = ids ? N : Math.max(CHUNK, K); // a chunk not shorter than K has K winners, the last one apart
    const chunks = Math.ceil(N / chunk);
    const y = x.device.empty([2, P, chunks * K], "u32");
    x.device.launch({
      kernel: "top_k",
      bindings: { x: contiguous(from), scores: contiguous(scores), y },
      params: { P, N, V, K, chunk, chunks, ids },
      workgroups: P * chunks,
    });
    return y;
  };
  const winners = select(x, rows * V, 0);
  const [, , found] = winners.shape;
  return found === K ? winners : select(winners, found, P * found);
}
