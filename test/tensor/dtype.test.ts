import { expect, test } from "vitest";
import {
  bf16ToNumber,
  DTYPES,
  FROM_SAFETENSORS,
  f16ToNumber,
  numberToBf16,
  numberToF16,
  widen,
} from "../../src/tensor/dtype.ts";

/** The layout of 16-bit floats, and conversion of NaN. */
const HALVES = [
  { name: "f16", read: f16ToNumber, write: numberToF16, infinity: 0x7c00, nan: 0x7e00 },
  { name: "bf16", read: bf16ToNumber, write: numberToBf16, infinity: 0x7f80, nan: 0x7fc0 },
] as const;

for (const { name, read, write, infinity, nan } of HALVES) {
  test(`all 65,536 values of ${name} come back as they were`, () => {
    let wrong = 0;
    for (let bits = 0; bits < 65_536; bits++) {
      const none = (bits & 0x7fff) > infinity;
      if (Number.isNaN(read(bits)) !== none || write(read(bits)) !== (none ? nan : bits)) wrong++;
    }
    expect(wrong).toBe(0);
  });

  test(`${name}: every number between two values goes to the nearest, a tie to the even one`, () => {
    let wrong = 0;
    for (let bits = 0; bits < infinity; bits++) {
      const low = read(bits);
      // The next after the largest finite value would be 2 ** 16, or 2 ** 128.
      const high = bits + 1 === infinity ? low + (low - read(bits - 1)) : read(bits + 1);
      const middle = (low + high) / 2; // exact, also as f32
      const step = Math.max(middle * 2 ** -20, 2 ** -149); // what f32 still resolves
      for (const sign of [1, -1]) {
        const top = sign < 0 ? 0x8000 : 0;
        if (write(sign * middle) !== (top | (bits % 2 === 0 ? bits : bits + 1))) wrong++;
        if (bits > 0 && write(sign * (middle - step)) !== (top | bits)) wrong++;
        if (bits > 0 && write(sign * (middle + step)) !== (top | (bits + 1))) wrong++;
      }
    }
    expect(wrong).toBe(0);
  });
}

test("some f16 and bf16 by hand", () => {
  expect([0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x7c00].map(f16ToNumber)).toEqual([
    1,
    -2,
    65_504,
    2 ** -14,
    2 ** -24,
    Number.POSITIVE_INFINITY,
  ]);
  expect([0x3f80, 0xc000, 0x7f7f, 0x0080, 0x0001].map(bf16ToNumber)).toEqual([
    1,
    -2,
    (2 - 2 ** -7) * 2 ** 127,
    2 ** -126,
    2 ** -133,
  ]);
  expect([65_519.99, 65_520, -65_520, 1e-9, -0].map(numberToF16)).toEqual([0x7bff, 0x7c00, 0xfc00, 0, 0x8000]);
  expect(numberToBf16(3.4028234663852886e38)).toBe(0x7f80);
});

test.each(["f32", "f16", "bf16"] as const)(
  "widen reads %s bytes wherever they begin, also in a Node Buffer",
  (dtype) => {
    const one = { f32: [0, 0, 128, 63], f16: [0, 60], bf16: [128, 63] }[dtype];
    for (const begin of [0, 1, 2, 3, 4]) {
      const bytes = Uint8Array.from([...new Array(begin).fill(9), ...one, ...one]);
      expect([...widen(bytes.subarray(begin), dtype)]).toEqual([1, 1]);
      expect([...widen(Buffer.from(bytes).subarray(begin), dtype)]).toEqual([1, 1]);
    }
  },
);

test("the table agrees with JavaScript's arrays and with itself", () => {
  for (const [name, { bytes, array, safetensors }] of Object.entries(DTYPES)) {
    expect(array.BYTES_PER_ELEMENT, name).toBe(bytes);
    expect(FROM_SAFETENSORS.get(safetensors)).toBe(name);
  }
  expect(FROM_SAFETENSORS.size).toBe(Object.keys(DTYPES).length);
});
