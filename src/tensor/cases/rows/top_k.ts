/** The best continuations of the beams of one prompt: one read of the log probabilities, and a merge. */

import { topK } from "../../ops/top_k.ts";
import { topK as reference } from "../../reference/top_k.ts";
import { compare } from "../support/compare.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ logits }, caps) =>
  logits.map(({ name, R, D }) => {
    const K = 2 * R;
    return {
      kernel: "top_k",
      shape: `${name} R${R} V${D} K${K}`,
      ...variantsWithOwn("top_k", "logits", { M: R }, caps),
      open(device) {
        const random = new Random(1);
        const x = random.normal(R * D, -10, 3);
        const scores = random.uniform(R, -5, 0);
        const xs = device.tensor(x, [R, D]);
        const scoreTensor = device.tensor(scores, [R]);
        const expected = once(() => {
          const { sums, places } = reference(x, scores, D, R, K);
          return [...new Uint32Array(sums.buffer), ...places];
        });
        return {
          flops: 0,
          bytes: 4 * (R * D + 2 * K),
          run: (variant) => topK(xs, scoreTensor, R, K, undefined, planWithOwn("top_k", "logits", variant)),
          check: (y) => compare(y, expected(), TOLERANCES.exact, "top_k"),
        };
      },
    };
  });
