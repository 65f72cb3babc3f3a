/** Gathering the last token of a prompt: so little work that it measures the cost of a launch. */
import { takeRows } from "../../ops/take_rows.ts";
import { takeRows as reference } from "../../reference/take_rows.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ tokens }) =>
  tokens.map(({ name, R, D }) => ({
    kernel: "take_rows",
    shape: `${name} R${R} D${D}, the last`,
    ...ONLY,
    open(device) {
      const x = new Random(1).normal(R * D);
      const [xs, last] = [device.tensor(x, [R, D]), device.tensor(Uint32Array.of(R - 1), [1])];
      return {
        flops: 0,
        bytes: 4 * 2 * D,
        run: () => takeRows(xs, last),
        check: (y) => compare(y, reference(x, [R - 1], D), TOLERANCES.exact, "take_rows"),
      };
    },
  }));
