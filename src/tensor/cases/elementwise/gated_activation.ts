/** silu(gate) * up, the middle of Vicuna's feed-forward: memory-bound, two reads and a write. */
import { gatedActivation } from "../../ops/gated_activation.ts";
import { activation } from "../../reference/activation.ts";
import { gatedActivation as reference } from "../../reference/gated_activation.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ gated }) =>
  gated.map(({ name, R, D }) => ({
    kernel: "gated_activation",
    shape: `${name} R${R} F${D} silu`,
    ...ONLY,
    open(device) {
      const random = new Random(1);
      const [gate, up] = [random.normal(R * D), random.normal(R * D)];
      const [g, u] = [device.tensor(gate, [R, D]), device.tensor(up, [R, D])];
      const rows = sampleRows(R);
      return {
        flops: 0,
        bytes: 4 * 3 * R * D,
        run: () => gatedActivation(g, u, "silu"),
        check(y) {
          const expected = reference(takeSample(gate, rows, D), takeSample(up, rows, D), activation.silu);
          return compare(takeSample(y, rows, D), expected, TOLERANCES.activation, "gated_activation");
        },
      };
    },
  }));
