import { expect, test } from "vitest";
import { HARD_NUMBERS } from "../../src/tensor/cases/support/hard_numbers.ts";
import { stored } from "../../src/tensor/cases/support/stored.ts";
import { DTYPES, type FloatDType, narrow, numberToBf16, numberToF16 } from "../../src/tensor/dtype.ts";
import { quantizeRows, rowBytes } from "../../src/tensor/quantize.ts";
import { quantize as reference } from "../../src/tensor/reference/quantize.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { compare } from "../compare.ts";
import { otherDevice, testDevice } from "../device.ts";
import { Random } from "../random.ts";

const QUANTIZED = ["int8", "int4"] as const;

for (const dtype of QUANTIZED) {
  test.each(Object.keys(HARD_NUMBERS))(`${dtype}: every bit of a row is what the plain encoder gives: %s`, (kind) => {
    for (const K of [1, 7, 31, 32, 33, 64, 88, 257, 588, 1408]) {
      const random = new Random(K);
      const rows = [HARD_NUMBERS[kind](random, K), HARD_NUMBERS[kind](random, K)];
      const both = Float32Array.from([...rows[0], ...rows[1]]);
      const words = new Uint32Array((2 * rowBytes(dtype, K)) / 4).fill(0xffff_ffff); // every word must be written
      quantizeRows(both, K, dtype, words);
      const bytes = [...new Uint8Array(words.buffer)];
      expect(bytes, `K = ${K}`).toEqual(rows.flatMap((row) => reference([...row], dtype)));
    }
  });

  test(`${dtype}: bytes of a row`, () => {
    expect([1, 32, 33, 64, 96, 1408, 4096].map((K) => rowBytes(dtype, K))).toEqual(
      dtype === "int8" ? [36, 36, 68, 68, 104, 1496, 4352] : [20, 20, 40, 40, 60, 880, 2560],
    );
  });

  test(`${dtype}: what is lost of normal weights`, () => {
    const K = 4096;
    const weights = new Random(1).normal(64 * K, 0, 0.02);
    const { nmse } = compare(stored(weights, K, dtype), weights, {});
    // Blocks of 32 normal numbers: 2.9e-5, and 9.4e-3 by codes -7 … 7 around 0, than which ours must be better.
    expect(nmse).toBeLessThan(dtype === "int8" ? 3.1e-5 : 6.5e-3);
    expect(nmse).toBeGreaterThan(dtype === "int8" ? 2.7e-5 : 5.5e-3);
  });
}

test("a weight of int8 is at most half a step off, one of int4 half a step and what its least number was rounded by", () => {
  const K = 320;
  const weights = new Random(2).normal(K);
  for (const dtype of QUANTIZED) {
    const kept = stored(weights, K, dtype);
    for (let start = 0; start < K; start += 32) {
      const block = [...weights.subarray(start, start + 32)];
      const [most, least] = [Math.max(...block), Math.min(...block)];
      const step = dtype === "int8" ? Math.max(most, -least) / 127 : (most - least) / 15;
      const rounding = dtype === "int8" ? 0 : Math.abs(least) * 2 ** -8;
      for (let k = start; k < start + 32; k++) {
        expect(Math.abs(kept[k] - weights[k])).toBeLessThanOrEqual(0.505 * step + rounding);
      }
    }
  }
});

/** Numbers as a file has them. */
function encode(numbers: Float32Array, dtype: FloatDType): Uint8Array {
  return new Uint8Array(dtype === "f32" ? numbers.slice().buffer : narrow(numbers, dtype).buffer);
}

for (const dtype of QUANTIZED) {
  test.each([
    ["f32", "host"],
    ["f16", "host"],
    ["bf16", "host"],
    ["f32", "device"],
    ["f16", "device"],
    ["bf16", "device"],
  ] as const)(`${dtype} from %s, in pieces cut anywhere, over shards, by the %s`, async (from, by) => {
    const small = await otherDevice({ max_binding: 1024 });
    let staged = 0;
    const stage = (bytes: Uint8Array) => {
      expect(bytes.byteLength).toBeLessThanOrEqual(1024);
      staged += bytes.byteLength;
      return small.tensor(new Uint32Array(Uint8Array.from(bytes).buffer), [bytes.byteLength / 4]);
    };
    for (const [N, K] of [
      [61, 96],
      [61, 63],
      [7, 588],
      [3, 1],
    ]) {
      const random = new Random(N * K);
      const numbers = stored(random.normal(N * K), K, from);
      const bytes = encode(numbers, from);
      const weight = new Weight(small, [N, K], dtype);
      expect(weight.shards.length).toBe(Math.ceil(N / Math.floor(1024 / rowBytes(dtype, K))));
      for (let at = 0; at < bytes.length; ) {
        const length = Math.min(random.int(0, 700), bytes.length - at);
        // Copied to an odd place of another buffer, as a piece of a file comes, and overwritten after.
        const buffer = Buffer.alloc(length + 1, 0xff);
        buffer.set(bytes.subarray(at, at + length), 1);
        weight.write(at, buffer.subarray(1), from, by === "device" ? stage : undefined);
        buffer.fill(0xff);
        at += length;
      }
      const lies: number[] = [];
      for (const { bits } of weight.shards) lies.push(...new Uint8Array((await bits.read()).buffer));
      const rows = Array.from({ length: N }, (_, n) => reference([...numbers.subarray(n * K, (n + 1) * K)], dtype));
      expect(lies, `[${N}, ${K}]`).toEqual(rows.flat());
      // Of rows of 96 numbers all are whole blocks.
      expect(staged, `[${N}, ${K}]`).toBe(by === "device" ? 61 * 96 * DTYPES[from].bytes : 0);

      // What lies there may be written as it is, from any row on.
      const copy = new Weight(small, [N, K], dtype);
      const [first, rest] = [rows.slice(0, 2).flat(), rows.slice(2).flat()];
      copy.writeRows(2, Uint8Array.from(rest));
      copy.writeRows(0, Uint8Array.from(first));
      const copied: number[] = [];
      for (const { bits } of copy.shards) copied.push(...new Uint8Array((await bits.read()).buffer));
      expect(copied).toEqual(lies);
      expect(() => copy.writeRows(2, Uint8Array.from(lies))).toThrow(/do not fit/);
      weight.dispose();
      copy.dispose();
    }
    small.destroy();
  });
}

test("a row that no binding holds is quantized by the host, be it of whole blocks", async () => {
  const small = await otherDevice({ max_binding: 1024 });
  const numbers = new Random(4).normal(3 * 288); // a row of 1152 bytes
  const weight = new Weight(small, [3, 288], "int8");
  weight.write(0, new Uint8Array(numbers.buffer), "f32", () => expect.unreachable());
  expect([...new Uint8Array((await weight.shards[0].bits.read()).buffer)]).toEqual(
    [0, 1, 2].flatMap((n) => reference(numbers.subarray(n * 288, (n + 1) * 288), "int8")),
  );
  small.destroy();
});

test("a matrix written in many slices is that written in one", async () => {
  const device = await testDevice();
  const [N, K] = [700, 1000]; // 2.8 MB of f32: three slices
  const numbers = new Random(3).normal(N * K);
  const weight = Weight.from(device, numbers, [N, K], "int4");
  const words = new Uint32Array((N * rowBytes("int4", K)) / 4);
  quantizeRows(numbers, K, "int4", words);
  expect(Buffer.from((await weight.shards[0].bits.read()).buffer).equals(Buffer.from(words.buffer))).toBe(true);
  weight.dispose();
});

test("narrow rounds as numberToF16 and numberToBf16", () => {
  const words = new Uint32Array(200_000);
  const random = new Random(4);
  for (let i = 0; i < words.length; i++) words[i] = random.int(0, 2 ** 32);
  // Around every exponent of f16 and its subnormals, and what lies between two of its values.
  for (let i = 0; i < 65_536; i++) words[i] = (i % 2) * 0x8000_0000 + 0x3280_0000 + i * 0x1800 + (i % 3) - 1;
  const numbers = new Float32Array(words.buffer);
  numbers.set(
    [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 65_519.996, 65_520, 2 ** -25],
    65_536,
  );
  for (const [dtype, one] of [
    ["f16", numberToF16],
    ["bf16", numberToBf16],
  ] as const) {
    // biome-ignore format: a table
    const narrowed = narrow(numbers, dtype);
    let wrong = 0;
    for (let i = 0; i < numbers.length; i++) if (narrowed[i] !== one(numbers[i])) wrong++;
    expect(wrong, dtype).toBe(0);
  }
});
