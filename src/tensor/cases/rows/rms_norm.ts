/** Root mean square normalisation: memory-bound, one read and one write of x. */

import { planRow } from "../../device/plan.ts";
import { rmsNorm } from "../../ops/rms_norm.ts";
import { rmsNorm as reference } from "../../reference/rms_norm.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ rms_norm }, caps) =>
  rms_norm.map(({ name, R, D }) => ({
    kernel: "rms_norm",
    shape: `${name} R${R} D${D}`,
    ...variantsWithOwn("rms_norm", "row", { M: R }, caps, (override) => planRow("rms_norm", caps, [R, D], override)),
    open(device) {
      const random = new Random(1);
      const [x, weight] = [random.normal(R * D), random.normal(D, 1, 0.1)];
      const [xs, w] = [device.tensor(x, [R, D]), device.tensor(weight, [D])];
      const rows = sampleRows(R);
      const expected = once(() => reference(takeSample(x, rows, D), weight, 1e-6));
      return {
        flops: 0,
        bytes: 4 * (2 * R * D + D),
        run: (variant) => rmsNorm(xs, w, 1e-6, planWithOwn("rms_norm", "row", variant)),
        check: (y) => compare(takeSample(y, rows, D), expected(), TOLERANCES.rms_norm, "rms_norm"),
      };
    },
  }));
