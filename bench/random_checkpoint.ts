/**
 * A virtual safetensors file: names and shapes are given, and random numbers are generated when read. So a layer of a
 * 7-billion-parameter model is loaded as from a disk, and a reference gets the same weights.
 */

import { fillParameter } from "../src/tensor/cases/support/data.ts";
import { DTYPES, f16ToNumber } from "../src/tensor/dtype.ts";
import { WeightError } from "../src/tensor/errors.ts";
import { type ByteSource, checkRange } from "../src/tensor/files/source.ts";
import { type Shape, sizeOf } from "../src/tensor/shape.ts";

const BYTES = DTYPES.f16.bytes;

interface Entry {
  readonly name: string;
  readonly shape: Shape;
  readonly size: number;
  /** Of its first number, in the file's random sequence. */
  readonly first: number;
}

/** All tensors are f16. */
export class RandomCheckpoint implements ByteSource {
  readonly name = "random weights";
  readonly size: number;
  readonly #header: Uint8Array;
  readonly #entries: readonly Entry[];

  constructor(shapes: Readonly<Record<string, Shape>>) {
    const header: Record<string, unknown> = {};
    const entries: Entry[] = [];
    let first = 0;
    for (const [name, shape] of Object.entries(shapes)) {
      const size = sizeOf(shape);
      entries.push({ name, shape, size, first });
      header[name] = { dtype: "F16", shape, data_offsets: [first * BYTES, (first + size) * BYTES] };
      first += size;
    }
    const json = JSON.stringify(header);
    const text = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
    this.#header = new Uint8Array(8 + text.length);
    new DataView(this.#header.buffer).setBigUint64(0, BigInt(text.length), true);
    this.#header.set(text, 8);
    this.#entries = entries;
    this.size = this.#header.length + first * BYTES;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    const end = offset + into.length;
    into.set(this.#header.subarray(offset, end));
    for (const entry of this.#entries) {
      const begin = this.#header.length + entry.first * BYTES;
      const from = Math.max(offset, begin);
      const to = Math.min(end, begin + entry.size * BYTES);
      if (from >= to) continue;
      if ((from - begin) % BYTES || (to - begin) % BYTES) {
        throw new WeightError("IO", `${this.name}: a read that cuts a number in two`);
      }
      this.#fill(entry, (from - begin) / BYTES, into.subarray(from - offset, to - offset));
    }
  }

  /** A tensor for a reference; undefined if there is no such tensor. */
  tensor(name: string): { data: Float32Array; shape: Shape } | undefined {
    const entry = this.#entries.find((candidate) => candidate.name === name);
    if (!entry) return undefined;
    const bytes = new Uint8Array(entry.size * BYTES);
    this.#fill(entry, 0, bytes);
    return { data: Float32Array.from(new Uint16Array(bytes.buffer), f16ToNumber), shape: entry.shape };
  }

  async close(): Promise<void> {}

  #fill({ name, first }: Entry, skip: number, into: Uint8Array): void {
    fillParameter(into, name, first + skip, "f16");
  }
}
