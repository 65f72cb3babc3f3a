/**
 * Matrix products with a weight. Many rows are bound by arithmetic; one row, as in decoding, by reading the weight once,
 * so it is measured over several copies of the weight that together are larger than caches.
 */
import type { Caps } from "../device/caps.ts";
import { linear, matmulNaive } from "../ops/linear.ts";
import { rowBytes } from "../quantize.ts";
import { linear as reference } from "../reference/linear.ts";
import { compare } from "./support/compare.ts";
import { randomNumbers, randomWeight, sampleRows, storedRow, takeSample } from "./support/data.ts";
import { type Group, type Groups, variantsOf } from "./support/group.ts";
import { Random } from "./support/random.ts";
import type { MatmulShape } from "./support/shapes.ts";
import { TOLERANCES } from "./support/tolerances.ts";

/** More than the caches of large GPUs hold (an H100's L2: 50 MiB). */
const BEYOND_CACHES = 256 * 2 ** 20;
const COPIES = { least: 3, most: 16 };

export const groups: Groups = ({ matmul, matvec }, caps) => [
  ...matmul.map((shape) => group("linear", shape, caps)),
  ...matvec.map((shape) => group("matvec", shape, caps)),
];

function group(op: "linear" | "matvec", { name, M, N, K, dtype }: MatmulShape, caps: Caps): Group {
  const { variants, ...planned } = variantsOf(op, { M }, caps);
  // The kernel that explains the others takes no other weight, and only tests run it.
  const naive = op === "linear" && dtype === "f32" ? ["naive"] : [];
  return {
    kernel: "linear",
    shape: `${name} M${M} K${K} N${N} ${dtype}`,
    ...planned,
    variants: [...naive, ...variants],
    open(device) {
      const x = new Random(1).normal(M * K);
      const bias = new Random(2).normal(N);
      const [xs, b] = [device.tensor(x, [M, K]), device.tensor(bias, [N])];
      const bytes = N * rowBytes(dtype, K);
      const copies =
        op === "linear" ? 1 : Math.min(COPIES.most, Math.max(COPIES.least, Math.ceil(BEYOND_CACHES / bytes)));
      const weights = Array.from({ length: copies }, () => randomWeight(device, [N, K], dtype));
      const [plain] = naive.map(() => device.tensor(randomNumbers(N * K), [N, K]));
      let turn = 0;
      return {
        flops: 2 * M * N * K,
        bytes: bytes + 4 * (M * K + N + M * N),
        footprint: copies * bytes,
        run: (variant) =>
          variant === "naive"
            ? matmulNaive(xs, plain, b)
            : linear(xs, weights[turn++ % copies], b, "none", { [op]: variant }),
        check(y) {
          const [rows, columns] = [sampleRows(M, 8), sampleRows(N, 128)];
          const weight = new Float32Array(columns.length * K);
          columns.forEach((n, i) => {
            weight.set(storedRow(n, K, dtype), i * K);
          });
          const expected = reference(takeSample(x, rows, K), weight, takeSample(bias, columns, 1), [
            rows.length,
            columns.length,
            K,
          ]);
          const actual = rows.flatMap((m) => columns.map((n) => y[m * N + n]));
          return compare(actual, expected, TOLERANCES.linear, "linear");
        },
        dispose() {
          for (const weight of weights) weight.dispose();
        },
      };
    },
  };
}
