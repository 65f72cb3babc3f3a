/**
 * T5's relative position bias for one decoding step, and for a prompt: a small table is read, a bias for every score
 * written.
 */
import { relativeBias } from "../../ops/relative_bias.ts";
import { relativeBias as reference } from "../../reference/relative_bias.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

/** Flan-T5-xl: 32 heads; a decoder's step over 256 places, an encoder's prompt of 64 tokens. */
const SHAPES = [
  { name: "t5 step", P: 256, H: 32, T: 1, S: 256, past: 200 },
  { name: "t5 prompt", P: 64, H: 32, T: 64, S: 64, past: 0 },
] as const;

export const groups: Groups = () =>
  SHAPES.map(({ name, ...sizes }) => ({
    kernel: "relative_bias",
    shape: `${name} H${sizes.H} T${sizes.T} S${sizes.S}`,
    ...ONLY,
    open(device) {
      const { P, H, T, S } = sizes;
      const table = new Random(1).normal((2 * P - 1) * H);
      const x = device.tensor(table, [2 * P - 1, H]);
      const past = device.tensor(Uint32Array.of(sizes.past), [1]);
      return {
        flops: 0,
        bytes: 4 * (H * T * S + (2 * P - 1) * H),
        run: () => relativeBias(x, { T, S, past }),
        check: (y) => compare(y, reference(table, sizes), TOLERANCES.exact, "relative_bias"),
      };
    },
  }));
