/** Rotary positions: memory-bound, a read and a write of the queries or keys, and a read of the table. */
import { rope, ropeTable } from "../../ops/rope.ts";
import { rope as reference } from "../../reference/rope.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ heads }) =>
  heads.map(({ name, T, H, d, C }) => ({
    kernel: "rope",
    shape: `${name} T${T} H${H} d${d}`,
    ...ONLY,
    open(device) {
      const x = new Random(1).normal(T * H * d);
      const table = ropeTable(C, d, 10_000);
      const positions = Uint32Array.from({ length: T }, (_, t) => C - T + t);
      const [xs, t, p] = [
        device.tensor(x, [1, T, H, d]),
        device.tensor(table, [C, d]),
        device.tensor(positions, [1, T]),
      ];
      return {
        flops: 0,
        bytes: 4 * (2 * T * H * d + T * d),
        run: () => rope(xs, t, p),
        check: (y) => compare(y, reference(x, table, positions, H, d), TOLERANCES.rope, "rope"),
      };
    },
  }));
