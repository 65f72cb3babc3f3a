/** Cutting an image into patches: a read and a write of its pixels in another order. */
import { unfold } from "../../src/tensor/ops/unfold.ts";
import { unfold as reference } from "../../src/tensor/reference/unfold.ts";
import { compare } from "../../test/compare.ts";
import { Random } from "../../test/random.ts";
import { TOLERANCES } from "../../test/tolerances.ts";
import { type Groups, ONLY } from "../harness.ts";

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
