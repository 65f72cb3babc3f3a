import { expect, test } from "vitest";
import { contiguous } from "../../src/tensor/ops/copy.ts";
import { isDense, resolveShape } from "../../src/tensor/shape.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();
const count = (n: number) => Uint32Array.from({ length: n }, (_, i) => i);
/** u32[2, 3, 4] of 0 … 23. */
const x = device.tensor(count(24), [2, 3, 4]);

test("a tensor knows its shape, strides, size and bytes", () => {
  expect(x).toMatchObject({
    dtype: "u32",
    shape: [2, 3, 4],
    strides: [12, 4, 1],
    offset: 0,
    rank: 3,
    size: 24,
    bytes: 96,
  });
  expect(device.empty([])).toMatchObject({ dtype: "f32", shape: [], strides: [], rank: 0, size: 1 });
  expect(device.empty([3, 0])).toMatchObject({ size: 0, bytes: 0 });
});

test("reshape keeps the elements and the storage", async () => {
  const y = x.reshape([4, -1]);
  expect(y.shape).toEqual([4, 6]);
  expect(y.storage).toBe(x.storage);
  expect([...(await y.read())]).toEqual([...count(24)]);
  expect(x.reshape([2, 3, 4])).toBe(x);
});

test("reshape refuses other sizes, two unknowns and strided views", () => {
  expect(() => x.reshape([5, 5])).toThrow("reshape: 24 elements do not fill [5, 5]");
  expect(() => x.reshape([-1, 5])).toThrow("reshape: 24 elements do not fill [-1, 5]");
  expect(() => x.reshape([-1, -1])).toThrow("do not fill [-1, -1]");
  expect(() => x.permute([1, 0, 2]).reshape([24])).toThrow(
    "reshape: [3, 2, 4] with strides [4, 12, 1] is not contiguous",
  );
});

test("narrow", async () => {
  const y = x.narrow(1, 1, 2);
  expect(y).toMatchObject({ shape: [2, 2, 4], strides: [12, 4, 1], offset: 4 });
  expect([...(await contiguous(y.narrow(-1, 3, 1)).read())]).toEqual([7, 11, 19, 23]);
  expect(x.narrow(0, 2, 0).size).toBe(0);
  for (const [start, length] of [
    [-1, 1],
    [2, 2],
    [0, 4],
    [3, 1],
    [0, -1],
  ]) {
    expect(() => x.narrow(1, start, length)).toThrow("lies outside dimension 1 of [2, 3, 4]");
  }
  expect(() => x.narrow(3, 0, 1)).toThrow("narrow: dimension 3 of a tensor of rank 3");
});

test("unflatten splits a dimension, also of a strided view", async () => {
  expect(x.unflatten(2, [2, -1])).toMatchObject({ shape: [2, 3, 2, 2], strides: [12, 4, 2, 1] });
  const y = x.permute([2, 1, 0]).unflatten(0, [2, 2]);
  expect(y).toMatchObject({ shape: [2, 2, 3, 2], strides: [2, 1, 4, 12] });
  expect(() => x.unflatten(1, [2, 2])).toThrow("3 elements do not fill [2, 2]");
});

test("permute", async () => {
  const y = x.permute([2, 0, 1]);
  expect(y).toMatchObject({ shape: [4, 2, 3], strides: [1, 12, 4] });
  expect([...(await contiguous(y).read()).slice(0, 6)]).toEqual([0, 4, 8, 12, 16, 20]);
  expect(() => x.permute([0, 1])).toThrow("permute: [0, 1] is not an order of 3 dimensions");
  expect(() => x.permute([0, 1, 1])).toThrow("permute: [0, 1, 1] is not an order of 3 dimensions");
});

test("expand repeats dimensions of one", async () => {
  const y = x.narrow(1, 2, 1).expand([2, 2, 4]);
  expect(y).toMatchObject({ shape: [2, 2, 4], strides: [12, 0, 1], offset: 8, isContiguous: false });
  expect([...(await contiguous(y).read())]).toEqual([8, 9, 10, 11, 8, 9, 10, 11, 20, 21, 22, 23, 20, 21, 22, 23]);
  expect(() => x.expand([2, 6, 4])).toThrow("expand: [2, 3, 4] does not expand to [2, 6, 4]");
  expect(() => x.expand([2, 3])).toThrow("does not expand");
});

test("contiguous is what begins at 0 and has no gaps", () => {
  expect(x.isContiguous).toBe(true);
  expect(x.narrow(0, 0, 1).isContiguous).toBe(true);
  expect(x.narrow(0, 1, 1).isContiguous).toBe(false); // an offset
  expect(x.narrow(1, 0, 1).isContiguous).toBe(false); // a gap
  expect(x.permute([1, 0, 2]).isContiguous).toBe(false);
  expect(device.empty([3, 1, 4]).permute([1, 0, 2]).isContiguous).toBe(true); // a dimension of one lies anywhere
  expect(isDense([1, 1, 5], [20, 7, 1])).toBe(true);
});

test("resolveShape", () => {
  expect(resolveShape(24, [2, -1, 3])).toEqual([2, 4, 3]);
  expect(resolveShape(1, [])).toEqual([]);
  expect(() => resolveShape(24, [1.5, 16])).toThrow();
});

test("views die with what they view; disposing twice is harmless", async () => {
  const y = device.tensor([1, 2], [2]);
  const view = y.reshape([1, 2]);
  view.dispose();
  y.dispose();
  await expect(y.read()).rejects.toMatchObject({ code: "DISPOSED" });
  await expect(view.read()).rejects.toMatchObject({ code: "DISPOSED" });
});

test("read refuses what is not contiguous", async () => {
  await expect(x.permute([1, 0, 2]).read()).rejects.toThrow("read: a strided view must be made contiguous first");
});
