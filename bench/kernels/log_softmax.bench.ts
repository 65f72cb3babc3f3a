/** Log probabilities out of the logits, as beam search needs them: three passes over each row. */
import { logSoftmax } from "../../src/tensor/ops/log_softmax.ts";
import { logSoftmax as reference } from "../../src/tensor/reference/log_softmax.ts";
import { compare } from "../../test/compare.ts";
import { Random } from "../../test/random.ts";
import { TOLERANCES } from "../../test/tolerances.ts";
import { type Groups, ONLY } from "../harness.ts";

export const groups: Groups = ({ logits }) =>
  logits.map(({ name, R, D }) => ({
    kernel: "log_softmax",
    shape: `${name} R${R} V${D}`,
    ...ONLY,
    open(device) {
      const x = new Random(1).normal(R * D, 0, 3);
      const xs = device.tensor(x, [R, D]);
      return {
        flops: 0,
        bytes: 4 * 2 * R * D,
        run: () => logSoftmax(xs),
        check: (y) => compare(y, reference(x, D), TOLERANCES.log_softmax, "log_softmax"),
      };
    },
  }));
