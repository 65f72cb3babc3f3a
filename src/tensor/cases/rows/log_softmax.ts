/** Log probabilities, for beam search: three passes over each row of logits. */

import { logSoftmax } from "../../ops/log_softmax.ts";
import { logSoftmax as reference } from "../../reference/log_softmax.ts";
import { compare } from "../support/compare.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ logits }, caps) =>
  logits.map(({ name, R, D }) => ({
    kernel: "log_softmax",
    shape: `${name} R${R} V${D}`,
    ...variantsWithOwn("log_softmax", "logits", { M: R }, caps),
    open(device) {
      const x = new Random(1).normal(R * D, 0, 3);
      const xs = device.tensor(x, [R, D]);
      const expected = once(() => reference(x, D));
      return {
        flops: 0,
        bytes: 4 * 2 * R * D,
        run: (variant) => logSoftmax(xs, planWithOwn("log_softmax", "logits", variant)),
        check: (y) => compare(y, expected(), TOLERANCES.log_softmax, "log_softmax"),
      };
    },
  }));
