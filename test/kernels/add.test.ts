import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { add } from "../../src/tensor/ops/add.ts";
import { add as reference } from "../../src/tensor/reference/add.ts";
import type { Shape } from "../../src/tensor/shape.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

/** Equal shapes, then b repeated: over the batch, by ones in front, of widths that four does not divide, of one element. */
const SHAPES: [Shape, Shape][] = [
  [[1], [1]],
  [
    [2, 3],
    [2, 3],
  ],
  [
    [7, 131],
    [7, 131],
  ],
  [
    [4, 64],
    [4, 64],
  ],
  [
    [3, 5, 8],
    [5, 8],
  ],
  [
    [3, 5, 8],
    [1, 5, 8],
  ],
  [[3, 5, 7], [7]],
  [
    [3, 5, 7],
    [1, 1, 7],
  ],
  [
    [2, 257, 3],
    [257, 3],
  ],
  [[5, 3], [1]],
  [[5, 3], []],
  [
    [2, 1, 3],
    [1, 3],
  ],
];

for (const [a, b] of SHAPES) {
  test(`add [${a}] + [${b}]`, async () => {
    const random = new Random(sizeOf(a));
    const [x, z] = [random.normal(sizeOf(a)), random.normal(sizeOf(b))];
    const y = add(device.tensor(x, a), device.tensor(z, b));
    expect(y.shape).toEqual(a);
    expectClose(await y.read(), reference(x, z), TOLERANCES.elementwise, `[${a}] + [${b}]`);
  });
}

test("huge, tiny and cancelling numbers", async () => {
  const x = Float32Array.of(1e4, -1e4, 3e38, 1e-40, -1e-40, 1, 0, -0);
  const z = Float32Array.of(-1e4, 1, -3e38, 1e-40, 1, -1, -0, -0);
  const y = await add(device.tensor(x, [8]), device.tensor(z, [8])).read();
  expectClose(y, reference(x, z), TOLERANCES.elementwise, "extremes");
});

test("NaN and infinities in either come out", async () => {
  const x = device.tensor([Number.NaN, 1, Number.POSITIVE_INFINITY, 1], [4]);
  const z = device.tensor([1, Number.NaN, 1, Number.NEGATIVE_INFINITY], [4]);
  const y = await add(x, z).read();
  expect([...y]).toEqual([Number.NaN, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
});

test("strided views on both sides, and a tensor with itself", async () => {
  const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]).permute([1, 0]);
  const z = device.tensor([0, 10, 20, 30], [4]).narrow(0, 2, 2);
  expect([...(await add(x, z).read())]).toEqual([21, 34, 22, 35, 23, 36]);
  expect([...(await add(x, x).read())]).toEqual([2, 8, 4, 10, 6, 12]);
});

// The second size gives each invocation several groups of four on a software driver.
test.each([6 * 64 * 4 + 5, 20_003])("a folded grid reaches every one of %i elements", async (n) => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const x = Float32Array.from({ length: n }, (_, i) => i);
  const y = await add(folded.tensor(x, [x.length]), folded.tensor([1], [1])).read();
  expect([...y]).toEqual([...x].map((v) => v + 1));
});

test.each([[[3]], [[2, 1]], [[2]], [[1, 2, 3, 4]], [[2, 2, 3, 4]]])("b of %j is refused for a of [2, 3, 4]", (b) => {
  const [x, z] = [device.empty([2, 3, 4]), device.empty(b)];
  expect(() => add(x, z)).toThrow(`add: b must be [2, 3, 4] or its last dimensions, got [${b.join(", ")}]`);
});
