import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { runnableVariants } from "../../src/tensor/device/plan.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { rmsNorm as reference } from "../../src/tensor/reference/rms_norm.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource, ROWS } from "../hard.ts";
import { Random } from "../random.ts";
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

for (const row of runnableVariants("row", device.caps)) {
  /** f32[R, D] normalised on the GPU. */
  const run = (x: Float32Array, weight: Float32Array, eps: number, on = device): Promise<Float32Array> => {
    const D = weight.length;
    return rmsNorm(on.tensor(x, [x.length / D, D]), on.tensor(weight, [D]), eps, { row }).read();
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
