/**
 * Rotary positions and appending to the cache in one launch: memory-bound, a read and a write of all heads, and a read of
 * the table.
 */
import { ropeTable } from "../../ops/rope.ts";
import { ropeAppend } from "../../ops/rope_append.ts";
import { ropeAppend as reference } from "../../reference/rope_append.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ heads }) =>
  heads.map(({ name, T, H, d, C }) => ({
    kernel: "rope_append",
    shape: `${name} T${T} H${H} d${d} C${C}`,
    ...ONLY,
    open(device) {
      const sizes = { B: 1, T, H, Hkv: H, C, d };
      const qkv = new Random(1).normal(T * 3 * H * d);
      const table = ropeTable(C, d, 10_000);
      const past = C - T - 1;
      const positions = Uint32Array.from({ length: T }, (_, t) => past + t);
      const x = device.tensor(qkv, [1, T, 3 * H * d]);
      const cache = () => device.tensor(new Float32Array(H * C * d), [1, H, C, d]);
      const tensors = {
        table: device.tensor(table, [C, d]),
        positions: device.tensor(positions, [1, T]),
        keys: cache(),
        values: cache(),
        past: device.tensor(Uint32Array.of(past), [1]),
      };
      return {
        flops: 0,
        bytes: 4 * (2 * T * 3 * H * d + T * d),
        run() {
          ropeAppend(x, tensors);
          return tensors.keys;
        },
        check(y) {
          const [keys, values] = [new Float64Array(H * C * d), new Float64Array(H * C * d)];
          reference(qkv, table, positions, [keys, values], past, sizes);
          return compare(y, keys, TOLERANCES.rope, "rope_append");
        },
      };
    },
  }));
