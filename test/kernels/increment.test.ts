import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { ShapeError } from "../../src/tensor/errors.ts";
import { increment } from "../../src/tensor/ops/increment.ts";
import { increment as reference } from "../../src/tensor/reference/increment.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();

test.each([1, 3, 64, 65, 257])("%i counters go on, and again", async (n) => {
  const counts = Uint32Array.from({ length: n }, (_, i) => i * 7);
  const x = device.tensor(counts, [n]);
  increment(x, 1);
  increment(x, 40);
  expect(await x.read()).toEqual(reference(counts, 41));
});

test("wraps, as u32 does", async () => {
  const counts = Uint32Array.of(2 ** 32 - 1, 5);
  const x = device.tensor(counts, [2]);
  increment(x, 2 ** 32 - 3);
  expect(await x.read()).toEqual(reference(counts, 2 ** 32 - 3));
});

test("leaves what lies behind the counters alone", async () => {
  const x = device.tensor(new Uint32Array(4).fill(9), [4]);
  increment(x.narrow(0, 0, 3), 1);
  expect([...(await x.read())]).toEqual([10, 10, 10, 9]);
  expect(() => increment(x.narrow(0, 1, 2), 1)).toThrow(ShapeError);
});

test("a folded grid reaches every counter", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const counts = Uint32Array.from({ length: 64 * 7 + 1 }, (_, i) => i);
  const x = folded.tensor(counts, [counts.length]);
  increment(x, 5);
  expect(await x.read()).toEqual(reference(counts, 5));
});
