/** Softmax of rows: memory-bound, though the exponential costs some arithmetic. */

import { planRow } from "../../device/plan.ts";
import { softmax } from "../../ops/softmax.ts";
import { softmax as reference } from "../../reference/softmax.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = (shapes, caps) =>
  shapes.softmax.map(({ name, R, D }) => ({
    kernel: "softmax",
    shape: `${name} R${R} S${D}`,
    ...variantsWithOwn("softmax", "row", { M: R }, caps, (override) => planRow("softmax", caps, [R, D], override)),
    open(device) {
      const x = new Random(1).normal(R * D, 0, 3);
      const xs = device.tensor(x, [R, D]);
      const rows = sampleRows(R, 64);
      const expected = once(() => reference(takeSample(x, rows, D), D));
      return {
        flops: 0,
        bytes: 4 * 2 * R * D,
        run: (variant) => softmax(xs, planWithOwn("softmax", "row", variant)),
        check: (y) => compare(takeSample(y, rows, D), expected(), TOLERANCES.softmax, "softmax"),
      };
    },
  }));
