/** The numbers that a weight of any dtype represents. */
import { bf16ToNumber, f16ToNumber, numberToBf16, numberToF16, type WeightDType } from "../../dtype.ts";
import { blocksOf } from "../../reference/quantize.ts";

/** The numbers of a matrix [N, K] after a round trip through `dtype`; exact in f32. */
export function stored(numbers: Float32Array, K: number, dtype: WeightDType): Float32Array {
  if (dtype === "f32") return numbers;
  if (dtype === "f16") return numbers.map((w) => f16ToNumber(numberToF16(w)));
  if (dtype === "bf16") return numbers.map((w) => bf16ToNumber(numberToBf16(w)));
  const result = new Float32Array(numbers.length);
  for (let start = 0; start < numbers.length; start += K) {
    const row = blocksOf(numbers.subarray(start, start + K), dtype).flatMap(({ codes, scale, min }) =>
      codes.map((code) => bf16ToNumber(scale) * code + (dtype === "int4" ? bf16ToNumber(min) : 0)),
    );
    result.set(row.slice(0, K), start);
  }
  return result;
}
