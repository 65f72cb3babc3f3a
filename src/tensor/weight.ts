/**
 * A weight matrix on the device, stored as f32, f16 or bf16 and split by rows where one binding cannot hold it.
 *
 * Rows are padded with zeros to a multiple of four numbers, so that every kernel may load four at a time. PyTorch's
 * layout is kept: [out, in] for a Linear, [rows, width] for an Embedding.
 */
import type { Device } from "./device.ts";
import { bf16ToNumber, DTYPES, f16ToNumber, numberToBf16, numberToF16, type WeightDType } from "./dtype.ts";
import { DeviceError, ShapeError } from "./errors.ts";
import { formatBytes } from "./memory.ts";
import { Tensor } from "./tensor.ts";
import type { Uses } from "./wgsl.ts";

/** Some rows of a weight in a buffer of their own. */
export interface Shard {
  readonly firstRow: number;
  readonly rows: number;
  /** The raw bits; bound to the `weight` binding of a loader in kernels/lib. */
  readonly bits: Tensor<"u32">;
}

export class Weight {
  readonly device: Device;
  /** [N, K]: rows, and numbers in a row. */
  readonly shape: readonly [number, number];
  readonly dtype: WeightDType;
  readonly shards: readonly Shard[];
  /** Groups of four numbers in a padded row. */
  readonly K4: number;
  #unaligned: Uint8Array | undefined;

  /** Allocates a weight of zeros. `label` names it in errors. */
  constructor(device: Device, [N, K]: readonly [number, number], dtype: WeightDType, label = "weight") {
    this.device = device;
    this.shape = [N, K];
    this.dtype = dtype;
    this.K4 = Math.ceil(K / 4);
    const rowBytes = this.K4 * 4 * DTYPES[dtype].bytes;
    const most = Math.floor(device.caps.maxBindingBytes / rowBytes);
    if (most === 0) {
      throw new DeviceError("LIMIT", `${label}: one row takes ${formatBytes(rowBytes)}, more than a binding may span`);
    }
    // Equal shards: a last one of a few rows would cost a launch for nothing.
    const rows = Math.ceil(N / Math.ceil(N / most));
    const shards: Shard[] = [];
    for (let firstRow = 0; firstRow < N; firstRow += rows) {
      const count = Math.min(rows, N - firstRow);
      shards.push({ firstRow, rows: count, bits: device.persistent([count, rowBytes / 4], "u32", label) });
    }
    this.shards = shards;
  }

  /** A weight holding `data`, [N, K] row after row. */
  static from(device: Device, data: Float32Array, shape: readonly [number, number], dtype: WeightDType = "f32"): Weight {
    const weight = new Weight(device, shape, dtype);
    weight.write(0, new Uint8Array(data.buffer, data.byteOffset, data.byteLength), "f32");
    return weight;
  }

  /** Chooses the loader of this weight's dtype: `launch({ uses: weight.uses, … })`. */
  get uses(): Uses {
    return { weight: `weight_${this.dtype}` };
  }

  /** Bytes on the device, padding included. */
  get bytes(): number {
    return this.shards.reduce((sum, shard) => sum + shard.bits.bytes, 0);
  }

  /**
   * Writes a part of the matrix as it lies in a file. Parts must come in order.
   *
   * @param byteOffset of the part in the file's tensor, a multiple of 4
   * @param bytes little-endian numbers of dtype `from`
   */
  write(byteOffset: number, bytes: Uint8Array, from: WeightDType): void {
    const [N, K] = this.shape;
    const fileBytes = N * K * DTYPES[from].bytes;
    if (byteOffset + bytes.byteLength > fileBytes) {
      throw new ShapeError(`write: ${byteOffset + bytes.byteLength} bytes do not fit a weight of ${fileBytes}`);
    }
    if (K % 4 === 0) {
      this.#place((byteOffset / DTYPES[from].bytes) * DTYPES[this.dtype].bytes, convert(bytes, from, this.dtype));
      return;
    }
    // Rows must be padded. No published checkpoint needs this, so the simple way will do: gather, pad, write.
    this.#unaligned ??= new Uint8Array(fileBytes);
    this.#unaligned.set(bytes, byteOffset);
    if (byteOffset + bytes.byteLength < fileBytes) return;
    const packed = convert(this.#unaligned, from, this.dtype);
    this.#unaligned = undefined;
    const size = DTYPES[this.dtype].bytes;
    const padded = new Uint8Array(N * this.K4 * 4 * size);
    for (let row = 0; row < N; row++) {
      padded.set(packed.subarray(row * K * size, (row + 1) * K * size), row * this.K4 * 4 * size);
    }
    this.#place(0, padded);
  }

  dispose(): void {
    for (const shard of this.shards) shard.bits.dispose();
  }

  /** Writes bytes at an offset counted over all shards. */
  #place(offset: number, bytes: Uint8Array): void {
    for (const { bits, firstRow } of this.shards) {
      const start = firstRow * bits.shape[1] * 4;
      const from = Math.max(offset, start);
      const to = Math.min(offset + bytes.byteLength, start + bits.bytes);
      if (from < to) this.device.writeBytes(bits.storage, from - start, wholeWords(bytes.subarray(from - offset, to - offset)));
    }
  }
}

/** Bytes of one dtype as bytes of another; exact when widening, rounding to nearest even when narrowing. */
export function convert(bytes: Uint8Array, from: WeightDType, to: WeightDType): Uint8Array {
  if (from === to) return bytes;
  const count = bytes.byteLength / DTYPES[from].bytes;
  const source = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const input =
    from === "f32"
      ? new Float32Array(source.buffer, source.byteOffset, count)
      : new Uint16Array(source.buffer, source.byteOffset, count);
  const output = to === "f32" ? new Float32Array(count) : new Uint16Array(count);
  const read = from === "f32" ? undefined : from === "f16" ? f16ToNumber : bf16ToNumber;
  const write = to === "f32" ? undefined : to === "f16" ? numberToF16 : numberToBf16;
  for (let i = 0; i < count; i++) {
    const value = read ? read(input[i]) : input[i];
    output[i] = write ? write(value) : value;
  }
  return new Uint8Array(output.buffer);
}

/** writeBuffer takes multiples of 4 bytes; only the end of a tensor can be odd, where the padding is ours to write. */
function wholeWords(bytes: Uint8Array): Uint8Array {
  if (bytes.byteLength % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  padded.set(bytes);
  return padded;
}
