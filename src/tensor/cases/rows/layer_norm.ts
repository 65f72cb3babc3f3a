/** Layer normalisation: memory-bound, one read and one write of x. */

import { planRow } from "../../device/plan.ts";
import { layerNorm } from "../../ops/layer_norm.ts";
import { layerNorm as reference } from "../../reference/layer_norm.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ layer_norm }, caps) =>
  layer_norm.map(({ name, R, D }) => ({
    kernel: "layer_norm",
    shape: `${name} R${R} D${D}`,
    ...variantsWithOwn("layer_norm", "row", { M: R }, caps, (override) =>
      planRow("layer_norm", caps, [R, D], override),
    ),
    open(device) {
      const random = new Random(1);
      const [x, weight, bias] = [random.normal(R * D), random.normal(D, 1, 0.1), random.normal(D)];
      const [xs, w, b] = [device.tensor(x, [R, D]), device.tensor(weight, [D]), device.tensor(bias, [D])];
      const rows = sampleRows(R);
      const expected = once(() => reference(takeSample(x, rows, D), weight, bias, 1e-6));
      return {
        flops: 0,
        bytes: 4 * (2 * R * D + 2 * D),
        run: (variant) => layerNorm(xs, w, b, 1e-6, planWithOwn("layer_norm", "row", variant)),
        check: (y) => compare(takeSample(y, rows, D), expected(), TOLERANCES.layer_norm, "layer_norm"),
      };
    },
  }));
