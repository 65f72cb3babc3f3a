import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { plansOf } from "../../src/tensor/device/plan.ts";
import { layerNorm } from "../../src/tensor/ops/layer_norm.ts";
import { layerNorm as reference } from "../../src/tensor/reference/layer_norm.ts";
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

/** One element, primes, below, at and above the workgroup size, the model's widths. */
// biome-ignore format: a table
const SIZES = [
  [1, 1], [1, 2], [3, 7], [9, 4], [5, 63], [5, 64], [5, 65], [17, 68], [2, 131], [7, 768], [3, 1408],
] as const;

for (const [row, plan] of plansOf("layer_norm", "row", device.caps)) {
  /** f32[R, D] normalised on the GPU. */
  const run = (
    x: Float32Array,
    weight: Float32Array,
    bias: Float32Array,
    eps: number,
    on = device,
  ): Promise<Float32Array> => {
    const D = weight.length;
    const [w, b] = [on.tensor(weight, [D]), on.tensor(bias, [D])];
    return layerNorm(on.tensor(x, [x.length / D, D]), w, b, eps, plan).read();
  };

  for (const [R, D] of SIZES) {
    // Each eps the model uses. With one element the distance from the mean is 0 exactly: no special case is needed.
    test.each([1e-6, 1e-12])(`layer_norm ${row} [${R}, ${D}] eps %d`, async (eps) => {
      const random = new Random(R * 1000 + D);
      const [x, weight, bias] = [random.normal(R * D), random.normal(D, 1, 0.1), random.normal(D)];
      const y = await run(x, weight, bias, eps);
      expectClose(y, reference(x, weight, bias, eps), TOLERANCES.layer_norm, `layer_norm ${row} ${R}x${D}`);
      const z = await run(x, weight, bias, eps, hardware);
      expectClose(z, reference(x, weight, bias, eps), TOLERANCES.layer_norm, `layer_norm ${row} ${R}x${D}, for GPUs`);
    });
  }

  test.each([256, 257])(`layer_norm ${row}: a large mean does not eat the variance of %i elements`, async (D) => {
    const x = new Random(1).normal(3 * D, 1000, 1);
    const [ones, zeros] = [new Float32Array(D).fill(1), new Float32Array(D)];
    // f32 near 1000 has steps of 6e-5, by which the mean's rounding would shift a whole row.
    expectClose(await run(x, ones, zeros, 1e-6), reference(x, ones, zeros, 1e-6), TOLERANCES.layer_norm, "large mean");
  });

  test.each([0, 3.25, -1e4, 1e-40])(`layer_norm ${row}: elements all %d give the bias, not NaN`, async (value) => {
    const x = new Float32Array(2 * 96).fill(value);
    const [ones, bias] = [new Float32Array(96).fill(1), new Random(2).normal(96)];
    expectClose(await run(x, ones, bias, 1e-12), [...bias, ...bias], TOLERANCES.exact, "equal rows");
  });

  test(`layer_norm ${row}: elements of ±1e4 and 1e-20`, async () => {
    const random = new Random(4);
    const [ones, zeros] = [new Float32Array(64).fill(1), new Float32Array(64)];
    const x = Float32Array.from([...random.normal(64, 0, 1e4), ...random.normal(64, 0, 1e-20)]);
    expectClose(await run(x, ones, zeros, 1e-12), reference(x, ones, zeros, 1e-12), TOLERANCES.layer_norm, "scales");
  });

  test.each(Object.keys(ROWS) as (keyof typeof ROWS)[])(
    `layer_norm ${row}: as exact as PyTorch on %s`,
    async (kind) => {
      const [source, D] = [new HardSource(1), 1408];
      const x = Float32Array.from(ROWS[kind](source.bell(16 * D), D));
      const weight = Float32Array.from(source.bell(D), (b) => 1 + b / 8);
      const bias = Float32Array.from(source.bell(D));
      const exact = reference(x, weight, bias, 1e-6);
      for (const on of [device, hardware]) {
        const y = await run(x, weight, bias, 1e-6, on);
        expectAsPyTorch(`layer_norm ${kind}`, [x, weight, bias], y, exact, `layer_norm ${row} ${kind}`);
      }
    },
  );

  test(`layer_norm ${row}: more rows than one grid dimension`, async () => {
    // The second device folds a grid of more than 4 workgroups: of 8 rows each in the invocation variant.
    for (const [on, R] of [
      [device, 65_536],
      [folding, row === "invocation" ? 83 : 11],
    ] as const) {
      const x = new Random(3).normal(R * 4);
      const [ones, zeros] = [new Float32Array(4).fill(1), new Float32Array(4)];
      expectClose(
        await run(x, ones, zeros, 1e-2, on),
        reference(x, ones, zeros, 1e-2),
        TOLERANCES.layer_norm,
        `${R} rows`,
      );
    }
  });

  test(`layer_norm ${row}: a NaN stays in its row`, async () => {
    const x = new Random(5).normal(3 * 8);
    x[9] = Number.NaN;
    for (const on of [device, hardware]) {
      const y = await run(x, new Float32Array(8).fill(1), new Float32Array(8), 1e-6, on);
      expect([...y].map(Number.isNaN)).toEqual(Array.from({ length: 24 }, (_, i) => i >= 8 && i < 16));
    }
  });
}

test("a strided view is read in its own order", async () => {
  const x = new Random(6).normal(6 * 8);
  const [ones, zeros] = [device.tensor(new Float32Array(6).fill(1), [6]), device.tensor(new Float32Array(6), [6])];
  const view = device.tensor(x, [6, 8]).permute([1, 0]);
  const rows = Float32Array.from({ length: 48 }, (_, i) => x[(i % 6) * 8 + Math.floor(i / 6)]);
  const expected = reference(rows, new Float32Array(6).fill(1), new Float32Array(6), 1e-6);
  expectClose(await layerNorm(view, ones, zeros, 1e-6).read(), expected, TOLERANCES.layer_norm, "strided");
});

test("weight of another width is refused by name", () => {
  const x = device.tensor([1, 2], [1, 2]);
  const three = device.tensor([1, 2, 3], [3]);
  expect(() => layerNorm(x, three, three, 1e-6)).toThrow("layerNorm: weight must be [2], got [3]");
});
