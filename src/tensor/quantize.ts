/**
 * Block-wise quantization of weights to int8 and int4: the memory layout of a matrix [N, K], and the encoding from f32. Rows are
 * split into blocks of 32 numbers, the last padded with codes of 0. Each block has its own scale:
 *
 *   int8  w = scale · code        code -127 … 127, scale bf16                      8.5 bits a weight
 *   int4  w = scale · code + min  code 0 … 15, scale and min (the least w) bf16    5 bits a weight
 *
 * A row is its codes, then its scales, so that rows are streamed, sharded and uploaded as those of other dtypes:
 *
 *   int8  u32 codes[8 · blocks]: four in a word, lowest byte first      u32 scales[blocks / 2]: two in a word
 *   int4  u32 codes[4 · blocks]: four in the low 4 bits of the bytes,   u32 scales[blocks]: scale, min
 *         the next four in the high 4 bits
 *
 * Scales are bf16, which has f32's range: in f16 the scale of small weights would be subnormal.
 * int4 has a minimum (a zero point, as a float), which costs half a bit a weight and reduces the error: Σ(w-q)²/Σw² is 6.1e-3 on
 * normal weights, and 7.4e-3 with codes -8 … 7 around 0; on weights with longer tails 8.4e-3 instead of 11.5e-3.
 * The loaders are kernels/lib/weight_int8.wgsl and weight_int4.wgsl. kernels/rows/quantize.wgsl quantizes whole blocks on the
 * device, with the same bits as the functions here.
 */
import { DTYPES, type WeightDType } from "./dtype.ts";

export type QuantizedDType = "int8" | "int4";

/** Numbers in a block. */
export const BLOCK = 32;
/** Blocks whose range is below this are treated as zeros: their scales would be subnormal. */
const TINY = 2 ** -100;
/**
 * In int4, numbers more than so many powers of two below the block's largest |w|, and subnormal numbers, are treated as zero.
 * Differences are then exact in f64, and the codes are those of exact arithmetic, which the kernel computes too.
 */
const FAR = 28;
const NAN_BF16 = 0x7fc0;
const INFINITE_BF16 = 0x7f80;

export function isQuantized(dtype: WeightDType): dtype is QuantizedDType {
  return dtype === "int8" || dtype === "int4";
}

/** Bytes of a row of K numbers on the device. */
export function rowBytes(dtype: WeightDType, K: number): number {
  if (!isQuantized(dtype)) return Math.ceil(K / 4) * 4 * DTYPES[dtype].bytes;
  const blocks = Math.ceil(K / BLOCK);
  return dtype === "int8" ? blocks * 32 + Math.ceil(blocks / 2) * 4 : blocks * 20;
}

/**
 * Quantizes whole rows of K numbers. A block with a NaN or an infinity becomes NaN, so that damage is not hidden.
 *
 * @param into room for rows.length / K rows of {@link rowBytes}; every word of it is written
 */
export function quantizeRows(rows: Float32Array, K: number, dtype: QuantizedDType, into: Uint32Array): void {
  const encode = { int8: encodeInt8, int4: encodeInt4 }[dtype];
  const words = rowBytes(dtype, K) / 4;
  for (let start = 0, to = 0; start < rows.length; start += K, to += words) encode(rows, start, K, into, to);
}

/** One row, from rows[start] to into[to]. */
function encodeInt8(rows: Float32Array, start: number, K: number, into: Uint32Array, to: number): void {
  const blocks = Math.ceil(K / BLOCK);
  const scales = to + blocks * 8;
  into.fill(0, scales, scales + Math.ceil(blocks / 2));
  for (let block = 0; block < blocks; block++) {
    const first = start + block * BLOCK;
    const end = Math.min(first + BLOCK, start + K);
    let most = 0;
    let poison = 0; // NaN once a number was not finite
    for (let k = first; k < end; k++) {
      const size = Math.abs(rows[k]!);
      if (size > most) most = size;
      poison += size * 0;
    }
    let scaleBits = poison === 0 ? toBf16(most / 127) : NAN_BF16;
    float[0] = 0;
    if (most >= TINY) word[0] = scaleBits << 16;
    else if (poison === 0) scaleBits = 0;
    const scale = float[0]!;
    into[scales + (block >> 1)]! |= scaleBits << (16 * (block & 1));
    const at = to + block * 8;
    if (!(scale > 0)) {
      into.fill(0, at, at + 8);
      continue;
    }
    for (let i = 0; i < 8; i++) {
      let codes = 0;
      const from = first + 4 * i;
      const count = Math.min(4, end - from);
      // The scale was rounded by at most 2⁻⁹ of itself, which no code of 127 notices: nothing needs clamping.
      for (let j = 0; j < count; j++) codes |= (Math.floor(rows[from + j]! / scale + 0.5) & 0xff) << (8 * j);
      into[at + i] = codes;
    }
  }
}

/** One row, from rows[start] to into[to]. */
function encodeInt4(rows: Float32Array, start: number, K: number, into: Uint32Array, to: number): void {
  const blocks = Math.ceil(K / BLOCK);
  const scales = to + blocks * 4;
  for (let block = 0; block < blocks; block++) {
    const first = start + block * BLOCK;
    const end = Math.min(first + BLOCK, start + K);
    let smallest = Number.POSITIVE_INFINITY;
    let most = Number.NEGATIVE_INFINITY;
    let poison = 0;
    for (let k = first; k < end; k++) {
      const w = rows[k]!;
      if (w < smallest) smallest = w;
      if (w > most) most = w;
      poison += w * 0;
    }
    float[0] = Math.max(-smallest, most);
    word[0] = (Math.max(word[0]! >>> 23, FAR + 1) - FAR) << 23;
    const far = float[0]!;
    if (Math.abs(smallest) < far) smallest = 0;
    if (Math.abs(most) < far) most = 0;
    let minBits = poison === 0 ? toBf16(smallest) : NAN_BF16;
    if ((minBits & INFINITE_BF16) === INFINITE_BF16) minBits = NAN_BF16;
    word[0] = minBits << 16;
    const min = float[0]!;
    const range = most - min;
    const scaleBits = range >= TINY ? toBf16(range / 15) : 0;
    into[scales + block] = (scaleBits | (minBits << 16)) >>> 0;
    const at = to + block * 4;
    if (scaleBits === 0) {
      into.fill(0, at, at + 4);
      continue;
    }
    word[0] = scaleBits << 16;
    const scale = float[0]!;
    for (let i = 0; i < 4; i++) {
      let codes = 0;
      const from = first + 8 * i;
      const count = Math.min(8, end - from);
      for (let j = 0; j < count; j++) {
        const w = rows[from + j]!;
        const code = Math.floor(((Math.abs(w) < far ? 0 : w) - min) / scale + 0.5);
        codes |= (code < 0 ? 0 : code > 15 ? 15 : code) << (8 * (j & 3) + (j & 4));
      }
      into[at + i] = codes;
    }
  }
}

/** A finite number's bf16 bits, to nearest, ties to even. */
function toBf16(value: number): number {
  float[0] = value;
  const bits = word[0]!;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);
