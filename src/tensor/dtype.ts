/**
 * The dtypes, in one table: on disk (safetensors' names), in JavaScript and on the GPU. Everything else about a
 * dtype is derived from this table.
 */

/** One row of the table. `array` is the host's typed array; `f16` and `bf16` have no JavaScript type and stay bits. */
interface DTypeInfo {
  readonly bytes: number;
  readonly safetensors: string;
  readonly array:
    | typeof Float32Array
    | typeof Float64Array
    | typeof Uint32Array
    | typeof Int32Array
    | typeof Uint16Array
    | typeof Int16Array
    | typeof Uint8Array
    | typeof Int8Array
    | typeof BigInt64Array
    | typeof BigUint64Array;
}

export const DTYPES = {
  f64: { bytes: 8, safetensors: "F64", array: Float64Array },
  f32: { bytes: 4, safetensors: "F32", array: Float32Array },
  f16: { bytes: 2, safetensors: "F16", array: Uint16Array },
  bf16: { bytes: 2, safetensors: "BF16", array: Uint16Array },
  i64: { bytes: 8, safetensors: "I64", array: BigInt64Array },
  u64: { bytes: 8, safetensors: "U64", array: BigUint64Array },
  i32: { bytes: 4, safetensors: "I32", array: Int32Array },
  u32: { bytes: 4, safetensors: "U32", array: Uint32Array },
  i16: { bytes: 2, safetensors: "I16", array: Int16Array },
  u16: { bytes: 2, safetensors: "U16", array: Uint16Array },
  i8: { bytes: 1, safetensors: "I8", array: Int8Array },
  u8: { bytes: 1, safetensors: "U8", array: Uint8Array },
  bool: { bytes: 1, safetensors: "BOOL", array: Uint8Array },
} as const satisfies Record<string, DTypeInfo>;

/** All dtypes that a file may have. */
export type DType = keyof typeof DTYPES;

/** Number types of activations on the GPU: f32, and u32 for token ids, masks and positions. */
export type ActivationDType = "f32" | "u32";

/** Number types of a weight in a file. */
export type FloatDType = "f32" | "f16" | "bf16";

/** Number types of a weight on the GPU; a dequantizing loader widens it to f32. See quantize.ts for the integers. */
export type WeightDType = FloatDType | "int8" | "int4";

/** What the numbers of a matrix product may be when they are multiplied; sums are f32. */
export const COMPUTE_DTYPES = ["f32", "f16"] as const;
export type ComputeDType = (typeof COMPUTE_DTYPES)[number];

/** safetensors' name of a dtype to ours: `"BF16"` -> `"bf16"`. */
export const FROM_SAFETENSORS: ReadonlyMap<string, DType> = new Map(
  (Object.keys(DTYPES) as DType[]).map((name) => [DTYPES[name].safetensors, name]),
);

/** bf16 bits -> number. bf16 is the upper half of an f32. */
export function bf16ToNumber(bits: number): number {
  word[0] = bits << 16;
  return float[0]!;
}

/** f16 bits -> number, exactly (every f16 is an f32), subnormals and infinities included. */
export function f16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** number -> f16 bits, rounding to nearest, ties to even; overflow gives infinity. */
export function numberToF16(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | roundEven(magnitude * 2 ** 24); // subnormal; 1024 carries into the exponent
  const exponent = Math.floor(Math.log2(magnitude));
  // log2 may round up just below a power of two: the mantissa decides.
  const e = magnitude < 2 ** exponent ? exponent - 1 : exponent;
  return sign | (((e + 15) << 10) + roundEven((magnitude / 2 ** e - 1) * 1024));
}

/** number -> bf16 bits, rounding to nearest, ties to even. */
export function numberToBf16(value: number): number {
  if (Number.isNaN(value)) return 0x7fc0;
  float[0] = value;
  const bits = word[0]!;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Widens raw little-endian f32, f16 or bf16 bytes, exactly. `into`, if given, must have room for them. */
export function widen(
  bytes: Uint8Array,
  dtype: FloatDType,
  into = new Float32Array(bytes.byteLength / DTYPES[dtype].bytes),
): Float32Array {
  // Not slice(): that of a Node Buffer copies nothing.
  const aligned = bytes.byteOffset % DTYPES[dtype].bytes === 0 ? bytes : new Uint8Array(bytes);
  if (dtype === "f32") {
    into.set(new Float32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 4));
    return into;
  }
  const bits = new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2);
  if (dtype === "bf16") {
    const words = new Uint32Array(into.buffer, into.byteOffset, bits.length);
    for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
    return into;
  }
  f16Values ??= Float32Array.from({ length: 65_536 }, (_, value) => f16ToNumber(value));
  for (let i = 0; i < bits.length; i++) into[i] = f16Values[bits[i]!]!;
  return into;
}

/** Narrows f32 to f16 or bf16 bits, to nearest, ties to even: {@link numberToF16} and {@link numberToBf16} for many. */
export function narrow(numbers: Float32Array, dtype: "f16" | "bf16", into = new Uint16Array(numbers.length)) {
  const words = new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
  for (let i = 0; i < words.length; i++) {
    const bits = words[i]!;
    const magnitude = bits & 0x7fff_ffff;
    if (dtype === "bf16") {
      into[i] = magnitude > 0x7f80_0000 ? 0x7fc0 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
    } else {
      const sign = (bits >>> 16) & 0x8000;
      if (magnitude > 0x7f80_0000) into[i] = 0x7e00;
      else if (magnitude >= 0x4780_0000) into[i] = sign | 0x7c00;
      // 2⁻¹⁴ and more: another bias for the exponent, and a carry may run from the fraction into it, up to infinity.
      else if (magnitude >= 0x3880_0000)
        into[i] = sign | ((magnitude - 0x3800_0000 + 0xfff + ((bits >>> 13) & 1)) >>> 13);
      else into[i] = sign | roundEven(Math.abs(numbers[i]!) * 2 ** 24);
    }
  }
  return into;
}

/** A table of every f16 by its bits: several times faster than computing. Made when first needed. */
let f16Values: Float32Array | undefined;

function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);
