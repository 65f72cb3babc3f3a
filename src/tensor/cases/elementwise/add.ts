/** The residual connection: memory-bound, two reads and a write. */
import { add } from "../../ops/add.ts";
import { add as reference } from "../../reference/add.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ residual }) =>
  residual.map(({ name, R, D }) => ({
    kernel: "add",
    shape: `${name} R${R} D${D}`,
    ...ONLY,
    open(device) {
      const random = new Random(1);
      const [a, b] = [random.normal(R * D), random.normal(R * D)];
      const [as, bs] = [device.tensor(a, [R, D]), device.tensor(b, [R, D])];
      const rows = sampleRows(R);
      return {
        flops: 0,
        bytes: 4 * 3 * R * D,
        run: () => add(as, bs),
        check(y) {
          const expected = reference(takeSample(a, rows, D), takeSample(b, rows, D));
          return compare(takeSample(y, rows, D), expected, TOLERANCES.elementwise, "add");
        },
      };
    },
  }));
