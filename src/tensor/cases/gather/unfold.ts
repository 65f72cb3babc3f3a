/** Cutting an image into patches: memory-bound, a read and a write of its pixels in another order. */
import { unfold } from "../../ops/unfold.ts";
import { unfold as reference } from "../../reference/unfold.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

export const groups: Groups = ({ images }) =>
  images.map(({ name, image, patch }) => ({
    kernel: "unfold",
    shape: `${name} ${image}x${image} patch ${patch}`,
    ...ONLY,
    open(device) {
      const shape = [1, 3, image, image] as const;
      const pixels = new Random(1).normal(3 * image * image);
      const x = device.tensor(pixels, shape);
      return {
        flops: 0,
        bytes: 4 * 2 * pixels.length,
        run: () => unfold(x, patch),
        check: (y) => compare(y, reference(pixels, shape, patch), TOLERANCES.exact, "unfold"),
      };
    },
  }));
