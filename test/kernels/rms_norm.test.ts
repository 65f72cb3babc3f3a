import { describe, expect, test } from "vitest";
import { stored } from "../../src/tensor/cases/support/stored.ts";
import { type Device, GpuDevice } from "../../src/tensor/device/device.ts";
import { type PlanOverride, plansOf, runnableVariants } from "../../src/tensor/device/plan.ts";
import type { WeightDType } from "../../src/tensor/dtype.ts";
import type { Epilogue } from "../../src/tensor/fuse.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { activation as activations } from "../../src/tensor/reference/activation.ts";
import { gatedActivation } from "../../src/tensor/reference/gated_activation.ts";
import { linear as linearReference } from "../../src/tensor/reference/linear.ts";
import { rmsNorm as reference } from "../../src/tensor/reference/rms_norm.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { coded, expectAsPyTorch, HardSource, ROWS } from "../hard.ts";
import { Random } from "../random.ts";
import { ALL } from "../rounds.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const folding = new GpuDevice(
  device.handle,
  { ...device.caps, maxWorkgroupsPerDimension: 4 },
  Number.POSITIVE_INFINITY,
);
/** With as many loads in flight as on a GPU. */
const hardware = new GpuDevice(device.handle, { ...device.caps, isSoftware: false }, Number.POSITIVE_INFINITY);

/** One element, primes, below, at and above the workgroup size, the widths of Flan-T5 and Vicuna. */
// biome-ignore format: a table
const SIZES = [
  [1, 1], [1, 2], [3, 7], [9, 4], [5, 63], [5, 64], [5, 65], [17, 68], [2, 131], [7, 2048], [3, 4096],
] as const;

for (const [row, plan] of plansOf("rms_norm", "row", device.caps)) {
  /** f32[R, D] normalised on the GPU. */
  const run = (x: Float32Array, weight: Float32Array, eps: number, on = device): Promise<Float32Array> => {
    const D = weight.length;
    return rmsNorm(on.tensor(x, [x.length / D, D]), on.tensor(weight, [D]), eps, plan).read();
  };

  for (const [R, D] of SIZES) {
    test(`rms_norm ${row} [${R}, ${D}]`, async () => {
      const random = new Random(R * 1000 + D);
      const [x, weight] = [random.normal(R * D), random.normal(D, 1, 0.1)];
      const y = await run(x, weight, 1e-6);
      expectClose(y, reference(x, weight, 1e-6), TOLERANCES.rms_norm, `rms_norm ${row} ${R}x${D}`);
      const z = await run(x, weight, 1e-6, hardware);
      expectClose(z, reference(x, weight, 1e-6), TOLERANCES.rms_norm, `rms_norm ${row} ${R}x${D}, for GPUs`);
    });
  }

  test(`rms_norm ${row}: a large mean, equal rows, zeros`, async () => {
    const weight = new Random(1).normal(256);
    const x = new Random(2).normal(3 * 256, 1000, 1);
    x.fill(3.25, 256, 512);
    x.fill(0, 512);
    expectClose(await run(x, weight, 1e-6), reference(x, weight, 1e-6), TOLERANCES.rms_norm, "large mean");
  });

  test(`rms_norm ${row}: elements of ±1e4, 1e-3 and 1e-40`, async () => {
    const random = new Random(4);
    const ones = new Float32Array(64).fill(1);
    const x = Float32Array.from([1e4, 1e-3, 1e-40].flatMap((scale) => [...random.normal(64, 0, scale)]));
    expectClose(await run(x, ones, 1e-6), reference(x, ones, 1e-6), TOLERANCES.rms_norm, "scales");
  });

  test.each(Object.keys(ROWS) as (keyof typeof ROWS)[])(`rms_norm ${row}: as exact as PyTorch on %s`, async (kind) => {
    const [source, D] = [new HardSource(1), 4096];
    const x = Float32Array.from(ROWS[kind](source.bell(16 * D), D));
    const weight = Float32Array.from(source.bell(D), (b) => 1 + b / 8);
    const exact = reference(x, weight, 1e-6);
    for (const on of [device, hardware]) {
      const y = await run(x, weight, 1e-6, on);
      expectAsPyTorch(`rms_norm ${kind}`, [x, weight], y, exact, `rms_norm ${row} ${kind}`);
    }
  });

  test(`rms_norm ${row}: more rows than one grid dimension`, async () => {
    // The second device folds a grid of more than 4 workgroups: of 8 rows each in the invocation variant.
    for (const [on, R] of [
      [device, 65_536],
      [folding, row === "invocation" ? 83 : 11],
    ] as const) {
      const x = new Random(3).normal(R * 4);
      const ones = new Float32Array(4).fill(1);
      expectClose(await run(x, ones, 1e-2, on), reference(x, ones, 1e-2), TOLERANCES.rms_norm, `${R} rows`);
    }
  });

  test(`rms_norm ${row}: a NaN stays in its row`, async () => {
    const x = new Random(5).normal(3 * 8);
    x[9] = Number.NaN;
    for (const on of [device, hardware]) {
      const y = await run(x, new Float32Array(8).fill(1), 1e-6, on);
      expect([...y].map(Number.isNaN)).toEqual(Array.from({ length: 24 }, (_, i) => i >= 8 && i < 16));
    }
  });
}

test("a strided view is read in its own order", async () => {
  const x = device.tensor([1, 10, 1, 20, 1, 30], [3, 2]).permute([1, 0]);
  const y = await rmsNorm(x, device.tensor([1, 2, 3], [3]), 0).read();
  expectClose(y, reference([1, 1, 1, 10, 20, 30], [1, 2, 3], 0), TOLERANCES.rms_norm, "strided");
});

test("weight of another width is refused by name", () => {
  const x = device.tensor([1, 2], [1, 2]);
  const three = device.tensor([1, 2, 3], [3]);
  expect(() => rmsNorm(x, three, 1e-6)).toThrow("rmsNorm: weight must be [2], got [3]");
});

const PRODUCTS = runnableVariants("matvec", device.caps).filter((variant) => variant.startsWith("workgroup"));
/** Less than one load, several rounds of the threads, and a tail; the last for the kernel that takes no whole blocks. */
const LENGTHS = { plain: [[1, 4], [67, 60], [5, 1100]], blocks: [[67, 128], [5, 2176], [3, 60]] } as const; // biome-ignore format: a table

describe.each(PRODUCTS)("a product of the norm, matvec %s", (matvec) => {
  interface Product {
    readonly bias?: Float32Array;
    readonly epilogue?: Epilogue;
    readonly eps?: number;
    readonly on?: Device;
  }
  /** rmsNorm(x) Wᵀ + bias, by one launch a shard if the norm is fused, else by one more. */
  const run = async (
    norm: "fused" | "composed",
    [x, gain]: readonly Float32Array[],
    weight: Weight,
    { bias, epilogue, eps = 1e-6, on = device }: Product = {},
  ) => {
    const D = gain.length;
    const [xs, g, b] = [on.tensor(x, [x.length / D, D]), on.tensor(gain, [D]), bias && on.tensor(bias, [bias.length])];
    const plan: PlanOverride = { matvec, norm };
    const before = on.counts.launches;
    const y = linear(rmsNorm(xs, g, eps, plan), weight, b, epilogue, plan);
    on.settle();
    const shards = (epilogue?.gated ? weight.shards : weight.runs).length;
    expect(on.counts.launches - before).toBe(shards + (norm === "fused" ? 0 : 1));
    return y.read();
  };

  // Each number of rows is another kernel to compile. Those without subgroups differ in one part only.
  const rows: readonly [WeightDType, number[]][] = ALL
    ? (["f32", "bf16", "int8", "int4"] as const).map((dtype) => [dtype, [1, 2, 3, 4, 5, 6, 7, 8]])
    : matvec === "workgroup"
      ? [["f32", [4]], ["int4", [1]]] // biome-ignore format: a table
      : [["f32", [1, 4]], ["int8", [1]], ["int4", [1, 2]]]; // biome-ignore format: a table
  const cases = rows.flatMap(([dtype, rows]) => rows.map((M) => ({ dtype, M })));

  test.each(cases)("%o", async ({ dtype, M }) => {
    for (const [N, K] of LENGTHS[dtype.startsWith("int") ? "blocks" : "plain"]) {
      if (dtype === "int8" && K === 60) continue; // as int4
      const random = new Random(M * 1009 + N * 31 + K);
      const [x, gain] = [random.normal(M * K, 0.5, 3), random.normal(K, 1, 0.2)];
      const [w, bias] = [random.normal(N * K), random.normal(N)];
      const weight = Weight.from(device, w, [N, K], dtype);
      const expected = linearReference(reference(x, gain, 1e-6), stored(w, K, dtype), bias, [M, N, K]);
      for (const way of ["fused", "composed"] as const) {
        const y = await run(way, [x, gain], weight, { bias });
        expectClose(y, expected, TOLERANCES.linear, `${way} norm, ${matvec} ${dtype} ${M}x${N}x${K}`);
      }
      weight.dispose();
    }
  });

  test("a gated product, and one with a residual, of a sharded weight", async () => {
    const [M, F, K, random] = [4, 37, 60, new Random(7)];
    const on = new GpuDevice(device.handle, { ...device.caps, maxBindingBytes: 4096 }, Number.POSITIVE_INFINITY);
    const [x, gain, w, r] = [random.normal(M * K), random.normal(K), random.normal(2 * F * K), random.normal(M * F)];
    const n = reference(x, gain, 1e-6);
    const halves = [w.subarray(0, F * K), w.subarray(F * K)];
    const sums = halves.map((half) => linearReference(n, half, undefined, [M, F, K]));
    const pair = Weight.from(on, w, [2 * F, K], "f32", { paired: true });
    expect(pair.shards.length).toBeGreaterThan(1);
    const gated = await run("fused", [x, gain], pair, { epilogue: { activation: "silu", gated: true }, on });
    expectClose(gated, gatedActivation(sums[0], sums[1], activations.silu), TOLERANCES.linear, "gated");
    const one = Weight.from(on, halves[0], [F, K]);
    const added = await run("fused", [x, gain], one, { epilogue: { residual: on.tensor(r, [M, F]) }, on });
    const expected = sums[0].map((sum, i) => sum + r[i]);
    expectClose(added, expected, TOLERANCES.linear, "residual");
    for (const weight of [pair, one]) weight.dispose();
  });

  test("a NaN stays in its row; zeros give zeros; eps counts", async () => {
    const [M, N, K, random] = [4, 5, 132, new Random(8)];
    const [x, gain, w] = [random.normal(M * K), random.normal(K), random.normal(N * K)];
    x[K + 3] = Number.NaN;
    x.fill(0, 2 * K, 3 * K);
    const weight = Weight.from(device, w, [N, K]);
    const y = await run("fused", [x, gain], weight, { eps: 0.5 });
    weight.dispose();
    expect(Array.from(y, Number.isNaN)).toEqual(Array.from(y, (_, i) => Math.floor(i / N) === 1));
    expect(y.subarray(2 * N, 3 * N)).toEqual(new Float32Array(N));
    const exact = linearReference(reference(x, gain, 0.5), w, undefined, [M, N, K]);
    for (const m of [0, 3]) {
      expectClose(y.subarray(m * N, (m + 1) * N), exact.subarray(m * N, (m + 1) * N), TOLERANCES.linear, `row ${m}`);
    }
  });

  const WEIGHTS = {
    f32: (source: HardSource, N: number, K: number) => source.bell(N * K).map((b) => b / 64),
    int8: (source: HardSource, N: number, K: number) => coded(source, N, K, -127, 127, 2 ** -12),
    int4: (source: HardSource, N: number, K: number) => coded(source, N, K, 0, 15, 2 ** -8).map((w) => w - 2 ** -5),
  } as const;
  const hard = (Object.keys(WEIGHTS) as (keyof typeof WEIGHTS)[]).flatMap((dtype) => [1, 5].map((M) => ({ dtype, M })));
  const known = ({ dtype, M }: (typeof hard)[number]) => cases.some((one) => one.dtype === dtype && one.M === M);

  test.each(hard.filter((one) => ALL || known(one)))("as exact as PyTorch: %o", async ({ dtype, M }) => {
    const [N, K] = [48, 4096];
    for (const kind of ["massive", "large_mean"] as const) {
      const source = new HardSource(12);
      const x = Float32Array.from(ROWS[kind](source.bell(M * K), K));
      const gain = Float32Array.from(source.bell(K), (b) => 1 + b / 8);
      const w = Float32Array.from(WEIGHTS[dtype](source, N, K));
      const weight = Weight.from(device, w, [N, K], dtype);
      const exact = linearReference(reference(x, gain, 1e-6), w, undefined, [M, N, K]);
      const name = `rms_norm, linear ${kind} ${dtype} ${M}`;
      for (const way of ["fused", "composed"] as const) {
        const y = await run(way, [x, gain], weight);
        expectAsPyTorch(name, [x, gain, w], y, exact, `${name}, ${way}, ${matvec}`);
      }
      weight.dispose();
    }
  });
});
