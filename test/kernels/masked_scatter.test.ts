import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { maskedScatter } from "../../src/tensor/ops/masked_scatter.ts";
import { maskedScatter as reference } from "../../src/tensor/reference/masked_scatter.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();

/** Random bits: NaN payloads must be kept. */
function randomBits(n: number, seed: number): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from({ length: n }, () => random.int(0, 2 ** 32));
}

test.each([
  [1, 1, 1, 1],
  [2, 5, 3, 4],
  [1, 64, 32, 7],
  [3, 11, 32, 65],
  [2, 200, 32, 8],
  [1, 5, 3, 4100],
  [1, 3, 2, 1027],
])("masked_scatter [%i, %i, %i features of %i]", async (B, L, n, D) => {
  const random = new Random(B * L * D);
  const [x, features] = [randomBits(B * L * D, 1), randomBits(n * D, 2)];
  const source = Uint32Array.from({ length: B * L }, () => Math.max(0, random.int(-n, n + 1)));
  const y = maskedScatter(
    device.tensor(new Float32Array(x.buffer), [B, L, D]),
    device.tensor(new Float32Array(features.buffer), [n, D]),
    device.tensor(source, [B, L]),
  );
  expect(y.shape).toEqual([B, L, D]);
  expect([...new Uint32Array((await y.read()).buffer)]).toEqual(reference(x, features, source, D));
});

test("the first and the last feature, and none beyond", async () => {
  const x = device.tensor([1, 2, 3, 4, 5], [1, 5, 1]);
  const features = device.tensor([10, 20], [2, 1]);
  const source = device.tensor(Uint32Array.of(1, 2, 0, 3, 2 ** 32 - 1), [1, 5]);
  expect([...(await maskedScatter(x, features, source).read())]).toEqual([10, 20, 3, 4, 5]);
});

test("strided views are read in their own order", async () => {
  const x = device.tensor([1, 2, 3, 4], [1, 2, 2]).permute([0, 2, 1]);
  const features = device.tensor([0, 10, 0, 20], [2, 2]).permute([1, 0]).narrow(0, 1, 1);
  const source = device.tensor(Uint32Array.of(0, 0, 1), [1, 3]).narrow(1, 1, 2);
  expect([...(await maskedScatter(x, features, source).read())]).toEqual([1, 3, 10, 20]);
});

test("a folded grid reaches every element", async () => {
  const caps = { ...device.caps, isSoftware: false, maxWorkgroupsPerDimension: 3 };
  const folded = new GpuDevice(device.handle, caps, Number.POSITIVE_INFINITY);
  const x = Float32Array.from({ length: 64 * 6 + 1 }, (_, i) => i);
  const L = x.length;
  const y = maskedScatter(
    folded.tensor(x, [1, L, 1]),
    folded.tensor([7], [1, 1]),
    folded.tensor(new Uint32Array(L), [1, L]),
  );
  expect([...(await y.read())]).toEqual([...x]);
});

test("other shapes are refused by name", () => {
  const [x, features, source] = [device.empty([1, 4, 8]), device.empty([2, 8]), device.empty([1, 4], "u32")];
  expect(() => maskedScatter(device.empty([4, 8]), features, source)).toThrow("x must be [B, L, D], got [4, 8]");
  expect(() => maskedScatter(x, device.empty([2, 7]), source)).toThrow("features must be [2, 8], got [2, 7]");
  expect(() => maskedScatter(x, features, device.empty([4], "u32"))).toThrow("source must be [1, 4], got [4]");
});
