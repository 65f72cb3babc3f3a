/** Incrementing counters: four bytes a row of a batch, so it measures the cost of a launch. */
import { increment } from "../../ops/increment.ts";
import { increment as reference } from "../../reference/increment.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = () =>
  [1, 5].map((rows) => ({
    kernel: "increment",
    shape: `rows ${rows}`,
    ...ONLY,
    open(device) {
      const start = Uint32Array.from({ length: rows }, (_, i) => 40 + i);
      const x = device.tensor(start, [rows]);
      let runs = 0;
      return {
        flops: 0,
        bytes: 4 * 2 * rows,
        run() {
          increment(x, 1);
          runs++;
          return x;
        },
        check: (y) => compare(y, reference(start, runs), TOLERANCES.exact, "increment"),
      };
    },
  }));
