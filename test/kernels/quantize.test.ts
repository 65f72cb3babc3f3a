/** Quantizing on the device gives the same bits as on the host, for any numbers. */
import { describe, expect, test } from "vitest";
import { HARD_NUMBERS } from "../../src/tensor/cases/support/hard_numbers.ts";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { type FloatDType, narrow, widen } from "../../src/tensor/dtype.ts";
import { quantize } from "../../src/tensor/ops/quantize.ts";
import { quantizeRows, rowBytes } from "../../src/tensor/quantize.ts";
import { quantize as reference } from "../../src/tensor/reference/quantize.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const FROM = ["f32", "f16", "bf16"] as const;
const TO = ["int8", "int4"] as const;

/** Numbers as a file has them, and as they are then. */
function inFile(numbers: Float32Array, from: FloatDType) {
  const bytes = new Uint8Array((from === "f32" ? numbers.slice() : narrow(numbers, from)).buffer);
  return { bytes, numbers: widen(bytes, from) };
}

function words(bytes: Uint8Array): Uint32Array {
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return new Uint32Array(padded.buffer);
}

/** The kernel's words of whole rows. */
async function onDevice(bytes: Uint8Array, K: number, from: FloatDType, to: "int8" | "int4", on = device) {
  const size = from === "f32" ? 4 : 2;
  const rows = bytes.length / size / K;
  return on.scope(async () => {
    const y = on.empty([rows, rowBytes(to, K) / 4], "u32");
    const x = words(bytes);
    return quantize(on.tensor(x, [x.length]), y, { from, to, K, rows }).read();
  });
}

function onHost(numbers: Float32Array, K: number, to: "int8" | "int4"): Uint32Array {
  const into = new Uint32Array(((numbers.length / K) * rowBytes(to, K)) / 4);
  quantizeRows(numbers, K, to, into);
  return into;
}

/** Compares without a matcher, which takes too long for millions of words. */
function expectWords(actual: Uint32Array, expected: Uint32Array, label: string): void {
  const wrong = actual.findIndex((word, i) => word !== expected[i]);
  const hex = (word?: number) => word?.toString(16);
  expect(wrong < 0 ? "equal" : `${wrong}: ${hex(actual[wrong])}, not ${hex(expected[wrong])}`, label).toBe("equal");
  expect(actual.length).toBe(expected.length);
}

describe.each(FROM)("from %s", (from) => {
  describe.each(TO)("to %s", (to) => {
    test.each(Object.keys(HARD_NUMBERS))("numbers that are hard: %s", async (kind) => {
      for (const K of [32, 64, 96, 1376]) {
        const random = new Random(K);
        const rows = Array.from({ length: 3 }, () => [...HARD_NUMBERS[kind](random, K)]);
        const { bytes, numbers } = inFile(Float32Array.from(rows.flat()), from);
        const expected = Array.from({ length: 3 }, (_, n) => reference(numbers.subarray(n * K, (n + 1) * K), to));
        const actual = await onDevice(bytes, K, from, to);
        expectWords(actual, new Uint32Array(Uint8Array.from(expected.flat()).buffer), `K = ${K}`);
        expectWords(onHost(numbers, K, to), actual, `the host, K = ${K}`);
      }
    });

    test("random bits, in blocks whose sizes lie more and more apart", async () => {
      const random = new Random(7);
      const K = 64;
      const bits = new Uint32Array(3000 * K);
      for (let i = 0; i < bits.length; i++) {
        const spread = (i / K) % 40;
        const field = Math.max(0, Math.min(254, 127 + random.int(-spread, spread + 1) - Math.floor(i / K / 40)));
        bits[i] = random.int(0, 2) * 2 ** 31 + field * 2 ** 23 + random.int(0, 2 ** 23);
      }
      const { bytes, numbers } = inFile(new Float32Array(bits.buffer), from);
      expectWords(await onDevice(bytes, K, from, to), onHost(numbers, K, to), "random bits");
    });

    test("few bits, so that numbers lie on the edges between codes", async () => {
      const random = new Random(8);
      const K = 32;
      const numbers = new Float32Array(6000 * K);
      for (let i = 0; i < numbers.length; i += K) {
        const most = 2 ** random.int(1, 8);
        const shift = random.int(-most, most + 1);
        const power = 2 ** random.int(-12, 4);
        for (let k = 0; k < K; k++) numbers[i + k] = (random.int(-most, most + 1) + shift) * power;
      }
      const file = inFile(numbers, from);
      expectWords(await onDevice(file.bytes, K, from, to), onHost(file.numbers, K, to), "few bits");
    });
  });
});

test.each(TO)("%s: ranges whose scale lies next to where it is rounded another way, to f32 or to bf16", async (to) => {
  const K = 32;
  const [divisor, ulp] = [to === "int8" ? 127 : 15, 2 ** -16];
  const random = new Random(9);
  const blocks: number[][] = [];
  const block = (max: number, min: number) =>
    blocks.push([max, min, ...new Array<number>(K - 2).fill(max)].map((number) => number * 2 ** -9));
  for (let code = 128; code < 256; code++) {
    for (const off of [-ulp, -ulp / 2, 0, ulp / 2, ulp]) {
      const range = (code + 0.5 + off) * divisor;
      for (let turn = 0; turn < 24; turn++) {
        const near = range + (turn < 3 ? turn - 1 : random.int(-4, 5)) * 2 ** -random.int(9, 34);
        // max - min, cut behind 24 bits of the larger, behind 8, and with both of one sign.
        const [most, high] = [24, 8].map((bits) => topBits(near, bits));
        block(most, most - near);
        block(near - high, -high);
        block(most + 2 ** -12, most + 2 ** -12 - near);
      }
    }
  }
  const { bytes, numbers } = inFile(Float32Array.from(blocks.flat()), "f32");
  expectWords(await onDevice(bytes, K, "f32", to), onHost(numbers, K, to), to);
});

/** The first bits of a positive number, as many as given. */
function topBits(number: number, bits: number): number {
  const unit = 2 ** (Math.floor(Math.log2(number)) + 1 - bits);
  return Math.floor(number / unit) * unit;
}

test("rows go where they are to go, and nowhere else; what follows them in x is not read", async () => {
  const [K, from] = [96, "f16"] as const;
  for (const to of TO) {
    const { bytes, numbers } = inFile(new Random(1).normal(5 * K), from);
    const width = rowBytes(to, K) / 4;
    const y = device.tensor(new Uint32Array(9 * width).fill(7), [9, width]);
    const x = words(bytes);
    quantize(device.tensor(x, [x.length]), y, { from, to, K, rows: 3, firstRow: 4 });
    const expected = new Uint32Array(9 * width).fill(7);
    expected.set(onHost(numbers.subarray(0, 3 * K), K, to), 4 * width);
    expectWords(await y.read(), expected, to);
    y.dispose();
  }
});

test("a folded grid reaches every row", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const { bytes, numbers } = inFile(new Random(2).normal(517 * 32), "bf16");
  expectWords(await onDevice(bytes, 32, "bf16", "int4", folded), onHost(numbers, 32, "int4"), "folded");
});

test("what does not fit is refused", () => {
  const x = device.tensor(new Uint32Array(96), [96]);
  const y = device.empty([2, 34], "u32");
  const shape = { from: "f32", to: "int8", K: 96, rows: 1 } as const;
  expect(() => quantize(x, y, { ...shape, K: 95 })).toThrow(/whole blocks/);
  for (const wrong of [{ rows: 2 }, { firstRow: 2 }, { to: "int4" as const }]) {
    expect(() => quantize(x, y, { ...shape, ...wrong }), JSON.stringify(wrong)).toThrow(/quantize: /);
  }
});
