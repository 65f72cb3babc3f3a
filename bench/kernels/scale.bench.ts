/** A factor for every element: memory-bound, a read and a write. */
import { scale } from "../../src/tensor/ops/scale.ts";
import { scale as reference } from "../../src/tensor/reference/scale.ts";
import { compare } from "../../test/compare.ts";
import { Random } from "../../test/random.ts";
import { TOLERANCES } from "../../test/tolerances.ts";
import { sampleRows, takeSample } from "../data.ts";
import { type Groups, ONLY } from "../harness.ts";

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
