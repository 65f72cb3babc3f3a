/**
 * A row as int8 or int4 codes in blocks of 32 numbers; tensor/quantize.ts describes them and the layout. All numbers here are
 * exact in f64 except quotients, and no quotient is so near to a rounding boundary that its error matters.
 */
export interface Block {
  /** 32 of them; 0 behind the row's end */
  readonly codes: readonly number[];
  /** bf16 bits */
  readonly scale: number;
  readonly min: number;
}

const BLOCK = 32;
const TINY = 2 ** -100;
const NOT_A_NUMBER = 0x7fc0;

/** A row's bytes on the device, spelled out one by one. */
export function quantize(row: ArrayLike<number>, dtype: "int8" | "int4"): number[] {
  const bytes: number[] = [];
  const blocks = blocksOf(row, dtype);
  for (const { codes } of blocks) {
    if (dtype === "int8") bytes.push(...codes.map((code) => code & 0xff));
    else {
      for (let i = 0; i < BLOCK; i += 8) {
        for (let j = i; j < i + 4; j++) bytes.push(codes[j]! + 16 * codes[j + 4]!);
      }
    }
  }
  for (const { scale, min } of blocks) {
    bytes.push(scale & 0xff, scale >> 8);
    if (dtype === "int4") bytes.push(min & 0xff, min >> 8);
  }
  while (bytes.length % 4) bytes.push(0);
  return bytes;
}

/** The blocks of a row. */
export function blocksOf(row: ArrayLike<number>, dtype: "int8" | "int4"): Block[] {
  const numbers = Array.from(row);
  return Array.from({ length: Math.ceil(numbers.length / BLOCK) }, (_, b) =>
    encodeBlock(numbers.slice(b * BLOCK, (b + 1) * BLOCK), dtype),
  );
}

function encodeBlock(numbers: readonly number[], dtype: "int8" | "int4"): Block {
  const none = new Array<number>(BLOCK).fill(0);
  const isInt4 = dtype === "int4";
  const wrong = { codes: none, scale: isInt4 ? 0 : NOT_A_NUMBER, min: NOT_A_NUMBER };
  if (!numbers.every(Number.isFinite)) return wrong;
  const near = isInt4 ? withoutFar(numbers) : numbers;
  const min = isInt4 ? bf16(Math.min(...near)) : 0;
  if (!Number.isFinite(bf16Value(min))) return wrong;
  const range = isInt4 ? Math.max(...near) - bf16Value(min) : Math.max(...near.map(Math.abs));
  if (range < TINY) return { codes: none, scale: 0, min };
  const scale = bf16(Math.fround(range / (isInt4 ? 15 : 127)));
  const [low, high] = isInt4 ? [0, 15] : [-127, 127];
  const codes = none.map((zero, i) => {
    const number = near[i];
    if (number === undefined) return zero;
    const code = Math.floor((number - bf16Value(min)) / bf16Value(scale) + 0.5);
    return Math.min(high, Math.max(low, code));
  });
  return { codes, scale, min };
}

/** Replaces subnormal numbers, and those more than 28 powers of two below the largest |w|, by zero. */
function withoutFar(numbers: readonly number[]): number[] {
  const largest = Math.max(...numbers.map(Math.abs));
  let power = 2 ** -126;
  while (power * 2 ** 29 <= largest) power *= 2;
  return numbers.map((number) => (Math.abs(number) < power ? 0 : number));
}

/** A number's bf16 bits, to nearest, ties to even. */
function bf16(value: number): number {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  const [lower, rest] = [bits >>> 16, bits & 0xffff];
  return rest > 0x8000 || (rest === 0x8000 && lower % 2 === 1) ? lower + 1 : lower;
}

function bf16Value(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}

const word = new DataView(new ArrayBuffer(4));
