import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { plansOf } from "../../src/tensor/device/plan.ts";
import { f16Scales } from "../../src/tensor/ops/f16_scales.ts";
import { f16Scales as reference } from "../../src/tensor/reference/f16_scales.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
/** With as many loads in flight as on a GPU. */
const hardware = new GpuDevice(device.handle, { ...device.caps, isSoftware: false }, Number.POSITIVE_INFINITY);
const folding = new GpuDevice(
  device.handle,
  { ...device.caps, maxWorkgroupsPerDimension: 4 },
  Number.POSITIVE_INFINITY,
);

/** One element, primes, below, at and above the workgroup size, ViT's width. */
const SIZES = [[1, 1], [3, 7], [9, 4], [5, 63], [5, 65], [17, 68], [2, 131], [3, 1408]] as const; // biome-ignore format: a table

for (const [row, plan] of plansOf("f16_scales", "row", device.caps)) {
  const run = (x: Float32Array, [R, D]: readonly [number, number], on = device) =>
    f16Scales(on.tensor(x, [R, D]), plan).read();

  test(`${row}: the largest of a row comes to 16 or more and stays below 32`, async () => {
    for (const [R, D] of SIZES) {
      const random = new Random(R * 1000 + D);
      const magnitudes = Array.from({ length: R }, () => 2 ** random.int(-120, 120));
      const x = random.normal(R * D).map((value, i) => value * magnitudes[Math.floor(i / D)]);
      const expected = Float32Array.from(reference(x, D));
      for (const on of [device, hardware]) expect(await run(x, [R, D], on), `${R} x ${D}`).toEqual(expected);
      for (let r = 0; r < R; r++) {
        const most = Math.max(...x.subarray(r * D, (r + 1) * D).map(Math.abs)) * expected[r];
        expect(most).toBeGreaterThanOrEqual(16);
        expect(most).toBeLessThan(32);
      }
    }
  });

  test(`${row}: zeros, subnormals, the largest numbers, powers of two, the last element alone`, async () => {
    const [zero, small, large] = [
      new Float32Array(5),
      new Float32Array(5).fill(1e-40),
      new Float32Array(5).fill(-3.4e38),
    ];
    const last = Float32Array.from([0, 0, 0, 0, -65_536]);
    const x = Float32Array.from([...zero, ...small, ...large, ...last, 16, -32, 1, 0, 2]);
    expect([...(await run(x, [5, 5]))]).toEqual([2 ** 126, 2 ** 126, 2 ** -123, 2 ** -12, 0.5]);
  });

  test(`${row}: a NaN or an infinity changes no other row, and its own scale is a power of two`, async () => {
    const x = Float32Array.from([1, 2, 3, Number.NaN, 5, 6, Number.NEGATIVE_INFINITY, 8, 9]);
    const [first, ...others] = await run(x, [3, 3]);
    expect(first).toBe(8);
    for (const scale of others) expect(Number.isInteger(Math.log2(scale))).toBe(true);
  });

  test(`${row}: more rows than one grid dimension`, async () => {
    const R = row === "invocation" ? 83 : 11;
    const x = new Random(3).normal(R * 4);
    expect(await run(x, [R, 4], folding)).toEqual(Float32Array.from(reference(x, 4)));
  });
}

test("a strided view is read in its own order, and leading dimensions stay", async () => {
  const x = device.tensor([1, 10, 1, 20, 1, 30], [1, 3, 2]).permute([0, 2, 1]);
  const y = f16Scales(x);
  expect(y.shape).toEqual([1, 2]);
  expect([...(await y.read())]).toEqual([16, 1]);
  expect((await f16Scales(device.empty([0, 5])).read()).length).toBe(0);
});
