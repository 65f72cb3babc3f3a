/** The K best continuations of each prompt, over all of its rows (beams). */

import { kernelOf, type PlanOverride, plan, rowReduction } from "../device/plan.ts";
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank, sizes } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * Elements of a row for each workgroup: few, so that there are enough workgroups; on software adapters all of most
 * vocabularies, as a workgroup's barriers cost more than reading there (5 rows of 32,001: 1.1 ms instead of 3.4).
 */
const CHUNK = { hardware: 4096, software: 32_768 } as const;

/**
 * The K largest of x[r, v] + scores[r] over the n rows of each prompt, largest first, the lowest place first on ties. NaN is
 * larger than any number, as in torch.topk.
 *
 * @param x f32[P * n, V]
 * @param scores f32[P * n]
 * @param rows n, of each prompt
 * @param chunk numbers of a row for each workgroup; by default what suits the adapter
 * @returns u32[2, P, K]: bits of the f32 sums, then places, row * V + column with rows counted from 0 for each prompt.
 *   Beyond n * V numbers, -Infinity at 0xffffffff.
 * @throws ShapeError
 */
export function topK(
  x: Tensor,
  scores: Tensor,
  rows: number,
  K: number,
  chunk?: number,
  override?: PlanOverride,
): Tensor<"u32"> {
  const isMatrix = hasRank(x.shape, 2) && x.shape[1] > 0;
  const fits = isMatrix && scores.rank === 1 && scores.shape[0] === x.shape[0] && x.shape[0] % rows === 0;
  if (!fits || !(rows > 0) || !(K > 0)) {
    throw new ShapeError(
      `topK: x must be [P * n, V] and scores [P * n], V and K above 0, got ${formatShape(x.shape)} and ` +
        `${formatShape(scores.shape)} for n = ${rows}, K = ${K}`,
    );
  }
  const [R, V] = x.shape;
  const P = R / rows;
  const { device } = x;
  chunk ??= device.caps.isSoftware ? CHUNK.software : CHUNK.hardware;
  const chunks = Math.ceil(V / chunk);
  const kernel = {
    kernel: kernelOf("top_k", override),
    ...rowReduction(plan("logits", device.caps, override, { M: R }), Math.min(V, chunk)),
  };
  const [bindings, workgroups] = [{ x: contiguous(x), scores: contiguous(scores) }, R * chunks];
  const winners = device.empty([2, P, rows * chunks * K], "u32"); // of every chunk
  const first = { rows: R, N: V, K, n: rows, chunk, chunks, ids: 0 };
  device.launch({ ...kernel, bindings: { ...bindings, y: winners }, params: first, workgroups });
  if (rows * chunks === 1) return winners;

  const y = device.empty([2, P, K], "u32");
  const N = rows * chunks * K;
  const merge = { rows: P, N, K, n: 1, chunk: N, chunks: 1, ids: P * N };
  device.launch({ ...kernel, bindings: { ...bindings, x: winners, y }, params: merge, workgroups: P });
  return y;
}

/** The largest number of each row; NaN is larger than any number. f32[R, V] -> f32[R] @throws ShapeError */
export function rowMaximum(x: Tensor): Tensor {
  const [R] = sizes(x.shape, 2, "rowMaximum");
  const { device } = x;
  const found = topK(x, device.tensor(new Float32Array(R), [R]), 1, 1); // u32[2, R, 1], the sums' bits first
  return new Tensor(device, "f32", [R], found.storage);
}
