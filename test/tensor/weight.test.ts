import { expect, test } from "vitest";
import type { Device } from "../../src/tensor/device/device.ts";
import {
  bf16ToNumber,
  DTYPES,
  type FloatDType,
  f16ToNumber,
  numberToBf16,
  numberToF16,
} from "../../src/tensor/dtype.ts";
import { convert, Weight } from "../../src/tensor/weight.ts";
import { otherDevice, testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const ALL: FloatDType[] = ["f32", "f16", "bf16"];

/** Numbers as the bytes of a dtype. */
function encode(numbers: ArrayLike<number>, dtype: FloatDType): Uint8Array {
  if (dtype === "f32") return new Uint8Array(Float32Array.from(numbers).buffer);
  return new Uint8Array(Uint16Array.from(numbers, dtype === "f16" ? numberToF16 : numberToBf16).buffer);
}

function decode(bytes: Uint8Array, dtype: FloatDType): number[] {
  if (dtype === "f32") return [...new Float32Array(bytes.slice().buffer)];
  return [...new Uint16Array(bytes.slice().buffer)].map(dtype === "f16" ? f16ToNumber : bf16ToNumber);
}

/** What lies on the device, padding included, as numbers. */
async function stored(weight: Weight): Promise<number[]> {
  const parts: number[] = [];
  for (const { bits } of weight.shards) {
    for (const value of decode(new Uint8Array((await bits.read()).buffer), weight.dtype as FloatDType))
      parts.push(value);
  }
  return parts;
}

/** `numbers`, [N, K], as they should lie there: rounded to `from`, then to `to`, rows padded to groups of four. */
function expected(numbers: ArrayLike<number>, K: number, from: FloatDType, to: FloatDType): number[] {
  const rounded = decode(encode(decode(encode(numbers, from), from), to), to);
  const K4 = Math.ceil(K / 4);
  return Array.from({ length: (rounded.length / K) * K4 * 4 }, (_, i) => {
    const [row, k] = [Math.floor(i / (K4 * 4)), i % (K4 * 4)];
    return k < K ? rounded[row * K + k] : 0;
  });
}

for (const from of ALL) {
  for (const to of ALL) {
    test.each([
      [1, 1],
      [3, 4],
      [5, 7],
      [7, 130],
    ])(`${from} on disk, ${to} on the device: [%i, %i]`, async (N, K) => {
      const numbers = new Random(N * K).normal(N * K);
      const weight = new Weight(device, [N, K], to);
      weight.write(0, encode(numbers, from), from);
      expect(await stored(weight)).toEqual(expected(numbers, K, from, to));
      weight.dispose();
    });

    test(`${from} to ${to} in pieces cut anywhere, over shards`, async () => {
      const small = await otherDevice({ max_binding: 4096 });
      for (const [N, K] of [
        [61, 64],
        [61, 63],
      ]) {
        const random = new Random(K);
        const numbers = random.normal(N * K);
        const bytes = encode(numbers, from);
        const weight = new Weight(small, [N, K], to);
        expect(weight.shards.length).toBe(DTYPES[to].bytes);
        for (let at = 0; at < bytes.length; ) {
          const length = Math.min(random.int(0, 700), bytes.length - at);
          // Copied to an odd place of another buffer, as a piece of a file comes, and overwritten after.
          const buffer = Buffer.alloc(length + 1, 0xff);
          buffer.set(bytes.subarray(at, at + length), 1);
          weight.write(at, buffer.subarray(1), from);
          buffer.fill(0xff);
          at += length;
        }
        expect(await stored(weight)).toEqual(expected(numbers, K, from, to));
      }
      small.destroy();
    });
  }
}

test("shards are equal, cover every row once and fit a binding", async () => {
  const small = await otherDevice({ max_binding: 2 ** 20 });
  for (const [N, K] of [
    [1, 4],
    [1024, 256],
    [1025, 256],
    [2048, 256],
    [30_523, 96],
    [3, 2 ** 18],
  ] as const) {
    const weight = new Weight(small, [N, K], "f32");
    let next = 0;
    for (const { firstRow, rows, bits } of weight.shards) {
      expect(firstRow).toBe(next);
      expect(bits.shape).toEqual([rows, Math.ceil(K / 4) * 4]);
      expect(bits.bytes).toBeLessThanOrEqual(2 ** 20);
      next += rows;
    }
    expect(next).toBe(N);
    expect(weight.shards.length).toBe(Math.ceil((N * K * 4) / 2 ** 20));
    expect(weight.shards[0].rows - weight.shards.at(-1)!.rows).toBeLessThan(weight.shards.length);
    expect(weight.bytes).toBe(N * K * 4);
    weight.dispose();
  }
  expect(() => new Weight(small, [1, 2 ** 18 + 1], "f32", { label: "lm_head" })).toThrow(
    "lm_head: one row takes 1.0 MiB, more than a binding may span",
  );
  small.destroy();
});

test("a weight is zeros until written, may be written again, and frees its memory", async () => {
  const before = device.memory.use.live;
  const weight = new Weight(device, [2, 4], "f16");
  expect(await stored(weight)).toEqual(new Array(8).fill(0));
  for (const value of [1, 2]) {
    weight.write(0, encode(new Array(8).fill(value), "f32"), "f32");
    expect(await stored(weight)).toEqual(new Array(8).fill(value));
  }
  weight.dispose();
  expect(device.memory.use.live).toBe(before);
});

test("parts out of order or beyond the end are refused", () => {
  const weight = new Weight(device as Device, [2, 4], "f32");
  weight.write(0, new Uint8Array(8), "f32");
  expect(() => weight.write(12, new Uint8Array(4), "f32")).toThrow("write: a part at byte 12 where byte 8 is next");
  expect(() => weight.write(8, new Uint8Array(28), "f32")).toThrow("write: 36 bytes do not fit a weight of 32");
  weight.dispose();
});

test("convert keeps infinities, NaN, signed zeros and subnormals", () => {
  const special = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 0, -0, 2 ** -24, -(2 ** -24)];
  for (const from of ALL) {
    for (const to of ALL)
      expect(decode(convert(encode(special, from), from, to), to), `${from} ${to}`).toEqual(special);
  }
});

test("uses names the loader of the dtype", () => {
  for (const dtype of ALL) {
    const weight = new Weight(device, [1, 4], dtype);
    expect(weight.uses).toEqual({ weight: `weight_${dtype}` });
    weight.dispose();
  }
});
