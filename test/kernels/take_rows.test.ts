import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { takeRows } from "../../src/tensor/ops/take_rows.ts";
import { takeRows as reference } from "../../src/tensor/reference/take_rows.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();

/** Random bits: NaN payloads must be kept. */
function randomBits(n: number, seed: number): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from({ length: n }, () => random.int(0, 2 ** 32));
}

test.each([
  [1, 1, 1],
  [3, 5, 7],
  [7, 3, 131],
  [5, 11, 64],
  [64, 2, 4096],
  [9, 300, 8],
  [3, 4, 4100],
  [3, 2, 1027],
])("take_rows of [%i rows], %i of them, %i wide, as f32 and as u32", async (R, n, D) => {
  const random = new Random(R * n * D);
  const bits = randomBits(R * D, 1);
  const rows = Uint32Array.from({ length: n }, () => random.int(0, R));
  const expected = reference(bits, rows, D);
  const floats = takeRows(device.tensor(new Float32Array(bits.buffer), [R, D]), device.tensor(rows, [n]));
  expect(floats.shape).toEqual([n, D]);
  expect([...new Uint32Array((await floats.read()).buffer)]).toEqual(expected);
  const words = takeRows(device.tensor(bits, [R, D]), device.tensor(rows, [n]));
  expect([...(await words.read())]).toEqual(expected);
});

test("a row beyond the last gives zeros", async () => {
  const dirt = device.tensor(new Float32Array(6).fill(7), [3, 2]);
  dirt.dispose(); // the result may get this buffer: every place must be written
  const rows = device.tensor(Uint32Array.of(1, 2, 2 ** 32 - 1), [3]);
  expect([...(await takeRows(device.tensor([1, 2, 3, 4], [2, 2]), rows).read())]).toEqual([3, 4, 0, 0, 0, 0]);
});

test("strided views are read in their own order", async () => {
  const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]).permute([1, 0]);
  const rows = device.tensor(Uint32Array.of(9, 2, 0), [3]).narrow(0, 1, 2);
  expect([...(await takeRows(x, rows).read())]).toEqual([3, 6, 1, 4]);
});

test("more rows than 16 bits count", async () => {
  const n = 65_536;
  const rows = new Uint32Array(n).fill(1);
  rows[n - 1] = 2;
  const y = await takeRows(device.tensor([10, 11, 12], [3, 1]), device.tensor(rows, [n])).read();
  expect([y[0], y[n - 2], y[n - 1]]).toEqual([11, 11, 12]);
});

test("a folded grid reaches every element", async () => {
  const caps = { ...device.caps, isSoftware: false, maxWorkgroupsPerDimension: 3 };
  const folded = new GpuDevice(device.handle, caps, Number.POSITIVE_INFINITY);
  const x = Float32Array.from({ length: 64 * 6 + 1 }, (_, i) => i);
  const rows = Uint32Array.from(x).reverse();
  const y = await takeRows(folded.tensor(x, [x.length, 1]), folded.tensor(rows, [rows.length])).read();
  expect([...y]).toEqual([...rows]);
});

test("other ranks are refused", () => {
  const rows = device.empty([2], "u32");
  expect(() => takeRows(device.empty([2, 3, 4]), rows)).toThrow("takeRows: x must be [R, D] and rows [n]");
});
