/** The most probable token: memory-bound, one read of the logits. */

import { argmax } from "../../ops/argmax.ts";
import { argmax as reference } from "../../reference/argmax.ts";
import { compare } from "../support/compare.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ logits }, caps) =>
  logits.map(({ name, R, D }) => ({
    kernel: "argmax",
    shape: `${name} R${R} V${D}`,
    ...variantsWithOwn("argmax", "logits", { M: R }, caps),
    open(device) {
      const x = new Random(1).normal(R * D);
      const xs = device.tensor(x, [R, D]);
      const expected = once(() => reference(x, D));
      return {
        flops: 0,
        bytes: 4 * (R * D + 2 * R),
        run: (variant) => argmax(xs, planWithOwn("argmax", "logits", variant)),
        check: (y) => compare(y, expected(), TOLERANCES.exact, "argmax"),
      };
    },
  }));
