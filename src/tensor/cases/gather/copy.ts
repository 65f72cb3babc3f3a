/** Making views contiguous, and concatenation: memory-bound, a read and a write. */
import { cat, contiguous } from "../../ops/copy.ts";
import { copy as reference } from "../../reference/copy.ts";
import { compare } from "../support/compare.ts";
import { type Group, type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ heads, tokens }) => [
  // The heads of one token are contiguous already.
  ...heads
    .filter(({ T }) => T > 1)
    .map(
      ({ name, T, H, d }): Group => ({
        kernel: "copy",
        shape: `${name} T${T} H${H} d${d} heads first`,
        ...ONLY,
        open(device) {
          const x = new Random(1).normal(T * H * d);
          const view = device.tensor(x, [T, H, d]).permute([1, 0, 2]);
          return {
            flops: 0,
            bytes: 4 * 2 * T * H * d,
            run: () => contiguous(view),
            check: (y) => compare(y, reference(x, view.shape, view.strides, 0), TOLERANCES.exact, "copy"),
          };
        },
      }),
    ),
  ...tokens.map(
    ({ name, R, D }): Group => ({
      kernel: "copy",
      shape: `${name} R${R} D${D} joined`,
      ...ONLY,
      open(device) {
        const x = new Random(1).normal(R * D);
        const half = Math.floor(R / 2);
        const parts = [
          device.tensor(x.subarray(0, half * D), [half, D]),
          device.tensor(x.subarray(half * D), [R - half, D]),
        ];
        return {
          flops: 0,
          bytes: 4 * 2 * R * D,
          run: () => cat(parts, 0),
          check: (y) => compare(y, x, TOLERANCES.exact, "cat"),
        };
      },
    }),
  ),
];
