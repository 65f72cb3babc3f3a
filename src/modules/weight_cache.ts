/**
 * A cache of int8 and int4 matrices, so that the next start reads them instead of quantizing them again. One safetensors file:
 * each matrix under its name in its device layout, u32[N, words of a row] (tensor/quantize.ts); `checksums`, one for each
 * matrix; and, in the metadata, a hash of their source. A file from another checkpoint or other dtypes, or a damaged file, is
 * ignored and written again.
 */

import { WeightError } from "../tensor/errors.ts";
import type { Checkpoint } from "../tensor/files/checkpoint.ts";
import type { WritableFolder } from "../tensor/files/file_set.ts";
import { SafetensorsFile } from "../tensor/files/safetensors.ts";
import { type TensorEntry, writeSafetensors } from "../tensor/files/safetensors_writer.ts";
import type { Folder } from "../tensor/files/source.ts";
import { sameShape } from "../tensor/shape.ts";
import type { Device } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";

/** The folder of the cache files. */
export interface CacheFolder {
  readonly read: Folder;
  readonly write: WritableFolder;
}

/** Version of the layout of rows and of the file. */
const FORMAT = 2;
const CHECKSUMS = "checksums";
/** Bytes of a read from the file; of a read from the device a quarter, because it takes several copies. */
const PIECE = 16 * 2 ** 20;
/** Bytes uploaded between waits for the device, so that the driver frees its staging memory. */
const UPLOAD_WINDOW = 256 * 2 ** 20;

/** The cache of one checkpoint. */
export class WeightCache {
  /** File name, from the model's name, shapes and dtypes, so that a file of an older version is replaced. */
  readonly file: string;
  readonly weights: ReadonlyMap<string, Weight>;
  readonly #folder: CacheFolder;
  /** SHA-256 of the source: names, sizes and modification times of the files, their headers, storage dtypes. */
  readonly #source: string;

  private constructor(folder: CacheFolder, file: string, source: string, weights: ReadonlyMap<string, Weight>) {
    this.#folder = folder;
    this.file = file;
    this.#source = source;
    this.weights = weights;
  }

  /**
   * @param weights the checkpoint's quantized matrices by name
   * @throws WeightError NO_VERSION if a file's version, such as its modification time, is unknown
   */
  static async open(
    folder: CacheFolder,
    checkpoint: Checkpoint,
    weights: ReadonlyMap<string, Weight>,
  ): Promise<WeightCache> {
    const { name, files, tensors, made_with } = checkpoint;
    const unknown = files.find(({ version }) => version === undefined);
    if (unknown) {
      throw new WeightError(
        "NO_VERSION",
        `${unknown.name}: has no time of change, so that a cache could not be trusted`,
      );
    }
    const storage = [...weights].map(([name, { dtype, shape }]) => [name, dtype, shape]);
    const headers = [...tensors.values()].map(({ name, dtype, shape, begin, file }) => [
      name,
      dtype,
      shape,
      begin,
      file,
    ]);
    const shapes = await sha256([headers, storage]);
    const file = `${name.replace(/[^\w.-]/g, "_").slice(0, 100)}-${shapes.slice(0, 16)}.safetensors`;
    return new WeightCache(folder, file, await sha256([FORMAT, shapes, files, ...made_with]), weights);
  }

  /** Loads all weights to the device. @returns false if there is no valid file @throws DeviceError; the signal's reason */
  async read(device: Device, signal?: AbortSignal, call = device.call()): Promise<boolean> {
    let file: SafetensorsFile | undefined;
    try {
      if (!(await this.#folder.read.has(this.file))) return false;
      file = await SafetensorsFile.open(await this.#folder.read.open(this.file));
      if (file.metadata.get("source") !== this.#source) return false;
      const sums = await this.#sumsOf(file);
      if (!sums) return false;
      const buffer = new Uint8Array(Math.max(PIECE, ...[...this.weights.values()].map(({ rowBytes }) => rowBytes)));
      let waiting = 0;
      let i = 0;
      for (const [name, weight] of this.weights) {
        const info = file.tensors.get(name);
        const [N] = weight.shape;
        if (info?.dtype !== "u32" || !sameShape(info.shape, [N, weight.rowBytes / 4])) return false;
        const most = Math.floor(buffer.length / weight.rowBytes);
        let sum = SEED;
        for (let row = 0; row < N; row += most) {
          signal?.throwIfAborted();
          const rows = buffer.subarray(0, Math.min(most, N - row) * weight.rowBytes);
          await file.readInto(info, row * weight.rowBytes, rows);
          sum = checksum(rows, sum);
          device.within(call, () => weight.writeRows(row, rows));
          waiting += rows.length;
          if (waiting > UPLOAD_WINDOW) {
            await device.within(call, () => device.sync());
            waiting = 0;
          }
        }
        if (sum !== sums[i++]) return false;
      }
      return true;
    } catch (error) {
      if (error instanceof WeightError) return false;
      throw error;
    } finally {
      await file?.close();
    }
  }

  /** The file's checksums; undefined if their number is wrong. */
  async #sumsOf(file: SafetensorsFile): Promise<Uint32Array | undefined> {
    const info = file.tensors.get(CHECKSUMS);
    const size = 4 * this.weights.size;
    if (info?.dtype !== "u8" || !sameShape(info.shape, [size])) return undefined;
    return new Uint32Array((await file.read(CHECKSUMS)).buffer, 0, this.weights.size);
  }

  /** Writes all weights from the device to the file, atomically. @throws WeightError IO; DeviceError */
  async write(): Promise<void> {
    const sums = new Uint32Array(this.weights.size).fill(SEED);
    const entries = [...this.weights].map(([name, weight], i): TensorEntry => {
      const data = async function* () {
        for await (const piece of weight.read(PIECE / 4)) {
          sums[i] = checksum(piece, sums[i]!);
          yield piece;
        }
      };
      return { name, dtype: "u32", shape: [weight.shape[0], weight.rowBytes / 4], data };
    });
    // u8 tensors are written after u32 ones, so that the checksums are known by then.
    const data = async function* () {
      yield new Uint8Array(sums.buffer);
    };
    entries.push({ name: CHECKSUMS, dtype: "u8", shape: [sums.byteLength], data });
    const storage = [...this.weights].map(([name, { dtype, shape }]) => [name, { dtype, shape }]);
    const metadata = {
      format: `instructblip-webgpu quantized weights ${FORMAT}`,
      source: this.#source,
      storage: JSON.stringify(Object.fromEntries(storage)),
    };
    await this.#folder.write.write(this.file, (sink) => writeSafetensors(sink, entries, metadata));
  }
}

const SEED = 0x9747_b28c;

/**
 * The word loop of MurmurHash3, continued from `sum`. Each step is a bijection of the sum and of the word, so that a change of
 * one word always changes the result. It rotates the bits, so that equal changes do not cancel.
 */
function checksum(bytes: Uint8Array, sum: number): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  let hash = sum;
  for (let i = 0; i < words.length; i++) {
    const word = Math.imul(words[i]!, 0xcc9e_2d51);
    hash ^= Math.imul((word << 15) | (word >>> 17), 0x1b87_3593);
    hash = (Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe654_6b64) | 0;
  }
  return hash >>> 0;
}

async function sha256(value: unknown): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(JSON.stringify(value)));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
