/** T5's relative position bias: added to a score by the distance between query and key. */
import { ShapeError } from "../errors.ts";
import { expectShape, formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";
import { placeholder } from "./placeholder.ts";

const WG = 64;

export interface RelativeBiasOptions {
  /** Queries. */
  readonly T: number;
  /** Keys, from position 0 on. */
  readonly S: number;
  /** u32[1], the position of the first query; 0 if absent. */
  readonly past?: Tensor<"u32"> | undefined;
}

/**
 * y[0, h, t, s] = table[P - 1 + s - (past + t), h].
 *
 * @param table f32[2P - 1, H], by the key's distance behind the query, from -(P - 1) to P - 1; larger ones count as those
 * @returns f32[1, H, T, S]
 * @throws ShapeError
 * Source: transformers' T5Attention.compute_bias.
 */
export function relativeBias(table: Tensor, { T, S, past }: RelativeBiasOptions): Tensor {
  if (!hasRank(table.shape, 2) || table.shape[0] % 2 !== 1) {
    throw new ShapeError(`relativeBias: table must be [2P - 1, H], got ${formatShape(table.shape)}`);
  }
  if (past) expectShape("relativeBias", "past", past.shape, [1]);
  const [distances, H] = table.shape;
  const { device } = table;
  const y = device.empty([1, H, T, S]);
  device.launch({
    kernel: "relative_bias",
    bindings: { table: contiguous(table), past: past ? contiguous(past) : placeholder(device), y },
    params: { size: y.size, H, T, S, P: (distances + 1) / 2 },
    workgroups: Math.ceil(y.size / WG),
  });
  return y;
}
