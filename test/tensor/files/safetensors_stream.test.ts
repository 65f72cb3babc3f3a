/** Reading: rows, ranges, and the stream of a checkpoint through one reused buffer, in file order. */
import { beforeAll, describe, expect, it, vi } from "vitest";
import type { DType } from "../../../src/tensor/dtype.ts";
import { Checkpoint, type TensorChunk } from "../../../src/tensor/files/checkpoint.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { type ByteSource, type Folder, MemorySource, readText } from "../../../src/tensor/files/source.ts";
import { build, entry, FILES } from "./corpus/files.ts";

const BYTES = { f64: 8, f32: 4, f16: 2, u8: 1 };

/** A tensor whose bytes are `seed`, `seed` + 1, … modulo 251. */
function numbered(name: string, dtype: keyof typeof BYTES, shape: number[], seed: number): TensorEntry {
  const size = shape.reduce((a, b) => a * b, BYTES[dtype]);
  return { name, dtype: dtype as DType, shape, data: Uint8Array.from({ length: size }, (_, i) => (seed + i) % 251) };
}

const ONE = [
  numbered("wide", "f64", [5, 3], 1),
  numbered("w", "f32", [7, 11], 2),
  numbered("scalar", "f32", [], 3),
  numbered("h", "f16", [3, 3], 4),
  numbered("none", "f16", [0, 5], 5),
  numbered("odd", "u8", [13], 6),
  numbered("last", "u8", [3], 7),
];
const TWO = [numbered("big", "f32", [50, 40], 8), numbered("z", "u8", [1], 9)];
const ALL = new Map([...ONE, ...TWO].map((tensor) => [tensor.name, tensor.data as Uint8Array]));

/** A folder in memory whose sources count reads and closes. */
class CountingFolder implements Folder {
  readonly name = "folder";
  readonly files = new Map<string, Uint8Array>();
  readonly reads: { file: string; offset: number; length: number }[] = [];
  open_ = 0;

  async has(file: string): Promise<boolean> {
    return this.files.has(file);
  }
  async text(file: string, maxBytes?: number): Promise<string> {
    return readText(await this.open(file), maxBytes);
  }
  async open(file: string): Promise<ByteSource> {
    const source = new MemorySource(file, this.files.get(file)!);
    this.open_++;
    return {
      name: file,
      size: source.size,
      read: (offset, into) => {
        this.reads.push({ file, offset, length: into.length });
        return source.read(offset, into);
      },
      close: async () => void this.open_--,
    };
  }
}

let one: Uint8Array;
let two: Uint8Array;
beforeAll(async () => {
  one = await serializeSafetensors(ONE);
  two = await serializeSafetensors(TWO);
});

async function sharded(): Promise<{ checkpoint: Checkpoint; folder: CountingFolder }> {
  const folder = new CountingFolder();
  folder.files.set("2.safetensors", two);
  folder.files.set("1.safetensors", one);
  const weight_map = Object.fromEntries([
    ...TWO.map(({ name }) => [name, "2.safetensors"]),
    ...ONE.map(({ name }) => [name, "1.safetensors"]),
  ]);
  folder.files.set("model.safetensors.index.json", new TextEncoder().encode(JSON.stringify({ weight_map })));
  const checkpoint = await Checkpoint.open(folder);
  folder.open_--; // the index
  folder.reads.length = 0;
  return { checkpoint, folder };
}

/** Gathers the pieces; they must come in order, aligned, and each where it belongs. */
async function gather(stream: AsyncIterable<TensorChunk>) {
  const tensors = new Map<string, number[]>();
  const buffers = new Set<ArrayBufferLike>();
  let largest = 0;
  for await (const { name, byteOffset, bytes } of stream) {
    const sofar = tensors.get(name) ?? [];
    expect(byteOffset).toBe(sofar.length);
    expect(byteOffset % 8).toBe(0);
    expect(bytes.byteOffset % 8).toBe(0);
    tensors.set(name, sofar.concat([...bytes]));
    buffers.add(bytes.buffer);
    largest = Math.max(largest, bytes.buffer.byteLength);
  }
  return { tensors, buffers, largest };
}

describe("stream", () => {
  it.each([8, 9, 15, 16, 24, 100, 333, 4096, undefined])("reads every byte with chunkBytes %s", async (chunkBytes) => {
    const { checkpoint } = await sharded();
    const names = [...ALL.keys()].reverse();
    const { tensors, buffers, largest } = await gather(
      checkpoint.stream(names, chunkBytes === undefined ? {} : { chunkBytes }),
    );
    expect([...tensors.keys()]).toEqual([...checkpoint.tensors.keys()]);
    for (const [name, bytes] of ALL) expect(tensors.get(name)).toEqual([...bytes]);
    expect(buffers.size).toBe(1);
    if (chunkBytes) expect(largest).toBeLessThanOrEqual(chunkBytes);
  });

  it.each([
    [16, 2],
    [33, 3],
    [100, 4],
    [333, 7],
    [4096, 4],
  ])("gives every byte with chunkBytes %i for %i reads at once", async (chunkBytes, reads) => {
    const { checkpoint } = await sharded();
    const { tensors, buffers, largest } = await gather(checkpoint.stream(ALL.keys(), { chunkBytes, reads }));
    expect([...tensors.keys()]).toEqual([...checkpoint.tensors.keys()]);
    for (const [name, bytes] of ALL) expect(tensors.get(name)).toEqual([...bytes]);
    expect(buffers.size).toBe(1);
    expect(largest).toBeLessThanOrEqual(chunkBytes);
  });

  it("reads ahead while a piece is processed, within the buffer, and never into that piece", async () => {
    const { checkpoint } = await sharded();
    let [under, most] = [0, 0];
    const real = SafetensorsFile.prototype.readRaw;
    const slow = vi.spyOn(SafetensorsFile.prototype, "readRaw").mockImplementation(async function (
      this: SafetensorsFile,
      ...args
    ) {
      most = Math.max(most, ++under);
      await new Promise((resolve) => setTimeout(resolve, 2));
      await real.apply(this, args);
      under--;
    });
    let visited = 0;
    for await (const { name, byteOffset, bytes } of checkpoint.stream(ALL.keys(), { chunkBytes: 96, reads: 3 })) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect([...bytes]).toEqual([...ALL.get(name)!.subarray(byteOffset, byteOffset + bytes.length)]);
      visited++;
    }
    expect(visited).toBeGreaterThan(6);
    expect(most).toBe(3);
    slow.mockRestore();
  });

  it("throws the error of a read ahead at its turn, and not if the stream ends before", async () => {
    const { checkpoint } = await sharded();
    const real = SafetensorsFile.prototype.readRaw;
    let calls = 0;
    const third = vi.spyOn(SafetensorsFile.prototype, "readRaw").mockImplementation(async function (
      this: SafetensorsFile,
      ...args
    ) {
      if (++calls === 3) throw new Error("the third");
      await real.apply(this, args);
    });
    const seen: number[] = [];
    const run = async (most: number) => {
      calls = 0;
      seen.length = 0;
      for await (const { bytes } of checkpoint.stream(["w", "wide"], { chunkBytes: 96, reads: 3 })) {
        seen.push(bytes.length);
        if (seen.length === most) break;
      }
    };
    await expect(run(100)).rejects.toThrow("the third");
    expect(seen).toEqual([32, 32]);
    await run(1);
    await new Promise((resolve) => setTimeout(resolve, 5));
    third.mockRestore();
  });

  it.each([["w"], ["none"], ["odd", "last"], ["last", "wide"], ["z", "scalar", "h"], []])(
    "gives only what is asked for: %s, %s",
    async (...names) => {
      const { checkpoint, folder } = await sharded();
      const { tensors } = await gather(checkpoint.stream(names, { chunkBytes: 64 }));
      expect([...tensors.keys()].sort()).toEqual([...names].sort());
      for (const name of names) expect(tensors.get(name)).toEqual([...ALL.get(name)!]);
      const wanted = names.reduce((sum, name) => sum + ALL.get(name)!.length, 0);
      expect(folder.reads.reduce((sum, { length }) => sum + length, 0)).toBeLessThanOrEqual(wanted + 8 * names.length);
    },
  );

  it("reads adjacent tensors together, in file order, each byte once", async () => {
    const { checkpoint, folder } = await sharded();
    await gather(checkpoint.stream(ALL.keys()));
    // "scalar" is 4 bytes long, so "h" is not 8-byte aligned after "wide"; likewise for the odd ones behind it.
    expect(folder.reads.map(({ file }) => file)).toEqual([...folder.reads].map(({ file }) => file).sort());
    expect(folder.reads.length).toBeLessThan(ALL.size);
    for (const file of ["1.safetensors", "2.safetensors"]) {
      const reads = folder.reads.filter((read) => read.file === file);
      for (const [i, { offset }] of reads.entries()) {
        if (i) expect(offset).toBe(reads[i - 1].offset + reads[i - 1].length);
      }
    }
  });

  it("reads nothing between the tensors that are asked for", async () => {
    const { checkpoint, folder } = await sharded();
    await gather(checkpoint.stream(["h", "wide"])); // "scalar" and "w" lie between them: 312 bytes, a multiple of 8
    expect(folder.reads.map(({ length }) => length)).toEqual([ALL.get("wide")!.length, ALL.get("h")!.length]);
  });

  it("does not join tensors of different files", async () => {
    const folder = new CountingFolder();
    const first = build(`{${entry("a", "U8", [8], [0, 8])}}`, 8);
    // Padded so that its data begins where the first file ends, as if it were one file.
    const second = build(`{${entry("b", "U8", [8], [0, 8])}}`.padEnd(first.length - 8), 8);
    folder.files.set("1.safetensors", first);
    folder.files.set("2.safetensors", second);
    const weight_map = { a: "1.safetensors", b: "2.safetensors" };
    folder.files.set("model.safetensors.index.json", new TextEncoder().encode(JSON.stringify({ weight_map })));
    const checkpoint = await Checkpoint.open(folder);
    expect(checkpoint.tensors.get("b")!.begin).toBe(checkpoint.tensors.get("a")!.end);
    const { tensors } = await gather(checkpoint.stream(["a", "b"]));
    const data = [1, 2, 3, 4, 5, 6, 7, 8];
    expect([...tensors.values()]).toEqual([data, data]);
  });

  it("reads a name once, even if it is given twice", async () => {
    const { checkpoint } = await sharded();
    const { tensors } = await gather(checkpoint.stream(["z", "z", "w", "z"]));
    expect([...tensors.keys()]).toEqual(["w", "z"]);
  });

  it("reads tensors of a file without alignment", async () => {
    const file = await Checkpoint.open(new MemorySource("m", FILES.B20.bytes()));
    const { tensors } = await gather(file.stream(["a", "h"]));
    expect(tensors.get("h")).toEqual([2, 3, 4, 5, 6, 7]);
  });

  it("refuses unknown names and unsupported dtypes before it reads", async () => {
    const { checkpoint, folder } = await sharded();
    const stream = checkpoint.stream(["w", "wid", "nowhere"]);
    const error = await stream.next().catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "MISSING_TENSORS", hint: expect.stringContaining("wide") });
    expect((error as Error).message).toContain("nowhere");
    expect(folder.reads).toEqual([]);
    const f8 = await Checkpoint.open(new MemorySource("m", FILES.A28d.bytes()));
    await expect(f8.stream(["t"]).next()).rejects.toMatchObject({ code: "UNSUPPORTED_DTYPE" });
  });

  it.each([[0], [7], [8.5], [Number.NaN], [15, 2], [64, 0], [64, 1.5]])(
    "refuses chunkBytes %s, reads %s",
    async (chunkBytes, reads = 1) => {
      const { checkpoint } = await sharded();
      await expect(checkpoint.stream(["w"], { chunkBytes, reads }).next()).rejects.toMatchObject({ code: "BAD_RANGE" });
    },
  );

  it("stops between pieces when aborted, and on break", async () => {
    const { checkpoint, folder } = await sharded();
    const controller = new AbortController();
    const reason = new Error("stop");
    const seen: string[] = [];
    const run = async () => {
      for await (const { name } of checkpoint.stream(ALL.keys(), { chunkBytes: 64, signal: controller.signal })) {
        seen.push(name);
        if (seen.length === 2) controller.abort(reason);
      }
    };
    await expect(run()).rejects.toBe(reason);
    expect(seen.length).toBe(2);
    const reads = folder.reads.length;
    for await (const _ of checkpoint.stream(ALL.keys(), { chunkBytes: 64 })) break;
    expect(folder.reads.length).toBe(reads + 1);
    expect(await checkpoint.read("w")).toEqual(ALL.get("w"));
  });
});

describe("checkpoint", () => {
  it("finds each tensor's file, reads from it, and closes all", async () => {
    const { checkpoint, folder } = await sharded();
    expect(checkpoint.tensors.get("z")).toMatchObject({ file: "2.safetensors", dtype: "u8", shape: [1] });
    expect(await checkpoint.read("z")).toEqual(ALL.get("z"));
    await expect(checkpoint.read("nowhere")).rejects.toMatchObject({ code: "MISSING_TENSORS" });
    expect(folder.open_).toBe(2);
    await checkpoint.close();
    expect(folder.open_).toBe(0);
  });

  it("lists the shards that are missing, and opens none", async () => {
    const folder = new CountingFolder();
    const weight_map = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`t${i}`, `shard-${i}.safetensors`]));
    folder.files.set("shard-3.safetensors", one);
    folder.files.set("model.safetensors.index.json", new TextEncoder().encode(JSON.stringify({ weight_map })));
    const error = await Checkpoint.open(folder).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "MISSING_SHARD" });
    expect((error as Error).message).toMatch(/29 of 30.*"shard-0.safetensors".*and \d+ more/);
    expect((error as Error).message.length).toBeLessThanOrEqual(300);
    expect(folder.open_).toBe(1); // the index
  });

  it("closes the good shards when one is bad", async () => {
    const folder = new CountingFolder();
    folder.files.set("1.safetensors", one);
    folder.files.set("2.safetensors", two.subarray(0, -1));
    const weight_map = { wide: "1.safetensors", z: "2.safetensors" };
    folder.files.set("model.safetensors.index.json", new TextEncoder().encode(JSON.stringify({ weight_map })));
    await expect(Checkpoint.open(folder)).rejects.toMatchObject({ code: "TRUNCATED" });
    expect(folder.open_).toBe(1); // the index
  });

  it("merges the metadata of all files, the first file's first", async () => {
    const folder = new CountingFolder();
    const shard = (name: string, value: string) =>
      serializeSafetensors([numbered(name, "u8", [1], 1)], { format: value, [name]: value });
    folder.files.set("1.safetensors", await shard("a", "first"));
    folder.files.set("2.safetensors", await shard("b", "second"));
    const weight_map = { a: "1.safetensors", b: "2.safetensors" };
    folder.files.set("model.safetensors.index.json", new TextEncoder().encode(JSON.stringify({ weight_map })));
    const { metadata } = await Checkpoint.open(folder);
    expect(Object.fromEntries(metadata)).toEqual({ format: "first", a: "first", b: "second" });
  });
});

describe("rows and ranges of one tensor", () => {
  const open = () => SafetensorsFile.open(new MemorySource("m", one));
  const w = ALL.get("w");

  it("reads rows along the first dimension", async () => {
    const file = await open();
    const all = ONE[1].data as Uint8Array;
    expect(await file.read("w", [2, 5])).toEqual(all.subarray(2 * 44, 5 * 44));
    expect(await file.read("w", [0, 7])).toEqual(w);
    expect(await file.read("w", [7, 7])).toEqual(new Uint8Array(0));
    expect(await file.read("none", [0, 0])).toEqual(new Uint8Array(0));
  });

  it.each([
    [-1, 2],
    [0, 8],
    [3, 2],
    [0.5, 2],
    [0, Number.NaN],
  ])("refuses rows [%s, %s)", async (begin, end) => {
    await expect((await open()).read("w", [begin, end])).rejects.toMatchObject({ code: "BAD_RANGE" });
  });

  it("refuses rows of a scalar", async () => {
    await expect((await open()).read("scalar", [0, 1])).rejects.toMatchObject({ code: "BAD_RANGE" });
  });

  it("reads bytes of a tensor, and never its neighbour's", async () => {
    const file = await open();
    const info = file.tensors.get("w")!;
    const into = new Uint8Array(5);
    await file.readInto(info, 300, into);
    expect(into).toEqual((ONE[1].data as Uint8Array).subarray(300, 305));
    for (const offset of [304, -1, 1.5]) {
      await expect(file.readInto(info, offset, into)).rejects.toMatchObject({ code: "BAD_RANGE" });
    }
  });

  it("refuses a tensor that no array can hold, and points to rows", async () => {
    const size = 2 ** 49;
    const header = build(`{${entry("t", "U8", [size], [0, size])}}`, 0);
    const source: ByteSource = {
      name: "huge",
      size: header.length + size,
      read: async (offset, into) => into.set(header.subarray(offset, offset + into.length)),
      close: async () => {},
    };
    const file = await SafetensorsFile.open(source);
    await expect(file.read("t")).rejects.toMatchObject({
      code: "TENSOR_TOO_LARGE",
      hint: expect.stringContaining("rows"),
    });
    expect(await file.read("t", [size - 4, size])).toHaveLength(4);
  });
});
