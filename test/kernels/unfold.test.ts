import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { unfold } from "../../src/tensor/ops/unfold.ts";
import { unfold as reference } from "../../src/tensor/reference/unfold.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();

/** Random bits: NaN payloads must be kept. */
function randomBits(n: number, seed: number): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from({ length: n }, () => random.int(0, 2 ** 32));
}

// One pixel, primes, partial patches at the right and at the bottom, the patches of ViT.
test.each([
  [1, 1, 1, 1, 1],
  [2, 3, 6, 4, 2],
  [1, 3, 7, 11, 3],
  [3, 2, 5, 5, 5],
  [2, 1, 13, 3, 2],
  [1, 3, 28, 42, 14],
])("unfold [%i, %i, %i, %i] by %i", async (B, C, H, W, P) => {
  const bits = randomBits(B * C * H * W, H * W);
  const y = unfold(device.tensor(new Float32Array(bits.buffer), [B, C, H, W]), P);
  expect(y.shape).toEqual([B, Math.floor(H / P) * Math.floor(W / P), C * P * P]);
  expect([...new Uint32Array((await y.read()).buffer)]).toEqual(reference(bits, [B, C, H, W], P));
});

test("a patch of 2 in figures", async () => {
  // biome-ignore format: an image
  const pixels = [
    0, 1,  2, 3,
    4, 5,  6, 7,
  ];
  expect([...(await unfold(device.tensor(pixels, [1, 1, 2, 4]), 2).read())]).toEqual([0, 1, 4, 5, 2, 3, 6, 7]);
});

test("channels last, seen as channels first", async () => {
  const x = device.tensor([0, 10, 1, 11, 2, 12, 3, 13], [1, 2, 2, 2]).permute([0, 3, 1, 2]);
  expect([...(await unfold(x, 2).read())]).toEqual([0, 1, 2, 3, 10, 11, 12, 13]);
});

test("a folded grid reaches every element", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const x = Float32Array.from({ length: 64 * 6 + 1 }, (_, i) => i);
  expect([...(await unfold(folded.tensor(x, [1, 1, 1, x.length]), 1).read())]).toEqual([...x]);
});

test("images smaller than a patch and other ranks are refused", () => {
  expect(() => unfold(device.empty([1, 3, 4, 3]), 4)).toThrow("H and W at least 4, got [1, 3, 4, 3]");
  expect(() => unfold(device.empty([3, 4, 4]), 2)).toThrow("unfold: pixels must be [B, C, H, W]");
  expect(() => unfold(device.empty([1, 3, 4, 4]), 0)).toThrow("unfold");
});
