/**
 * The numbers that a weight of any dtype represents: a second, readable implementation of src/tensor/quantize.ts, block by
 * block and without packing, and the decoder.
 */
import { bf16ToNumber, f16ToNumber, numberToBf16, numberToF16, type WeightDType } from "../../dtype.ts";

/** Numbers that share a scale. */
export const BLOCK = 32;

interface Block {
  /** 32 of them; 0 behind the row's end */
  readonly codes: readonly number[];
  /** bf16 bits */
  readonly scale: number;
  readonly min: number;
}

/** Encodes up to 32 numbers as a block. */
function encodeBlock(numbers: readonly number[], dtype: "int8" | "int4"): Block {
  const none = new Array<number>(BLOCK).fill(0);
  if (!numbers.every(Number.isFinite)) return { codes: none, scale: dtype === "int8" ? 0x7fc0 : 0, min: 0x7fc0 };
  const min = dtype === "int8" ? 0 : numberToBf16(Math.min(...numbers));
  const range = dtype === "int8" ? Math.max(...numbers.map(Math.abs)) : Math.max(...numbers) - bf16ToNumber(min);
  if (range <= 2 ** -100) return { codes: none, scale: 0, min };
  const scale = numberToBf16(Math.fround(range / (dtype === "int8" ? 127 : 15)));
  const [low, high] = dtype === "int8" ? [-127, 127] : [0, 15];
  const codes = none.map((zero, i) => {
    const number = numbers[i];
    if (number === undefined) return zero;
    const code = Math.floor((number - bf16ToNumber(min)) / bf16ToNumber(scale) + 0.5);
    return Math.min(high, Math.max(low, code));
  });
  return { codes, scale, min };
}

/** The blocks of a row. */
export function blocksOf(row: readonly number[], dtype: "int8" | "int4"): Block[] {
  return Array.from({ length: Math.ceil(row.length / BLOCK) }, (_, b) =>
    encodeBlock(row.slice(b * BLOCK, (b + 1) * BLOCK), dtype),
  );
}

/** The numbers of a matrix [N, K] after a round trip through `dtype`; exact in f32. */
export function stored(numbers: Float32Array, K: number, dtype: WeightDType): Float32Array {
  if (dtype === "f32") return numbers;
  if (dtype === "f16") return numbers.map((w) => f16ToNumber(numberToF16(w)));
  if (dtype === "bf16") return numbers.map((w) => bf16ToNumber(numberToBf16(w)));
  const result = new Float32Array(numbers.length);
  for (let start = 0; start < numbers.length; start += K) {
    const row = blocksOf([...numbers.subarray(start, start + K)], dtype).flatMap(({ codes, scale, min }) =>
      codes.map((code) => bf16ToNumber(scale) * code + (dtype === "int4" ? bf16ToNumber(min) : 0)),
    );
    result.set(row.slice(0, K), start);
  }
  return result;
}
