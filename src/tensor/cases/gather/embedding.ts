/** Token embeddings: memory-bound, a row of the table for each token. */
import { embedding } from "../../ops/embedding.ts";
import { rowBytes } from "../../quantize.ts";
import { embedding as reference } from "../../reference/embedding.ts";
import { compare } from "../support/compare.ts";
import { randomWeight, storedRow } from "../support/data.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ tables }) =>
  tables.map(({ name, T, V, D, dtype }) => ({
    kernel: "embedding",
    shape: `${name} T${T} V${V} D${D} ${dtype}`,
    ...ONLY,
    open(device) {
      const random = new Random(1);
      const ids = Uint32Array.from({ length: T }, () => random.int(0, V));
      ids[T - 1] = V - 1;
      const table = randomWeight(device, [V, D], dtype);
      const idsOnDevice = device.tensor(ids, [T]);
      return {
        flops: 0,
        bytes: T * (rowBytes(dtype, D) + 4 * D),
        run: () => embedding(idsOnDevice, table),
        check(y) {
          // The reference gets the rows that are looked up alone: the table would take half a gigabyte in f64.
          const rows = new Float32Array(T * D);
          ids.forEach((id, t) => {
            rows.set(storedRow(id, D, dtype), t * D);
          });
          const expected = reference(Uint32Array.from(ids.keys()), rows, D);
          return compare(y, expected, TOLERANCES.exact, "embedding");
        },
        dispose: () => table.dispose(),
      };
    },
  }));
