/**
 * Data of cases: random weights of any size that are cheap to make, and samples of rows, the first and the last always among
 * them, so that large results are checked in little time.
 */
import type { Device } from "../../device/device.ts";
import {
  type ComputeDType,
  DTYPES,
  type FloatDType,
  numberToBf16,
  numberToF16,
  type WeightDType,
} from "../../dtype.ts";
import { isQuantized, type QuantizedDType, quantizeRows, rowBytes } from "../../quantize.ts";
import { Weight } from "../../weight.ts";
import { Random } from "./random.ts";
import { stored } from "./stored.ts";

/** Bytes that are made and written at a time. */
const PIECE = 16 * 2 ** 20;
/** Size of the block that weights repeat. Prime, so that no two rows begin at the same number. */
const BLOCK = 1_000_003;

/**
 * Random multiples of 1/4096 in (-1/32, 1/32), a typical magnitude of weights: exact in f32, f16 and bf16, so that every
 * dtype computes with the same numbers.
 */
let block: Float32Array | undefined;
const blocks = new Map<FloatDType, Uint8Array>();

/** The block as bytes of a dtype. */
function blockBytes(dtype: FloatDType): Uint8Array {
  let bytes = blocks.get(dtype);
  if (!bytes) {
    const random = new Random(1);
    block ??= Float32Array.from({ length: BLOCK }, () => random.int(-127, 128) / 4096);
    const bits = dtype === "f32" ? block : Uint16Array.from(block, dtype === "f16" ? numberToF16 : numberToBf16);
    bytes = new Uint8Array(bits.buffer);
    blocks.set(dtype, bytes);
  }
  return bytes;
}

/** Fills `into` with the numbers `first`, `first + 1`, … of an endless random sequence, as bytes of a dtype. */
export function fillRandom(into: Uint8Array, first: number, dtype: FloatDType): void {
  const bytes = blockBytes(dtype);
  let at = (first % BLOCK) * DTYPES[dtype].bytes;
  for (let done = 0; done < into.length; ) {
    const part = bytes.subarray(at, at + into.length - done);
    into.set(part, done);
    done += part.length;
    at = 0;
  }
}

/** Fills `into` as fillRandom does, for a parameter of that name: norm weights are around 1, all others around 0. */
export function fillParameter(into: Uint8Array, name: string, first: number, dtype: FloatDType): void {
  if (!/norm\d?\.weight$/i.test(name)) {
    fillRandom(into, first, dtype);
    return;
  }
  const numbers = randomNumbers(into.length / DTYPES[dtype].bytes, first).map((x) => 1 + 8 * x);
  const narrowed = { f16: numberToF16, bf16: numberToBf16 };
  const bits = dtype === "f32" ? numbers : Uint16Array.from(numbers, narrowed[dtype]);
  into.set(new Uint8Array(bits.buffer));
}

/** Numbers `first` … of the same sequence, as f32. */
export function randomNumbers(n: number, first = 0): Float32Array {
  const numbers = new Float32Array(n);
  fillRandom(new Uint8Array(numbers.buffer), first, "f32");
  return numbers;
}

/** Rows of quantized weights, by sizes and dtype: to quantize them takes longer than all else that makes a case. */
export type QuantizedRows = Map<string, Uint8Array>;

/**
 * A weight [N, K] of random numbers; row n holds the sequence from n·K on.
 *
 * @param quantized keeps its rows for the next weight like it
 */
export function randomWeight(
  device: Device,
  [N, K]: readonly [number, number],
  dtype: WeightDType,
  paired = false,
  compute_dtype: ComputeDType = "f32",
  quantized: QuantizedRows = new Map(),
): Weight {
  const weight = new Weight(device, [N, K], dtype, { paired, compute_dtype });
  if (isQuantized(dtype)) {
    const bytes = quantizedRows([N, K], dtype, quantized);
    const most = Math.max(1, Math.floor(PIECE / weight.rowBytes));
    for (let n = 0; n < N; n += most) {
      weight.writeRows(n, bytes.subarray(n * weight.rowBytes, Math.min(n + most, N) * weight.rowBytes));
    }
    return weight;
  }
  const size = DTYPES[dtype].bytes;
  const rows = Math.max(1, Math.floor(PIECE / (K * size)));
  const bytes = new Uint8Array(rows * K * size);
  for (let n = 0; n < N; n += rows) {
    const part = bytes.subarray(0, Math.min(rows, N - n) * K * size);
    fillRandom(part, n * K, dtype);
    weight.write(n * K * size, part, dtype);
  }
  return weight;
}

function quantizedRows([N, K]: readonly [number, number], dtype: QuantizedDType, kept: QuantizedRows): Uint8Array {
  const key = `${N} ${K} ${dtype}`;
  let bytes = kept.get(key);
  if (!bytes) {
    const words = rowBytes(dtype, K) / 4;
    const encoded = new Uint32Array(N * words);
    const rows = Math.max(1, Math.floor(PIECE / (4 * K)));
    for (let n = 0; n < N; n += rows) {
      const numbers = randomNumbers(Math.min(rows, N - n) * K, n * K);
      quantizeRows(numbers, K, dtype, encoded.subarray(n * words));
    }
    bytes = new Uint8Array(encoded.buffer);
    kept.set(key, bytes);
  }
  return bytes;
}

/** Row n of such a weight, as it is stored. */
export function storedRow(n: number, K: number, dtype: WeightDType): Float32Array {
  return stored(randomNumbers(K, n * K), K, dtype);
}

/** Up to `count` different rows of R in ascending order, the first and the last always, the others at random. */
export function sampleRows(R: number, count = 16): number[] {
  if (R <= count) return Array.from({ length: R }, (_, row) => row);
  const random = new Random(R);
  const rows = new Set([0, R - 1]);
  while (rows.size < count) rows.add(random.int(0, R));
  return [...rows].sort((a, b) => a - b);
}

/** Those rows of x, which has D numbers in each. */
export function takeSample(x: ArrayLike<number>, rows: readonly number[], D: number): Float64Array {
  const sample = new Float64Array(rows.length * D);
  rows.forEach((row, i) => {
    for (let k = 0; k < D; k++) sample[i * D + k] = x[row * D + k]!;
  });
  return sample;
}
