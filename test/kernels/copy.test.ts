import { expect, test } from "vitest";
import { Device } from "../../src/tensor/device.ts";
import { cat, contiguous, copy } from "../../src/tensor/ops/copy.ts";
import { copy as reference } from "../../src/tensor/reference/copy.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();

/** Random bits: every payload of NaN must arrive as it is. */
function randomBits(n: number, seed: number): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from({ length: n }, () => random.int(0, 2 ** 32));
}

type View = (x: Tensor<"u32">) => Tensor<"u32">;
const VIEWS: [string, number[], View][] = [
  ["one element", [1], (x) => x],
  ["narrow", [7], (x) => x.narrow(0, 3, 2)],
  ["transpose", [5, 13], (x) => x.permute([1, 0])],
  ["heads", [2, 3, 4, 5], (x) => x.permute([0, 2, 1, 3])],
  ["five dimensions backwards", [2, 3, 1, 5, 7], (x) => x.permute([4, 3, 2, 1, 0])],
  ["a part of a fused projection", [2, 3, 24], (x) => x.narrow(2, 8, 8).unflatten(2, [2, 4]).permute([0, 2, 1, 3])],
  ["expanded", [3, 1, 2], (x) => x.expand([3, 4, 2])],
  ["expanded and narrowed", [1, 65], (x) => x.expand([3, 65]).narrow(1, 1, 64)],
];

test.each(VIEWS)("contiguous: %s", async (_, shape, view) => {
  const bits = randomBits(
    shape.reduce((a, b) => a * b),
    1,
  );
  const x = view(device.tensor(bits, shape));
  const y = contiguous(x);
  expect(y.shape).toEqual(x.shape);
  expect(y.isContiguous).toBe(true);
  expect([...(await y.read())]).toEqual(reference(bits, x.shape, x.strides, x.offset));
});

test("contiguous leaves alone what is contiguous", () => {
  const x = device.empty([2, 3]);
  expect(contiguous(x)).toBe(x);
});

test("copying into a strided place leaves the rest as it was", async () => {
  const y = device.tensor(new Float32Array(12).fill(9), [3, 4]);
  copy(device.tensor([1, 2, 3, 4, 5, 6], [2, 3]), y.permute([1, 0]).narrow(0, 1, 2));
  expect([...(await y.read())]).toEqual([9, 1, 4, 9, 9, 2, 5, 9, 9, 3, 6, 9]);
});

test.each([0, 1, -1])("cat along dimension %i", async (dim) => {
  const parts = [1, 3, 2].map((n, i) => {
    const shape = dim === 1 ? [2, n, 2] : dim === 0 ? [n, 3, 2] : [2, 3, n];
    return device.tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(i), shape);
  });
  const y = cat(parts, dim);
  const d = dim < 0 ? 2 : dim;
  expect(y.shape).toEqual(parts[0].shape.with(d, 6));
  const which = [0, 1, 1, 1, 2, 2]; // the part that each place along the dimension comes from
  const expected = Array.from({ length: y.size }, (_, i) => which[Math.floor(i / y.strides[d]) % 6]);
  expect([...(await y.read())]).toEqual(expected);
});

test("a folded grid reaches every element", async () => {
  const folded = new Device(device.handle, { ...device.caps, maxWorkgroupsPerDimension: 3 }, Number.POSITIVE_INFINITY);
  const x = Float32Array.from({ length: 386 }, (_, i) => i);
  const y = await contiguous(folded.tensor(x, [2, 193]).permute([1, 0])).read();
  expect([...y]).toEqual(reference(x, [193, 2], [1, 193], 0));
});

test("more than five dimensions and other shapes are refused", () => {
  const six = device.empty([1, 2, 1, 2, 1, 2]);
  expect(() => copy(six, six)).toThrow("copy: rank 6 exceeds 5");
  expect(() => copy(device.empty([2, 3]), device.empty([3, 2]))).toThrow("copy: y must be [2, 3], got [3, 2]");
  expect(() => cat([device.empty([2, 3]), device.empty([2, 4])], 0)).toThrow("cat: [2, 4] does not join [2, 3]");
});
