/** y = table[ids]: rows of a weight by their numbers. */
import type { Tensor } from "../tensor.ts";
import type { Weight } from "../weight.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * @param ids u32[...]; an id of V or more gives zeros
 * @param table [V, D], of any weight dtype, in any number of shards
 * @returns f32[..., D]
 */
export function embedding(ids: Tensor<"u32">, table: Weight): Tensor {
  const [V, D] = table.shape;
  const y = ids.device.empty([...ids.shape, D]);
  const n = ids.size;
  for (const { firstRow, rows, bits } of table.shards) {
    ids.device.launch({
      kernel: "embedding",
      uses: table.uses,
      bindings: { ids: contiguous(ids), weight: bits, y },
      params: { n, V, D, first_row: firstRow, rows },
      workgroups: Math.ceil((n * table.K4) / WG),
    });
  }
  return y;
}
