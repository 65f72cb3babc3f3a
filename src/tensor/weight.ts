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
import { contiguous } from "./ops/copy.ts";
import type { Tensor } from "./tensor.ts";
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
  /** Bytes of the file written so far, and those of them that wait for the rest of their group. */
  #written = 0;
  #rest: Uint8Array = NOTHING;

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
  static from(
    device: Device,
    data: Float32Array,
    shape: readonly [number, number],
    dtype: WeightDType = "f32",
  ): Weight {
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
   * Writes a part of the matrix as it lies in a file. Parts may be cut anywhere, but must come in order.
   *
   * @param byteOffset of the part in the file's tensor; 0 begins anew
   * @param bytes little-endian numbers of dtype `from`
   * @throws ShapeError if the part does not follow the last one, or exceeds the matrix
   */
  write(byteOffset: number, bytes: Uint8Array, from: WeightDType): void {
    const [N, K] = this.shape;
    const size = DTYPES[from].bytes;
    const end = byteOffset + bytes.byteLength;
    if (end > N * K * size) throw new ShapeError(`write: ${end} bytes do not fit a weight of ${N * K * size}`);
    if (byteOffset !== 0 && byteOffset !== this.#written) {
      throw new ShapeError(`write: a part at byte ${byteOffset} where byte ${this.#written} is next`);
    }
    if (byteOffset === 0) this.#rest = NOTHING;
    this.#written = end;
    // What the GPU takes is whole rows where rows are padded, else groups of four numbers: writes are multiples of 4 bytes.
    const unit = (K % 4 === 0 ? 4 : K) * size;
    const known = this.#rest.byteLength === 0 ? bytes : join(this.#rest, bytes);
    const whole = known.byteLength - (known.byteLength % unit);
    const start = (end - known.byteLength) / size; // in numbers
    this.#rest = new Uint8Array(known.subarray(whole));
    const numbers = convert(known.subarray(0, whole), from, this.dtype);
    if (K % 4 === 0) this.#place(start * DTYPES[this.dtype].bytes, numbers);
    else this.#place((start / K) * this.K4 * 4 * DTYPES[this.dtype].bytes, this.#pad(numbers));
  }

  /**
   * The matrix as {@link write} took it, but in the dtype it is stored as: rows without their padding, in pieces of about
   * `pieceBytes`. Each piece is read when it is asked for.
   *
   * @throws DeviceError
   */
  async *read(pieceBytes = 16 * 2 ** 20): AsyncGenerator<Uint8Array, void, undefined> {
    const rowBytes = this.shape[1] * DTYPES[this.dtype].bytes;
    const paddedBytes = this.K4 * 4 * DTYPES[this.dtype].bytes;
    const most = Math.max(1, Math.floor(pieceBytes / paddedBytes));
    for (const { rows, bits } of this.shards) {
      for (let row = 0; row < rows; row += most) {
        const count = Math.min(most, rows - row);
        const words = await this.device.scope(() => contiguous(bits.narrow(0, row, count)).read());
        const piece = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
        if (rowBytes === paddedBytes) yield piece;
        else yield unpad(piece, rowBytes, paddedBytes);
      }
    }
  }

  dispose(): void {
    for (const shard of this.shards) shard.bits.dispose();
  }

  /** Whole rows as they lie on the device, with zeros behind each. */
  #pad(rows: Uint8Array): Uint8Array {
    const rowBytes = this.shape[1] * DTYPES[this.dtype].bytes;
    const paddedBytes = this.K4 * 4 * DTYPES[this.dtype].bytes;
    const padded = new Uint8Array((rows.byteLength / rowBytes) * paddedBytes);
    for (let at = 0, to = 0; at < rows.byteLength; at += rowBytes, to += paddedBytes) {
      padded.set(rows.subarray(at, at + rowBytes), to);
    }
    return padded;
  }

  /** Writes bytes at an offset counted over all shards. */
  #place(offset: number, bytes: Uint8Array): void {
    for (const { bits, firstRow } of this.shards) {
      const start = firstRow * bits.shape[1] * 4;
      const from = Math.max(offset, start);
      const to = Math.min(offset + bytes.byteLength, start + bits.bytes);
      if (from < to) this.device.writeBytes(bits.storage, from - start, bytes.subarray(from - offset, to - offset));
    }
  }
}

function unpad(padded: Uint8Array, rowBytes: number, paddedBytes: number): Uint8Array {
  const rows = new Uint8Array((padded.byteLength / paddedBytes) * rowBytes);
  for (let at = 0, to = 0; at < padded.byteLength; at += paddedBytes, to += rowBytes) {
    rows.set(padded.subarray(at, at + rowBytes), to);
  }
  return rows;
}

/** Bytes of one dtype as bytes of another; exact when widening, rounding to nearest even when narrowing. */
export function convert(bytes: Uint8Array, from: WeightDType, to: WeightDType): Uint8Array {
  if (from === to) return bytes;
  const count = bytes.byteLength / DTYPES[from].bytes;
  const source = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes); // slice() of a Node Buffer copies nothing
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

const NOTHING = new Uint8Array(0);

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.byteLength + b.byteLength);
  joined.set(a);
  joined.set(b, a.byteLength);
  return joined;
}
