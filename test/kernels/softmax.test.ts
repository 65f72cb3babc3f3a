import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { plansOf } from "../../src/tensor/device/plan.ts";
import { softmax } from "../../src/tensor/ops/softmax.ts";
import { softmax as reference } from "../../src/tensor/reference/softmax.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource, SCORES } from "../hard.ts";
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
const LOWEST = -3.4028234663852886e38;

/** One element, primes, below, at and above the workgroup size, ViT's tokens, the longest of one invocation, a vocabulary. */
// biome-ignore format: a table
const SIZES = [
  [1, 1], [2, 2], [3, 7], [5, 63], [5, 64], [9, 65], [17, 131], [16, 257], [9, 4096], [2, 32_001],
] as const;

for (const [row, plan] of plansOf("softmax", "row", device.caps)) {
  const run = (x: ArrayLike<number>, S: number, on = device): Promise<Float32Array> =>
    softmax(on.tensor(Float32Array.from(x), [x.length / S, S]), plan).read();

  for (const [R, S] of SIZES) {
    test(`softmax ${row} [${R}, ${S}]`, async () => {
      const x = new Random(R * 1000 + S).normal(R * S, 0, 4);
      const y = await run(x, S);
      expectClose(y, reference(x, S), TOLERANCES.softmax, `softmax ${row} ${R}x${S}`);
      expectClose(await run(x, S, hardware), reference(x, S), TOLERANCES.softmax, `softmax ${row} ${R}x${S}, for GPUs`);
      for (let r = 0; r < R; r++) {
        const sum = y.subarray(r * S, (r + 1) * S).reduce((a, b) => a + b, 0);
        expect(Math.abs(sum - 1)).toBeLessThan(1e-5);
      }
    });
  }

  test.each([0, 88, -88, 1e4, -1e4, 1e-40, 3e38, LOWEST, Number.NEGATIVE_INFINITY])(
    `softmax ${row}: a row of nothing but %d is uniform`,
    async (value) => {
      // e^0 and the sum are exact: one rounding is left.
      expectClose(await run(new Array(67).fill(value), 67), new Array(67).fill(1 / 67), { rel: 1.2e-7 }, "uniform");
    },
  );

  test(`softmax ${row}: a large mean, ±88, ±1e4 and masked places`, async () => {
    const random = new Random(1);
    const rows = [
      [...random.normal(5, 1000, 1)],
      [88, 87, -88, 0, 1],
      [1e4, -1e4, 9999, 9998, 0],
      [3e38, -3e38, 0, 1, 3e38],
      [LOWEST, 0, 1, Number.NEGATIVE_INFINITY, 2],
      [Number.NEGATIVE_INFINITY, -3e38, Number.NEGATIVE_INFINITY, LOWEST, LOWEST],
    ];
    const x = Float32Array.from(rows.flat());
    expectClose(await run(x, 5), reference(x, 5), TOLERANCES.softmax, "extremes");
    expectClose(await run(x, 5, hardware), reference(x, 5), TOLERANCES.softmax, "extremes, for GPUs");
  });

  test.each(Object.keys(SCORES) as (keyof typeof SCORES)[])(
    `softmax ${row}: as exact as PyTorch on %s`,
    async (kind) => {
      for (const [R, S] of [
        [16, 257],
        [4, 32_001],
      ]) {
        const x = SCORES[kind](new HardSource(2), R, S);
        expectAsPyTorch(`softmax ${kind} ${S}`, [x], await run(x, S), reference(x, S), `softmax ${row} ${kind} ${S}`);
      }
    },
  );

  test(`softmax ${row}: a NaN makes its row NaN, and no other`, async () => {
    for (const on of [device, hardware]) {
      const y = await run([0, 1, Number.NaN, 2, 3, 4], 2, on);
      expect([...y].map(Number.isNaN)).toEqual([false, false, true, true, false, false]);
    }
  });

  test(`softmax ${row}: more rows than one grid dimension`, async () => {
    // The second device folds a grid of more than 4 workgroups: of 8 rows each in the invocation variant.
    for (const [on, R] of [
      [device, 65_536],
      [folding, row === "invocation" ? 83 : 11],
    ] as const) {
      const x = new Random(3).normal(R * 4);

      expectClose(await run(x, 4, on), reference(x, 4), TOLERANCES.softmax, `${R} rows`);
    }
  });
}

// Where subgroups have 8 threads: one that is not full, one and a half, a single thread, an odd number of them.
test.runIf(device.caps.subgroups).each([4, 12, 1, 72, 256])("subgroups in a workgroup of %i threads", async (WG) => {
  const [R, S] = [3, 300];
  const x = new Random(WG).normal(R * S, 0, 4);
  const y = device.empty([R, S]);
  device.launch({
    kernel: "softmax",
    uses: { row: "row_workgroup", numbers: "numbers_vec4", reduce: "reduce_subgroups" },
    overrides: { WG },
    bindings: { x: device.tensor(x, [R, S]), y },
    params: { rows: R, S },
    workgroups: R,
  });
  expectClose(await y.read(), reference(x, S), TOLERANCES.softmax, `softmax of ${WG} threads`);
});

test("a strided view is read in its own order", async () => {
  const x = device.tensor([1, 10, 2, 20, 3, 30], [3, 2]).permute([1, 0]);
  expectClose(await softmax(x).read(), reference([1, 2, 3, 10, 20, 30], 3), TOLERANCES.softmax, "strided");
});
