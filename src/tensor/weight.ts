/**
 * A weight matrix on the device, stored as f32, f16, bf16, int8 or int4 and split by rows into shards where one binding
 * cannot hold it.
 *
 * Rows are padded to a multiple of four numbers, or to whole blocks (quantize.ts), so that kernels can load four at a time.
 * PyTorch's layout is kept: [out, in] for a Linear, [rows, width] for an Embedding.
 */

import { formatBytes } from "./device/memory.ts";
import { type ComputeDType, DTYPES, type FloatDType, narrow, type WeightDType, widen } from "./dtype.ts";
import { DeviceError, ShapeError } from "./errors.ts";
import { contiguous } from "./ops/copy.ts";
import { quantize } from "./ops/quantize.ts";
import { BLOCK, isQuantized, type QuantizedDType, quantizeRows, rowBytes } from "./quantize.ts";
import type { Device, Tensor } from "./tensor.ts";
import type { Uses } from "./wgsl.ts";

/** Contiguous rows of a weight in one buffer. */
export interface Shard {
  readonly firstRow: number;
  readonly rows: number;
  /** The raw bits; bound to the `weight` binding of a loader in kernels/lib. */
  readonly bits: Tensor<"u32">;
  /** Offset of the first row in the buffer, in rows. */
  readonly row0: number;
  /** If compute_dtype is f16: powers of two by which the buffer's rows are multiplied before they are rounded; 1 at first. */
  readonly f16_scales?: Tensor;
}

/** Uploads bytes; they stay in the tensor at least until the launches recorded next have run. */
export type Stage = (bytes: Uint8Array) => Tensor<"u32">;

/** Options of a weight. */
interface WeightOptions {
  /** Its name in errors. */
  readonly label?: string;
  /** What its numbers are multiplied as in products of many rows; see `linear`. Default f32. */
  readonly compute_dtype?: ComputeDType;
  /** Two matrices [N / 2, K], gate above up; every shard holds the same rows of both; see `linear`. */
  readonly paired?: boolean;
  /** The weight that it is a part of; see `part`. */
  readonly whole?: { readonly weight: Weight; readonly firstRow: number };
}

export class Weight {
  readonly device: Device;
  /** [N, K]: rows, and numbers in a row. */
  readonly shape: readonly [number, number];
  readonly dtype: WeightDType;
  /** See `linear`. */
  readonly compute_dtype: ComputeDType;
  readonly paired: boolean;
  /** One for each buffer; of a paired weight the rows of the upper matrix, which the same rows of the lower one follow. */
  readonly shards: readonly Shard[];
  /** All rows in their order. */
  readonly runs: readonly Shard[];
  /** Groups of four numbers in a padded row. */
  readonly K4: number;
  /** Bytes of a padded row on the device. */
  readonly rowBytes: number;
  /** Of a part, the weight it is part of; see `part`. */
  readonly #whole: { readonly weight: Weight; readonly firstRow: number } | undefined;
  /** Bytes of the file written so far, and those that wait for the rest of their group. */
  #written = 0;
  #rest: Uint8Array = NOTHING;

  /** Allocates a weight of zeros, unless it is part of another. @throws DeviceError LIMIT if a row is too large */
  constructor(
    device: Device,
    [N, K]: readonly [number, number],
    dtype: WeightDType,
    { label = "weight", compute_dtype = "f32", paired = false, whole }: WeightOptions = {},
  ) {
    this.device = device;
    this.shape = [N, K];
    this.dtype = dtype;
    this.compute_dtype = compute_dtype;
    this.paired = paired;
    this.K4 = Math.ceil(K / 4);
    this.rowBytes = rowBytes(dtype, K);
    this.#whole = whole;
    if (whole) {
      [this.shards, this.runs] = [[], []];
      return;
    }
    if (K === 0) throw new ShapeError(`${label}: rows of [${N}, 0] have no numbers`);
    const matrices = paired ? 2 : 1;
    const most = Math.floor(device.caps.maxBindingBytes / (matrices * this.rowBytes));
    if (most === 0) {
      const size = formatBytes(matrices * this.rowBytes);
      throw new DeviceError(
        "LIMIT",
        `${label}: ${paired ? "two rows take" : "one row takes"} ${size}, more than a binding may span`,
      );
    }
    // Equal shards: a last one of a few rows would cost as much as any.
    const each = N / matrices;
    const rows = Math.ceil(each / Math.ceil(each / most));
    const shards: Shard[] = [];
    this.shards = shards;
    try {
      for (let firstRow = 0; firstRow < each; firstRow += rows) {
        const count = Math.min(rows, each - firstRow);
        const bits = device.persistent([matrices * count, this.rowBytes / 4], "u32", label);
        shards.push({ firstRow, rows: count, bits, row0: 0 });
        if (compute_dtype === "f32") continue;
        const f16_scales = device.persistent([matrices * count], "f32", label);
        shards[shards.length - 1] = { ...shards.at(-1)!, f16_scales };
        device.write(f16_scales, new Float32Array(f16_scales.size).fill(1));
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.runs = Array.from({ length: matrices }, (_, i) =>
      shards.map((shard) => ({ ...shard, firstRow: i * each + shard.firstRow, row0: i * shard.rows })),
    ).flat();
  }

  /** A weight holding `data`, [N, K] row after row. */
  static from(
    device: Device,
    data: Float32Array,
    shape: readonly [number, number],
    dtype: WeightDType = "f32",
    options: WeightOptions = {},
  ): Weight {
    const weight = new Weight(device, shape, dtype, options);
    weight.write(0, new Uint8Array(data.buffer, data.byteOffset, data.byteLength), "f32");
    return weight;
  }

  /**
   * Rows `firstRow` … as a matrix that can be written and read back, but not computed with: so that matrices with the same
   * input are one weight for the kernels and several in the file. It lives as long as the whole.
   */
  part(firstRow: number, N: number): Weight {
    return new Weight(this.device, [N, this.shape[1]], this.dtype, { whole: { weight: this, firstRow } });
  }

  /** The weight that this is a part of, or itself. */
  get whole(): Weight {
    return this.#whole?.weight ?? this;
  }

  /** Chooses the loader of this weight's dtype: `launch({ uses: weight.uses, … })`. */
  get uses(): Uses {
    return { weight: `weight_${this.dtype}` };
  }

  /** Bytes on the device, padding included. */
  get bytes(): number {
    return this.shape[0] * this.rowBytes;
  }

  /**
   * Writes a part of the matrix in the layout of a file. Parts may be cut anywhere, but must be in order.
   *
   * @param byteOffset of the part in the file's tensor; 0 restarts
   * @param bytes little-endian numbers of dtype `from`
   * @param stage uploads numbers that are to be quantized. With it the device quantizes rows of whole blocks that fit a
   *   binding, otherwise the host does; the bits are the same.
   * @throws ShapeError if the part does not follow the last one, or exceeds the matrix
   */
  write(byteOffset: number, bytes: Uint8Array, from: FloatDType, stage?: Stage): void {
    const [N, K] = this.shape;
    const size = DTYPES[from].bytes;
    const end = byteOffset + bytes.byteLength;
    if (end > N * K * size) throw new ShapeError(`write: ${end} bytes do not fit a weight of ${N * K * size}`);
    if (byteOffset !== 0 && byteOffset !== this.#written) {
      throw new ShapeError(`write: a part at byte ${byteOffset} where byte ${this.#written} is next`);
    }
    if (byteOffset === 0) this.#rest = NOTHING;
    this.#written = end;
    // The unit of conversion: whole rows where rows are padded, else groups of four numbers.
    const unit = (isQuantized(this.dtype) || K % 4 ? K : 4) * size;
    let at = 0;
    if (this.#rest.byteLength > 0) {
      at = Math.min(unit - this.#rest.byteLength, bytes.byteLength);
      this.#rest = join(this.#rest, bytes.subarray(0, at));
      if (this.#rest.byteLength < unit) return;
      this.#place((byteOffset + at - unit) / size, this.#rest, from, stage);
    }
    const whole = bytes.byteLength - ((bytes.byteLength - at) % unit);
    const slice = stage && isQuantized(this.dtype) ? Math.min(STAGED, this.device.caps.maxBindingBytes) : SLICE;
    const most = Math.max(1, Math.floor(slice / unit)) * unit;
    for (; at < whole; at += most) {
      this.#place((byteOffset + at) / size, bytes.subarray(at, Math.min(at + most, whole)), from, stage);
    }
    this.#rest = new Uint8Array(bytes.subarray(whole));
  }

  /** Writes whole rows in the device's layout, from row `firstRow` on: what a weight cache holds. */
  writeRows(firstRow: number, bytes: Uint8Array): void {
    const [N] = this.shape;
    if (bytes.byteLength % this.rowBytes || firstRow + bytes.byteLength / this.rowBytes > N) {
      throw new ShapeError(`writeRows: ${bytes.byteLength} bytes from row ${firstRow} on do not fit ${N} rows`);
    }
    this.#upload(firstRow * this.rowBytes, bytes);
  }

  /**
   * Reads the matrix back in the dtype it is stored as: rows without padding, in pieces of about `pieceBytes`; of int8 and
   * int4 the rows that {@link writeRows} takes. Each piece is read on demand.
   *
   * @throws DeviceError
   */
  async *read(pieceBytes = 16 * 2 ** 20): AsyncGenerator<Uint8Array, void, undefined> {
    const paddedBytes = this.rowBytes;
    const rowBytes = isQuantized(this.dtype) ? paddedBytes : this.shape[1] * DTYPES[this.dtype].bytes;
    const most = Math.max(1, Math.floor(pieceBytes / paddedBytes));
    const begin = this.#whole?.firstRow ?? 0;
    const end = begin + this.shape[0];
    for (const { firstRow, rows, bits, row0 } of this.whole.runs) {
      const stop = Math.min(end - firstRow, rows);
      for (let row = Math.max(begin - firstRow, 0); row < stop; row += most) {
        const count = Math.min(most, stop - row);
        const words = await this.device.scope(() => contiguous(bits.narrow(0, row0 + row, count)).read());
        const piece = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
        if (rowBytes === paddedBytes) yield piece;
        else yield unpad(piece, rowBytes, paddedBytes);
      }
    }
  }

  dispose(): void {
    for (const { bits, f16_scales } of this.shards) {
      bits.dispose();
      f16_scales?.dispose();
    }
  }

  /** Converts whole units of a file, from element `start` on, and uploads them. */
  #place(start: number, bytes: Uint8Array, from: FloatDType, stage: Stage | undefined): void {
    const { dtype, rowBytes } = this;
    const [, K] = this.shape;
    const count = bytes.byteLength / DTYPES[from].bytes;
    if (isQuantized(dtype)) {
      if (stage && K % BLOCK === 0 && K * DTYPES[from].bytes <= this.device.caps.maxBindingBytes) {
        this.#quantize((this.#whole?.firstRow ?? 0) + start / K, bytes, from, stage);
        return;
      }
      const numbers = widen(bytes, from, new Float32Array(scratch("numbers", count * 4), 0, count));
      const words = ((count / K) * rowBytes) / 4;
      const encoded = new Uint32Array(scratch("encoded", words * 4), 0, words);
      quantizeRows(numbers, K, dtype, encoded);
      this.#upload((start / K) * rowBytes, new Uint8Array(encoded.buffer, 0, words * 4));
      return;
    }
    const numbers = convert(bytes, from, dtype);
    if (K % 4 === 0) this.#upload(start * DTYPES[dtype].bytes, numbers);
    else this.#upload((start / K) * rowBytes, pad(numbers, K * DTYPES[dtype].bytes, rowBytes));
  }

  /** Quantizes whole rows of a file on the device, from row `row` on, counted over the whole weight. */
  #quantize(row: number, bytes: Uint8Array, from: FloatDType, stage: Stage): void {
    const { dtype: to, runs } = this.whole;
    const [, K] = this.shape;
    const fileRow = K * DTYPES[from].bytes;
    const end = row + bytes.byteLength / fileRow;
    for (const { bits, firstRow, rows, row0 } of runs) {
      const first = Math.max(row, firstRow);
      const count = Math.min(end, firstRow + rows) - first;
      if (count <= 0) continue;
      const x = stage(bytes.subarray((first - row) * fileRow, (first - row + count) * fileRow));
      quantize(x, bits, { from, to: to as QuantizedDType, K, rows: count, firstRow: row0 + first - firstRow });
    }
  }

  /** Writes bytes at an offset counted over all rows. */
  #upload(offset: number, bytes: Uint8Array): void {
    if (this.#whole) {
      const { weight, firstRow } = this.#whole;
      weight.#upload(firstRow * this.rowBytes + offset, bytes);
      return;
    }
    for (const { bits, firstRow, rows, row0 } of this.runs) {
      const start = firstRow * this.rowBytes;
      const from = Math.max(offset, start);
      const to = Math.min(offset + bytes.byteLength, start + rows * this.rowBytes);
      const at = row0 * this.rowBytes + from - start;
      if (from < to) this.device.writeBytes(bits.storage, at, bytes.subarray(from - offset, to - offset));
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
export function convert(bytes: Uint8Array, from: FloatDType, to: FloatDType): Uint8Array {
  if (from === to) return bytes;
  const numbers = widen(bytes, from);
  const converted = to === "f32" ? numbers : narrow(numbers, to);
  return new Uint8Array(converted.buffer);
}

/** Rows padded with zeros. */
function pad(rows: Uint8Array, rowBytes: number, paddedBytes: number): Uint8Array {
  const padded = new Uint8Array((rows.byteLength / rowBytes) * paddedBytes);
  for (let at = 0, to = 0; at < rows.byteLength; at += rowBytes, to += paddedBytes) {
    padded.set(rows.subarray(at, at + rowBytes), to);
  }
  return padded;
}

/** Bytes of a file that are converted at a time, so that the result is still in the CPU's cache when it is uploaded. */
const SLICE = 2 ** 20;
/** Bytes of a file that one launch quantizes at most. */
const STAGED = 4 * 2 ** 20;

/** Scratch memory of conversions: they never overlap in time, and uploading copies. */
const scratches = new Map<string, ArrayBuffer>();

function scratch(use: "numbers" | "encoded", bytes: number): ArrayBuffer {
  const known = scratches.get(use);
  if (known && known.byteLength >= bytes) return known;
  const buffer = new ArrayBuffer(bytes);
  scratches.set(use, buffer);
  return buffer;
}

const NOTHING = new Uint8Array(0);

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.byteLength + b.byteLength);
  joined.set(a);
  joined.set(b, a.byteLength);
  return joined;
}
