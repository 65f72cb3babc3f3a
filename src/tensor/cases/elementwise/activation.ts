/** Activations by themselves; models mostly run them inside a matrix product. */
import { ACTIVATIONS, type Activation } from "../../activation.ts";
import { activation } from "../../ops/activation.ts";
import { activation as reference } from "../../reference/activation.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

const KINDS = (Object.keys(ACTIVATIONS) as Activation[]).filter((kind) => kind !== "none");

export const groups: Groups = ({ elementwise }) =>
  elementwise.flatMap(({ name, R, D }) =>
    KINDS.map((kind) => ({
      kernel: "activation",
      shape: `${name} R${R} F${D} ${kind}`,
      ...ONLY,
      open(device) {
        const x = new Random(1).normal(R * D, 0, 2);
        const xs = device.tensor(x, [R, D]);
        const rows = sampleRows(R);
        return {
          flops: 0,
          bytes: 4 * 2 * R * D,
          run: () => activation(xs, kind),
          check(y) {
            const expected = takeSample(x, rows, D).map(reference[kind]);
            return compare(takeSample(y, rows, D), expected, TOLERANCES.activation, kind);
          },
        };
      },
    })),
  );
