/**
 * Checkpoints with headers only: sizes are those of the real files, and reads of weights are refused. The headers are in
 * test/golden/official; `sourceOf` creates others from names and shapes.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { WeightError } from "../../src/tensor/errors.ts";
import { type ByteSource, checkRange, decodeUtf8, type Folder } from "../../src/tensor/files/source.ts";
import { type Shape, sizeOf } from "../../src/tensor/shape.ts";

const ROOT = fileURLToPath(new URL("../golden/official", import.meta.url));

/** A safetensors file up to the end of its header. */
class HeaderOnlySource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #header: Uint8Array;

  /** @param header the length and the JSON, as the file begins */
  constructor(name: string, header: Uint8Array) {
    const entries = JSON.parse(decodeUtf8(header.subarray(8), name)) as Record<string, { data_offsets?: number[] }>;
    const data = Math.max(...Object.values(entries).map(({ data_offsets }) => data_offsets?.[1] ?? 0));
    this.name = name;
    this.size = header.length + data;
    this.#header = header;
  }

  /** @throws WeightError NO_WEIGHTS beyond the header */
  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    const end = offset + into.length;
    if (end > this.#header.length) throw new WeightError("NO_WEIGHTS", `${this.name}: only the header is there`);
    into.set(this.#header.subarray(offset, end));
  }

  async close(): Promise<void> {}
}

/** One of the folders in test/golden/official. */
export class HeaderOnlyFolder implements Folder {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  async has(file: string): Promise<boolean> {
    return existsSync(this.#path(file));
  }

  async text(file: string): Promise<string> {
    return decodeUtf8(gunzipSync(readFileSync(this.#path(file))), file);
  }

  async open(file: string): Promise<ByteSource> {
    return new HeaderOnlySource(file, gunzipSync(readFileSync(this.#path(file))));
  }

  #path(file: string): string {
    return join(ROOT, this.name, `${file}.gz`);
  }
}

/** One file of f32 tensors. */
export function sourceOf(shapes: ReadonlyMap<string, Shape>): ByteSource {
  let offset = 0;
  const entries = [...shapes].map(([name, shape]) => {
    const begin = offset;
    offset += 4 * sizeOf(shape);
    return [name, { dtype: "F32", shape, data_offsets: [begin, offset] }] as const;
  });
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const header = new Uint8Array(8 + json.length);
  new DataView(header.buffer).setBigUint64(0, BigInt(json.length), true);
  header.set(json, 8);
  return new HeaderOnlySource("model.safetensors", header);
}
