/** Patch embedding: compute-bound. The product reads its input as patches, or they are cut out first. */

import type { Variant } from "../../device/plan.ts";
import { patchEmbedding } from "../../ops/patch_embedding.ts";
import { patchEmbedding as reference } from "../../reference/patch_embedding.ts";
import { compare } from "../support/compare.ts";
import { randomWeight, sampleRows, storedRow, takeSample } from "../support/data.ts";
import { type Groups, once, variantsOf } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

const DTYPE = "f16";

export const groups: Groups = ({ images }, caps) =>
  images.map(({ name, image, patch, D }) => {
    const [N, K] = [Math.floor(image / patch) ** 2, 3 * patch * patch];
    return {
      kernel: "patch_embedding",
      shape: `${name} ${image}x${image} patch ${patch} D${D} ${DTYPE}`,
      ...variantsOf("patch_embedding", { M: N + 1 }, caps),
      open(device) {
        const shape = [1, 3, image, image] as const;
        const random = new Random(1);
        const [pixels, bias] = [random.normal(3 * image * image), random.normal(D)];
        const [class_token, positions] = [random.normal(D), random.normal((N + 1) * D)];
        const x = device.tensor(pixels, shape);
        const parameters = {
          weight: randomWeight(device, [D, K], DTYPE),
          bias: device.tensor(bias, [D]),
          class_token: device.tensor(class_token, [1, 1, D]),
          positions: device.tensor(positions, [1, N + 1, D]),
        };
        const columns = sampleRows(D);
        const sample = (x: ArrayLike<number>) =>
          Float64Array.from({ length: (x.length / D) * columns.length }, (_, i) => {
            return x[Math.floor(i / columns.length) * D + columns[i % columns.length]!]!;
          });
        const expected = once(() => {
          const weight = columns.flatMap((n) => [...storedRow(n, K, DTYPE)]);
          const [b, token] = [takeSample(bias, columns, 1), takeSample(class_token, columns, 1)];
          return reference(pixels, shape, patch, weight, b, token, sample(positions));
        });
        return {
          flops: 2 * N * D * K,
          bytes: parameters.weight.bytes + 4 * (pixels.length + 2 * (N + 1) * D),
          run: (variant) =>
            patchEmbedding(x, patch, parameters, { patch_embedding: variant as Variant<"patch_embedding"> }),
          check: (y) => compare(sample(y), expected(), TOLERANCES.linear, "patch_embedding"),
          dispose: () => parameters.weight.dispose(),
        };
      },
    };
  });
