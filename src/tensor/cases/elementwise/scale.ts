/** A factor for every element: memory-bound, a read and a write. */
import { scale } from "../../ops/scale.ts";
import { scale as reference } from "../../reference/scale.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ tokens }) =>
  tokens.map(({ name, R, D }) => ({
    kernel: "scale",
    shape: `${name} R${R} D${D}`,
    ...ONLY,
    open(device) {
      const x = new Random(1).normal(R * D);
      const xs = device.tensor(x, [R, D]);
      const rows = sampleRows(R);
      const factor = Math.fround(D ** -0.5);
      return {
        flops: 0,
        bytes: 4 * 2 * R * D,
        run: () => scale(xs, factor),
        check: (y) =>
          compare(takeSample(y, rows, D), reference(takeSample(x, rows, D), factor), TOLERANCES.elementwise, "scale"),
      };
    },
  }));
