import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { scale } from "../../src/tensor/ops/scale.ts";
import { scale as reference } from "../../src/tensor/reference/scale.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

test.each([1, 3, 4, 255, 1025])("%i elements, times a factor that f32 rounds", async (n) => {
  const x = new Random(n).normal(n, 0, 3);
  const factor = 27 ** -0.5;
  const y = await scale(device.tensor(x, [n]), factor).read();
  expectClose(y, reference(x, Math.fround(factor)), TOLERANCES.elementwise, `scale ${n}`);
});

test("a strided view is read in its own order", async () => {
  const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]).permute([1, 0]);
  const y = scale(x, -2);
  expect(y.shape).toEqual([3, 2]);
  expect([...(await y.read())]).toEqual([-2, -8, -4, -10, -6, -12]);
});

// The second size gives each invocation several groups of four on a software driver.
test.each([6 * 64 * 4 + 5, 20_003])("a folded grid reaches every one of %i elements", async (n) => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const x = Float32Array.from({ length: n }, (_, i) => i + 1);
  expect([...(await scale(folded.tensor(x, [x.length]), 1).read())]).toEqual([...x]);
});

test("NaN stays, alone", async () => {
  const y = await scale(device.tensor([Number.NaN, -1, 3], [3]), 2).read();
  expect([...y]).toEqual([Number.NaN, -2, 6]);
});
