/**
 * Matrix products with a weight. Many rows are compute-bound; one row, as in decoding, is bound by reading the weight once,
 * so it is measured over several copies of the weight that together exceed the caches.
 */
import type { Caps } from "../../device/caps.ts";
import { planNorm, type Variant } from "../../device/plan.ts";
import { linear, matmulNaive } from "../../ops/linear.ts";
import { rmsNorm } from "../../ops/rms_norm.ts";
import { rowBytes } from "../../quantize.ts";
import { activation as activations } from "../../reference/activation.ts";
import { add } from "../../reference/add.ts";
import { gatedActivation } from "../../reference/gated_activation.ts";
import { linear as reference } from "../../reference/linear.ts";
import { rmsNorm as rmsNormReference } from "../../reference/rms_norm.ts";
import { compare } from "../support/compare.ts";
import { type QuantizedRows, randomNumbers, randomWeight, sampleRows, storedRow, takeSample } from "../support/data.ts";
import { type Group, type Groups, once, variantsOf } from "../support/group.ts";
import { Random } from "../support/random.ts";
import type { MatmulShape } from "../support/shapes.ts";
import { TOLERANCES } from "../support/tolerances.ts";

/** More than the caches of large GPUs hold (an H100's L2: 50 MiB). */
const BEYOND_CACHES = 256 * 2 ** 20;
const COPIES = { least: 3, most: 16 };

export const groups: Groups = ({ matmul, matvec }, caps) => {
  const quantized: QuantizedRows = new Map();
  const products = matmul.map((shape) => ({ shape, sample: sampleOf(shape) }));
  return [
    ...products.map(({ shape, sample }) => group("linear", shape, { ...sample, quantized }, caps)),
    // How a weight is stored matters as far as its numbers are f16 already, or come of a block.
    ...products
      .filter(({ shape }) => /^(f16|int4)$/.test(shape.dtype))
      .map(({ shape, sample }) => group("linear_f16", shape, { ...sample, quantized }, caps)),
    ...matvec.map((shape) => group("matvec", shape, { ...sampleOf(shape), quantized }, caps)),
    ...matvec
      .filter(({ K, N, epilogue }) => epilogue === undefined && Math.max(K, N) <= 4096)
      .map((shape) => normed(shape, quantized, caps))
      .filter(({ variants }) => variants.length > 1),
  ];
};

/** What is compared of y: some rows and columns of it. */
interface Sample {
  take(y: ArrayLike<number>): number[];
  /** The same of the reference: of x f32[M, K], bias f32[N] and what is added in the end, like y. */
  expected(x: Float32Array, bias: Float32Array, residual: Float32Array): ArrayLike<number>;
}

function sampleOf({ M, N, K, dtype, epilogue = "none" }: MatmulShape): Sample {
  const outputs = epilogue === "gated" ? N / 2 : N;
  const [rows, columns] = [sampleRows(M, 8), sampleRows(outputs, 128)];
  const take = (y: ArrayLike<number>) => rows.flatMap((m) => columns.map((n) => y[m * outputs + n]!));
  const expected = once((x: Float32Array, bias: Float32Array, residual: Float32Array) => {
    const sums = (first: number) => {
      const sample = columns.map((n) => first + n);
      const weight = new Float32Array(sample.length * K);
      sample.forEach((n, i) => {
        weight.set(storedRow(n, K, dtype), i * K);
      });
      const size = [rows.length, columns.length, K] as const;
      return reference(takeSample(x, rows, K), weight, takeSample(bias, sample, 1), size);
    };
    return {
      none: () => sums(0),
      gelu: () => sums(0).map(activations.gelu),
      residual: () => add(sums(0), take(residual)),
      gated: () => gatedActivation(sums(0), sums(outputs), activations.silu),
    }[epilogue]();
  });
  return { take, expected };
}

/** A product of an RMS norm. */
function normed({ name, M, N, K, dtype }: MatmulShape, quantized: QuantizedRows, caps: Caps): Group {
  const columns = sampleRows(N, 128);
  const expected = once((x: Float32Array, gain: Float32Array) => {
    const weight = new Float32Array(columns.length * K);
    columns.forEach((n, i) => {
      weight.set(storedRow(n, K, dtype), i * K);
    });
    return reference(rmsNormReference(x, gain, 1e-6), weight, undefined, [M, columns.length, K]);
  });
  return {
    kernel: "linear",
    shape: `${name} M${M} K${K} N${N} ${dtype}, of a norm`,
    ...variantsOf("norm", { M }, caps, (override) => planNorm(caps, [M, K], override)),
    open(device) {
      const [x, gain] = [new Random(1).normal(M * K), new Random(2).normal(K, 1, 0.1)];
      const [xs, g] = [device.tensor(x, [M, K]), device.tensor(gain, [K])];
      const weight = randomWeight(device, [N, K], dtype, false, "f32", quantized);
      return {
        flops: 2 * M * N * K,
        bytes: N * rowBytes(dtype, K) + 4 * (M * K + K + M * N),
        run: (variant) => linear(rmsNorm(xs, g, 1e-6, { norm: variant as Variant<"norm"> }), weight, undefined, "none"),
        check(y) {
          const taken = Array.from({ length: M }, (_, m) => columns.map((n) => y[m * N + n]!)).flat();
          return compare(taken, expected(x, gain), TOLERANCES.linear, "linear");
        },
        dispose: () => weight.dispose(),
      };
    },
  };
}

function group(
  op: "linear" | "linear_f16" | "matvec",
  { name, M, N, K, dtype, epilogue = "none" }: MatmulShape,
  { take, expected, quantized }: Sample & { readonly quantized: QuantizedRows },
  caps: Caps,
): Group {
  const { variants, ...planned } = variantsOf(op, { M }, caps);
  // The reference kernel takes f32 weights only and has no epilogue; only tests run it.
  const hasNaive = op === "linear" && dtype === "f32" && epilogue === "none";
  return {
    kernel: "linear",
    shape: `${name} M${M} K${K} N${N} ${dtype}${epilogue === "none" ? "" : `, ${epilogue}`}${op === "linear_f16" ? ", computed in f16" : ""}`,
    ...planned,
    variants: hasNaive ? ["naive", ...variants] : variants,
    open(device, copied = false) {
      const x = new Random(1).normal(M * K);
      const bias = new Random(2).normal(N);
      const [xs, b] = [device.tensor(x, [M, K]), device.tensor(bias, [N])];
      const bytes = N * rowBytes(dtype, K);
      const outputs = epilogue === "gated" ? N / 2 : N;
      const r = new Random(3).normal(M * outputs);
      const residual = epilogue === "residual" ? device.tensor(r, [M, outputs]) : undefined;
      const activation = epilogue === "gelu" ? "gelu" : epilogue === "gated" ? "silu" : "none";
      const options = { activation, gated: epilogue === "gated", residual } as const;
      const copies =
        op !== "matvec" || !copied
          ? 1
          : Math.min(COPIES.most, Math.max(COPIES.least, Math.ceil(BEYOND_CACHES / bytes)));
      const weights = Array.from({ length: copies }, () =>
        randomWeight(device, [N, K], dtype, options.gated, op === "linear_f16" ? "f16" : "f32", quantized),
      );
      const plain = hasNaive ? device.tensor(randomNumbers(N * K), [N, K]) : undefined;
      let turn = 0;
      return {
        flops: 2 * M * N * K,
        bytes: bytes + 4 * (M * K + N + M * N),
        footprint: copies * bytes,
        run: (variant) =>
          plain && variant === "naive"
            ? matmulNaive(xs, plain, b)
            : linear(xs, weights[turn++ % copies]!, b, options, { [op]: variant }),
        check: (y) => compare(take(y), expected(x, bias, r), TOLERANCES[op === "linear_f16" ? op : "linear"], op),
        dispose() {
          for (const weight of weights) weight.dispose();
        },
      };
    },
  };
}
