import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { narrow, widen } from "../../src/tensor/dtype.ts";
import { kvAppend } from "../../src/tensor/ops/kv_append.ts";
import { kvAppend as reference } from "../../src/tensor/reference/kv_append.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const count = (n: number, on = device) => on.tensor(Uint32Array.of(n), [1]);

// One element, primes, a decoding step, a full cache, more than the cache holds, and a count beyond it.
test.each([
  [1, 1, 1, 1, 1, 0],
  [2, 3, 5, 7, 3, 2],
  [3, 1, 2, 64, 8, 7],
  [2, 4, 3, 4, 6, 0],
  [2, 5, 3, 4, 6, 3],
  [1, 2, 1, 4, 2, 4_000_000_000],
])("kv_append of [%i, %i, %i, %i] to %i places, past %i", async (B, T, Hkv, d, C, past) => {
  const random = new Random(B * T * d);
  const [x, before] = [random.normal(B * T * Hkv * d), random.normal(B * Hkv * C * d)];
  const cache = device.persistent([B, Hkv, C, d]);
  device.write(cache, before);
  kvAppend(device.tensor(x, [B, T, Hkv, d]), cache, count(past));
  reference(x, before, past, [B, T, Hkv, C, d]);
  expectClose(await cache.read(), before, TOLERANCES.exact, "cache"); // untouched places included
  cache.dispose();
});

/** u32s of two f16 each, and back. */
const toF16 = (numbers: Float32Array) => new Uint32Array(narrow(numbers, "f16").buffer);
const numbersIn = (packed: Uint32Array) => widen(new Uint8Array(packed.buffer), "f16");

test.each([
  [1, 1, 1, 4, 1, 0],
  [2, 3, 5, 12, 3, 2],
  [3, 1, 2, 64, 8, 7],
  [2, 5, 3, 88, 6, 3],
])("kv_append of [%i, %i, %i, %i] to %i places of an f16 cache, past %i", async (B, T, Hkv, d, C, past) => {
  const random = new Random(B * T * d);
  const x = random.normal(B * T * Hkv * d);
  const before = numbersIn(toF16(random.normal(B * Hkv * C * d)));
  const cache = device.persistent([B, Hkv, C, d / 2], "u32");
  device.write(cache, toF16(before));
  // Once as it is, and once as a view that does not lie in fours.
  for (const shift of [0, 1]) {
    const row = T * Hkv * d + 1;
    const wide = Float32Array.from(
      { length: B * row },
      (_, i) => x[Math.floor(i / row) * (row - 1) + (i % row) - 1] ?? 0,
    );
    const view = device
      .tensor(wide, [B, row])
      .narrow(1, 1, row - 1)
      .unflatten(1, [T, Hkv, d]);
    kvAppend(shift ? view : device.tensor(x, [B, T, Hkv, d]), cache, count(past));
    const expected = before.slice();
    reference(x, expected, past, [B, T, Hkv, C, d]);
    const actual = numbersIn(await cache.read());
    expectClose(actual, expected, TOLERANCES.half, "cache");
    const untouched = [...expected.keys()].filter((i) => expected[i] === before[i]);
    expect(untouched.map((i) => actual[i])).toEqual(untouched.map((i) => before[i]));
  }
  cache.dispose();
});

test("f16: what f16 holds is kept to the bit, what lies beyond becomes its largest number, a NaN stays", async () => {
  const x = Float32Array.of(65504, 65505, 65519, 65520, 1e5, 3.4e38, -65504, -65520, -1e38, 2 ** -24, 2 ** -14, -0.5);
  const cache = device.persistent([1, 1, 1, 8], "u32");
  kvAppend(device.tensor([...x, 0, 1 + 2 ** -10, Number.NaN, Number.NaN], [1, 1, 1, 16]), cache, count(0));
  const kept = [...numbersIn(await cache.read())];
  expect(kept.slice(0, 9)).toEqual([65504, 65504, 65504, 65504, 65504, 65504, -65504, -65504, -65504]);
  expect(kept.slice(9)).toEqual([2 ** -24, 2 ** -14, -0.5, 0, 1 + 2 ** -10, Number.NaN, Number.NaN]);
  cache.dispose();
});

test("strided keys out of a fused projection, step after step", async () => {
  const [B, T, H, d, C] = [2, 1, 3, 4, 5];
  const cache = device.persistent([B, H, C, d]);
  const past = count(0);
  const expected = new Float32Array(cache.size);
  for (let step = 0; step < 3; step++) {
    device.write(past, Uint32Array.of(step));
    const qkv = new Random(step).normal(B * T * 3 * H * d);
    kvAppend(
      device
        .tensor(qkv, [B, T, 3 * H * d])
        .narrow(2, H * d, H * d)
        .unflatten(2, [H, d]),
      cache,
      past,
    );
    const k = Array.from(
      { length: B * H * d },
      (_, i) => qkv[Math.floor(i / (H * d)) * 3 * H * d + H * d + (i % (H * d))],
    );
    reference(k, expected, step, [B, T, H, C, d]);
  }
  expectClose(await cache.read(), expected, TOLERANCES.exact, "three steps");
  cache.dispose();
});

test("bits are moved: NaN payloads and subnormals arrive", async () => {
  const bits = Uint32Array.of(0x7fc12345, 0xff800001, 1, 0x80000000);
  const cache = device.persistent([1, 1, 1, 4]);
  kvAppend(device.tensor(new Float32Array(bits.buffer), [1, 1, 1, 4]), cache, count(0));
  expect(new Uint32Array((await cache.read()).buffer)).toEqual(bits);
  cache.dispose();
});

test("a folded grid reaches every element", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const x = Float32Array.from({ length: 64 * 6 + 1 }, (_, i) => i);
  const cache = folded.persistent([1, 1, 1, x.length]);
  kvAppend(folded.tensor(x, [1, 1, 1, x.length]), cache, count(0, folded));
  expect([...(await cache.read())]).toEqual([...x]);
  cache.dispose();
});

test("other shapes are refused by name", () => {
  const [x, cache, past] = [device.empty([1, 2, 3, 4]), device.empty([1, 3, 8, 4]), count(0)];
  expect(() => kvAppend(device.empty([2, 3, 4]), cache, past)).toThrow("kvAppend: x must be [B, T, Hkv, d]");
  expect(() => kvAppend(x.permute([0, 1, 3, 2]), cache, past)).toThrow("kvAppend: x must be [B, T, Hkv, d]");
  expect(() => kvAppend(x, device.empty([1, 2, 8, 4]), past)).toThrow("cache must be [1, 3, 8, 4], got [1, 2, 8, 4]");
  expect(() => kvAppend(x, device.empty([8, 3, 1, 4]).permute([2, 1, 0, 3]), past)).toThrow("must be contiguous");
  expect(() => kvAppend(x, device.empty([1, 3, 8, 4], "u32"), past)).toThrow("cache must be [1, 3, 8, 2]");
  const six = device.empty([1, 2, 3, 6]);
  expect(() => kvAppend(six, device.empty([1, 3, 8, 3], "u32"), past)).toThrow(
    "d must be a multiple of 4 for an f16 cache, got 6",
  );
  expect(() => kvAppend(x, cache, device.empty([2], "u32"))).toThrow("kvAppend: past must be [1], got [2]");
});
