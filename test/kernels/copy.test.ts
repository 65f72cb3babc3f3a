import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { cat, contiguous, copy, rowsOf } from "../../src/tensor/ops/copy.ts";
import { copy as reference } from "../../src/tensor/reference/copy.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
/** The same adapter with the work split as on a GPU, and as on a software adapter. */
const DEVICES = [false, true].map(
  (isSoftware) =>
    [isSoftware, new GpuDevice(device.handle, { ...device.caps, isSoftware }, Number.POSITIVE_INFINITY)] as const,
);

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
  ["rows in fours", [3, 5, 12], (x) => x.permute([1, 0, 2]).narrow(2, 4, 8)],
  ["rows in fours, repeated", [1, 3, 8], (x) => x.expand([4, 3, 8])],
  ["rows not in fours by their offset", [3, 12], (x) => x.narrow(1, 2, 8)],
  ["rows not in fours by their stride", [3, 5, 6], (x) => x.narrow(2, 0, 4)],
  ["a row longer than a chunk", [2, 4100], (x) => x.narrow(0, 1, 1).narrow(1, 4, 4095)],
  ["rows in fours longer than a chunk", [3, 4108], (x) => x.narrow(0, 1, 2).narrow(1, 4, 4104)],
  ["many short rows", [3, 700, 2], (x) => x.permute([1, 0, 2])],
  ["rows in fours, several to a worker", [3, 90, 8], (x) => x.permute([1, 0, 2])],
  [
    "patches: rows in five dimensions",
    [2, 3, 4, 9],
    (x) => x.narrow(3, 1, 6).unflatten(3, [2, 3]).unflatten(2, [2, 2]).permute([0, 2, 4, 1, 3, 5]),
  ],
];

for (const [isSoftware, on] of DEVICES) {
  test.each(VIEWS)(`contiguous, ${isSoftware ? "software" : "GPU"}: %s`, async (_, shape, view) => {
    const bits = randomBits(
      shape.reduce((a, b) => a * b),
      1,
    );
    const x = view(on.tensor(bits, shape));
    const y = contiguous(x);
    expect(y.shape).toEqual(x.shape);
    expect(y.isContiguous).toBe(true);
    expect([...(await y.read())]).toEqual(reference(bits, x.shape, x.strides, x.offset));
  });
}

test("dimensions in order become one row, moved in fours where all allows it", () => {
  const [x, y] = [device.empty([2, 3, 4]), device.empty([2, 3, 4])];
  expect(rowsOf(x, y)).toMatchObject({ inFours: true, shape: [], n: 6, x_step: 1, y_step: 1 });
  expect(rowsOf(device.empty([5]), device.empty([5]))).toMatchObject({ inFours: false, shape: [], n: 5 });
  expect(rowsOf(device.empty([1, 1]), device.empty([1, 1]))).toMatchObject({ inFours: false, shape: [], n: 1 });
  const heads = rowsOf(device.empty([2, 7, 3, 8]).permute([0, 2, 1, 3]), device.empty([2, 3, 7, 8]));
  expect(heads).toMatchObject({ inFours: true, shape: [2, 3, 7], n: 2, xs: [42, 2, 6], ys: [42, 14, 2] });
  const transposed = rowsOf(device.empty([8, 4]).permute([1, 0]), device.empty([4, 8]));
  expect(transposed).toMatchObject({ inFours: false, shape: [4], n: 8, xs: [1], ys: [8], x_step: 4, y_step: 1 });
  const offset = rowsOf(device.empty([3, 12]).narrow(1, 2, 8), device.empty([3, 8]));
  expect(offset).toMatchObject({ inFours: false, shape: [3], n: 8, x_offset: 2 });
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
  const caps = { ...device.caps, isSoftware: false, maxWorkgroupsPerDimension: 3 };
  const folded = new GpuDevice(device.handle, caps, Number.POSITIVE_INFINITY);
  const x = Float32Array.from({ length: 386 }, (_, i) => i);
  const y = await contiguous(folded.tensor(x, [2, 193]).permute([1, 0])).read();
  expect([...y]).toEqual(reference(x, [193, 2], [1, 193], 0));
});

test("more than six dimensions and other shapes are refused", () => {
  const seven = device.empty([2, 3, 2, 3, 2, 3, 2]);
  expect(() => contiguous(seven.permute([6, 5, 4, 3, 2, 1, 0]))).toThrow("copy: rank 7 exceeds 6");
  expect(() => copy(device.empty([2, 3]), device.empty([3, 2]))).toThrow("copy: y must be [2, 3], got [3, 2]");
  expect(() => cat([device.empty([2, 3]), device.empty([2, 4])], 0)).toThrow("cat: [2, 4] does not join [2, 3]");
  expect(() => cat([], 0)).toThrow("cat: there is nothing to join");
});
