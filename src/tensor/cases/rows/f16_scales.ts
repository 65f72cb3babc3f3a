/** Scales of rows for products of f16: memory-bound, one read of x. */

import { planRow } from "../../device/plan.ts";
import { f16Scales } from "../../ops/f16_scales.ts";
import { f16Scales as reference } from "../../reference/f16_scales.ts";
import { compare } from "../support/compare.ts";
import { type Groups, once, planWithOwn, variantsWithOwn } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ layer_norm }, caps) =>
  layer_norm.map(({ name, R, D }) => ({
    kernel: "f16_scales",
    shape: `${name} R${R} D${D}`,
    ...variantsWithOwn("f16_scales", "row", { M: R }, caps, (override) =>
      planRow("f16_scales", caps, [R, D], override),
    ),
    open(device) {
      const x = new Random(1).normal(R * D);
      const xs = device.tensor(x, [R, D]);
      const expected = once(() => reference(x, D));
      return {
        flops: 0,
        bytes: 4 * (R * D + R),
        run: (variant) => f16Scales(xs, planWithOwn("f16_scales", "row", variant)),
        check: (y) => compare(y, expected(), TOLERANCES.exact, "f16_scales"),
      };
    },
  }));
