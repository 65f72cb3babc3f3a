/** Cross-entropy, by which candidate answers are scored: a row of logits for each token, read twice. */

import { crossEntropy } from "../../ops/cross_entropy.ts";
import { crossEntropy as reference } from "../../reference/cross_entropy.ts";
import { compare } from "../support/compare.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ logits }, caps) =>
  logits.map(({ name, R, D }) => ({
    kernel: "cross_entropy",
    shape: `${name} R${R} V${D}`,
    ...variantsWithOwn("cross_entropy", "logits", { M: R }, caps),
    open(device) {
      const x = new Random(1).normal(R * D, 0, 3);
      const labels = Uint32Array.from({ length: R }, (_, row) => (row * 7919) % D);
      const [xs, ys] = [device.tensor(x, [R, D]), device.tensor(labels, [R])];
      const expected = once(() => reference(x, labels, D));
      return {
        flops: 0,
        bytes: 4 * R * D,
        run: (variant) => crossEntropy(xs, ys, planWithOwn("cross_entropy", "logits", variant)),
        check: (y) => compare(y, expected(), TOLERANCES.log_softmax, "cross_entropy"),
      };
    },
  }));
