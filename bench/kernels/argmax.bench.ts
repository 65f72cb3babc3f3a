/** The likeliest token out of the logits: one read of them. */
import { argmax } from "../../src/tensor/ops/argmax.ts";
import { argmax as reference } from "../../src/tensor/reference/argmax.ts";
import { compare } from "../../test/compare.ts";
import { Random } from "../../test/random.ts";
import { TOLERANCES } from "../../test/tolerances.ts";
import { type Groups, ONLY } from "../harness.ts";

export const groups: Groups = ({ logits }) =>
  logits.map(({ name, R, D }) => ({
    kernel: "argmax",
    shape: `${name} R${R} V${D}`,
    ...ONLY,
    open(device) {
      const x = new Random(1).normal(R * D);
      const xs = device.tensor(x, [R, D]);
      return {
        flops: 0,
        bytes: 4 * (R * D + R),
        run: () => argmax(xs),
        check: (y) => compare(y, reference(x, D), TOLERANCES.exact, "argmax"),
      };
    },
  }));
