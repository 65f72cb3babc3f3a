/** Appending keys to a cache: memory-bound, a read and a write of the new keys, whatever the size of the cache. */
import { kvAppend } from "../../ops/kv_append.ts";
import { kvAppend as reference } from "../../reference/kv_append.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ heads }) =>
  heads.map(({ name, T, H, d, C }) => ({
    kernel: "kv_append",
    shape: `${name} T${T} H${H} d${d} C${C}`,
    ...ONLY,
    open(device) {
      const x = new Random(1).normal(T * H * d);
      const past = C - T - 1;
      const xs = device.tensor(x, [1, T, H, d]);
      const cache = device.tensor(new Float32Array(H * C * d), [1, H, C, d]);
      const at = device.tensor(Uint32Array.of(past), [1]);
      return {
        flops: 0,
        bytes: 4 * 2 * T * H * d,
        run() {
          kvAppend(xs, cache, at);
          return cache;
        },
        check(y) {
          const expected = new Float32Array(H * C * d);
          reference(x, expected, past, [1, T, H, C, d]);
          return compare(y, expected, TOLERANCES.exact, "kv_append");
        },
      };
    },
  }));
