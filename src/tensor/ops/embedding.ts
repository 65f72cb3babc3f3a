/** y = table[ids]: rows of a weight by their numbers. */
import type { Tensor } from "../tensor.ts";
import type { Shard, Weight } from "../weight.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * @param ids u32[...]; an id of V or more gives zeros
 * @param table [V, D], of any weight dtype, in any number of shards
 * @returns f32[..., D]
 */
export function embedding(ids: Tensor<"u32">, table: Weight): Tensor {
  const y = ids.device.empty([...ids.shape, table.shape[1]]);
  for (const shard of table.shards) look(ids, table, shard, y);
  return y;
}

/**
 * Rows of a shard by their places in it, whatever matrices it is of.
 *
 * @param ids u32[n]
 * @returns f32[n, D]
 */
export function shardRows(ids: Tensor<"u32">, table: Weight, { bits }: Shard): Tensor {
  const y = ids.device.empty([ids.size, table.shape[1]]);
  look(ids, table, { bits, firstRow: 0, rows: bits.shape[0]! }, y);
  return y;
}

function look(ids: Tensor<"u32">, table: Weight, { firstRow, rows, bits }: Omit<Shard, "row0">, y: Tensor): void {
  const n = ids.size;
  ids.device.launch({
    kernel: "embedding",
    uses: table.uses,
    bindings: { ids: contiguous(ids), weight: bits, y },
    params: { n, V: table.shape[0], D: table.shape[1], first_row: firstRow, rows },
    workgroups: Math.ceil((n * table.K4) / WG),
    work: () => ({ bytes: n * (table.rowBytes + 4 * table.shape[1] + 4) }),
  });
}
