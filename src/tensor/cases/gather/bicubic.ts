/** Interpolating learned positions for a larger image: sixteen reads, mostly from caches, for each write. */
import { bicubic } from "../../ops/bicubic.ts";
import { bicubic as reference } from "../../reference/bicubic.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ images, layers }) =>
  images.map(({ name, image, patch }) => {
    const { D } = layers.vit;
    const n = image / patch;
    const N = Math.ceil(1.5 * n);
    return {
      kernel: "bicubic",
      shape: `${name} ${n}x${n} to ${N}x${N} D${D}`,
      ...ONLY,
      open(device) {
        const positions = new Random(1).normal(n * n * D);
        const x = device.tensor(positions, [n, n, D]);
        return {
          flops: 2 * 20 * N * N * D,
          bytes: 4 * (n * n + N * N) * D,
          run: () => bicubic(x, [N, N]),
          check: (y) => compare(y, reference(positions, [n, n, D], [N, N]), TOLERANCES.bicubic, "bicubic"),
        };
      },
    };
  });
