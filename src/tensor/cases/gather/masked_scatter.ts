/** Replacing 32 placeholders of a prompt by image features: memory-bound, a read and a write of the prompt. */
import { maskedScatter } from "../../ops/masked_scatter.ts";
import { maskedScatter as reference } from "../../reference/masked_scatter.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ tokens }) =>
  tokens.map(({ name, R, D }) => ({
    kernel: "masked_scatter",
    shape: `${name} T${R} D${D}`,
    ...ONLY,
    open(device) {
      const random = new Random(1);
      const Q = Math.min(32, R - 1);
      const [x, features] = [random.normal(R * D), random.normal(Q * D)];
      const source = Uint32Array.from({ length: R }, (_, t) => (t < Q ? t + 1 : 0));
      const [xs, f] = [device.tensor(x, [1, R, D]), device.tensor(features, [Q, D])];
      const s = device.tensor(source, [1, R]);
      return {
        flops: 0,
        bytes: 4 * 2 * R * D,
        run: () => maskedScatter(xs, f, s),
        check: (y) => compare(y, reference(x, features, source, D), TOLERANCES.exact, "masked_scatter"),
      };
    },
  }));
