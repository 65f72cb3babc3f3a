import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { bicubic } from "../../src/tensor/ops/bicubic.ts";
import { contiguous } from "../../src/tensor/ops/copy.ts";
import { bicubic as reference } from "../../src/tensor/reference/bicubic.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource, massive } from "../hard.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

// Larger, smaller, turned, by one, from one point and to one, along one axis only; primes; the patches of ViT at 364 pixels.
test.each([
  [4, 4, 3, 8, 8],
  [7, 5, 4, 3, 2],
  [2, 9, 5, 9, 2],
  [5, 5, 1, 6, 4],
  [1, 1, 6, 3, 4],
  [6, 7, 2, 1, 1],
  [3, 4, 7, 3, 11],
  [16, 16, 11, 26, 26],
])("bicubic [%i, %i, %i] to %i x %i", async (h, w, D, H, W) => {
  const x = new Random(h * 100 + W).normal(h * w * D);
  const y = bicubic(device.tensor(x, [h, w, D]), [H, W]);
  expect(y.shape).toEqual([H, W, D]);
  expectClose(await y.read(), reference(x, [h, w, D], [H, W]), TOLERANCES.bicubic, "bicubic");
});

test.each([
  [11, 5],
  [3, 20],
] as const)("as exact as PyTorch on massive channels, to %i x %i", async (H, W) => {
  const x = Float32Array.from(massive(new HardSource(10).bell(64 * 64), 64));
  const y = await bicubic(device.tensor(x, [8, 8, 64]), [H, W]).read();
  expectAsPyTorch(`bicubic ${H}x${W}`, [x], y, reference(x, [8, 8, 64], [H, W]));
});

test("a grid of its own size stays as it is, to the bit", async () => {
  const x = new Random(5).normal(6 * 7 * 3);
  expect([...(await bicubic(device.tensor(x, [6, 7, 3]), [6, 7]).read())]).toEqual([...x]);
});

// torch.nn.functional.interpolate(…, mode="bicubic", align_corners=False) of PyTorch 2.13, in f64.
// biome-ignore format: images
test.each([
  [3, 2, [
    -0.7956678602430532, -1.1438123914930485,
    5.876953125, 18.814453125,
    12.549574110243059, 38.772718641493064,
  ]],
  [1, 1, [10.5]],
  [4, 5, [
    -1.0595625, -0.962703125, -1.00390625, -1.614640625, -2.1041875,
    1.973875, 3.06284375, 5.3046875, 8.76996875, 11.118625,
    6.970125, 9.69315625, 15.6953125, 25.87403125, 32.897375,
    10.0035625, 13.718703125, 22.00390625, 36.258640625, 46.1201875,
  ]],
] as const)("PyTorch's numbers, to %i x %i", async (H, W, expected) => {
  const x = [0, 1, 2, 10, 20, 40];
  expectClose(reference(x, [2, 3, 1], [H, W]), expected, { abs: 1e-12 }, "reference");
  const tolerance = { abs: 40 * TOLERANCES.bicubic.abs }; // numbers of up to 40, not of about 1
  expectClose(await bicubic(device.tensor(x, [2, 3, 1]), [H, W]).read(), expected, tolerance, "bicubic");
});

test("a view of another order", async () => {
  const x = new Random(2).normal(3 * 4 * 5);
  const turned = device.tensor(x, [3, 4, 5]).permute([1, 0, 2]); // [4, 3, 5]
  const expected = reference(await contiguous(turned).read(), [4, 3, 5], [5, 2]);
  expectClose(await bicubic(turned, [5, 2]).read(), expected, TOLERANCES.bicubic, "bicubic");
});

test("a folded grid of workgroups reaches every element", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const x = new Random(3).normal(4 * 4 * 5);
  const y = await bicubic(folded.tensor(x, [4, 4, 5]), [7, 11]).read();
  expectClose(y, reference(x, [4, 4, 5], [7, 11]), TOLERANCES.bicubic, "bicubic");
});

test("other ranks and impossible sizes are refused", () => {
  expect(() => bicubic(device.empty([3, 4]), [2, 2])).toThrow(
    "bicubic: x must be [h, w, D], none of them 0, got [3, 4]",
  );
  expect(() => bicubic(device.empty([3, 4, 2]), [0, 2])).toThrow("at least 1, got 0 and 2");
  expect(() => bicubic(device.empty([3, 4, 2]), [2, 2.5])).toThrow("at least 1, got 2 and 2.5");
});
