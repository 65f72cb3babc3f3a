/**
 * The writer: byte for byte what the reference writes, readable by an independent reader, checked before it writes, and
 * never leaving half a file behind.
 */
import { lstat, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import npmSafetensors from "safetensors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DTYPES, type DType } from "../../../src/tensor/dtype.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { openCheckpoint, saveSafetensors, writeFileAtomic } from "../../../src/tensor/files/source.node.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { REFERENCE_FILE } from "./corpus/reference_file.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

const tensor = (name: string, dtype: DType, shape: number[], data: TensorEntry["data"]): TensorEntry => ({
  name,
  dtype,
  shape,
  data,
});

/** What REFERENCE_FILE was made from, in another order. */
const REFERENCE_TENSORS = [
  tensor("mask", "bool", [3], Uint8Array.of(1, 0, 1)),
  tensor("b.weight", "f32", [2, 3], Float32Array.of(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)),
  tensor("a.bias", "f32", [2], Float32Array.of(1.5, -0)),
  tensor("half", "f16", [3], Uint16Array.of(0x3c00, 0xc000, 0x7bff)),
  tensor("brain", "bf16", [1], Uint16Array.of(0x4049)),
  tensor("ids", "i64", [2], BigInt64Array.of(-1n, 2n ** 40n)),
  tensor("byte", "u8", [], Uint8Array.of(7)),
  tensor("empty", "f32", [0, 4], new Float32Array(0)),
  tensor("i8", "i8", [1], Int8Array.of(-1)),
  tensor("i16", "i16", [1], Int16Array.of(-2)),
  tensor("i32", "i32", [1], Int32Array.of(-3)),
  tensor("d", "f64", [1], Float64Array.of(0.1)),
  tensor("u16", "u16", [1], Uint16Array.of(65535)),
  tensor("u32", "u32", [1], Uint32Array.of(2 ** 32 - 1)),
  tensor("u64", "u64", [1], BigUint64Array.of(9n)),
];

it("writes what the reference writes, to the byte", async () => {
  const ours = await serializeSafetensors(REFERENCE_TENSORS, { format: "pt" });
  expect(Buffer.from(ours).equals(REFERENCE_FILE)).toBe(true);
});

it("reads what the reference wrote", async () => {
  const file = await SafetensorsFile.open(new MemorySource("r", REFERENCE_FILE));
  expect(file.tensors.size).toBe(REFERENCE_TENSORS.length);
  expect(new Set(REFERENCE_TENSORS.map(({ dtype }) => dtype))).toEqual(new Set(Object.keys(DTYPES)));
  for (const { name, dtype, shape, data } of REFERENCE_TENSORS) {
    expect(file.tensors.get(name)).toMatchObject({ dtype, shape });
    const { buffer, byteOffset, byteLength } = data as ArrayBufferView;
    expect(await file.read(name)).toEqual(new Uint8Array(buffer, byteOffset, byteLength));
  }
  expect([...file.metadata]).toEqual([["format", "pt"]]);
});

it("is read by the npm package safetensors, which shares no code with it", async () => {
  const ours = await serializeSafetensors(REFERENCE_TENSORS);
  const theirs = new npmSafetensors.SafeTensor(ours);
  expect([...theirs.metadata.keys()].sort()).toEqual(REFERENCE_TENSORS.map(({ name }) => name).sort());
  for (const { name, dtype, shape, data } of REFERENCE_TENSORS) {
    expect(theirs.metadata.get(name)).toMatchObject({ dtype: DTYPES[dtype].safetensors, shape });
    const { buffer, byteOffset, byteLength } = data as ArrayBufferView;
    expect(new Uint8Array(theirs.getTensor(name))).toEqual(new Uint8Array(buffer, byteOffset, byteLength));
  }
});

it("aligns the data to 8 bytes and each tensor to its number", async () => {
  for (const name of ["a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh"]) {
    const bytes = await serializeSafetensors([tensor(name, "u8", [1], Uint8Array.of(1)), ...REFERENCE_TENSORS]);
    const file = await SafetensorsFile.open(new MemorySource("m", bytes));
    for (const { dtype, begin } of file.tensors.values()) expect(begin % DTYPES[dtype as DType].bytes).toBe(0);
    expect([...file.tensors.values()][0].begin % 8).toBe(0);
  }
});

it("keeps names that are special to JavaScript, in order of name", async () => {
  const names = ["toString", "__proto__", "10", "9", "constructor", "ä\u2028😀"];
  const bytes = await serializeSafetensors(names.map((name, i) => tensor(name, "u8", [1], Uint8Array.of(i))));
  const file = await SafetensorsFile.open(new MemorySource("m", bytes));
  expect([...file.tensors.keys()]).toEqual([...names].sort());
  for (const [i, name] of names.entries()) expect(await file.read(name)).toEqual(Uint8Array.of(i));
});

it("writes a view of a larger buffer, not the buffer", async () => {
  const whole = Uint8Array.of(9, 9, 1, 2, 9);
  const bytes = await serializeSafetensors([tensor("t", "u8", [2], whole.subarray(2, 4))]);
  expect(await (await SafetensorsFile.open(new MemorySource("m", bytes))).read("t")).toEqual(Uint8Array.of(1, 2));
});

/** Pieces in one reused buffer, as a reader's stream gives them. */
function pieces(...lengths: number[]): () => AsyncIterable<Uint8Array> {
  return async function* () {
    const buffer = new Uint8Array(16);
    let value = 0;
    for (const length of lengths) {
      for (let i = 0; i < length; i++) buffer[i] = ++value;
      yield buffer.subarray(0, length);
    }
  };
}

it("writes data as it comes", async () => {
  const bytes = await serializeSafetensors([tensor("t", "f32", [2], pieces(3, 0, 5))]);
  const file = await SafetensorsFile.open(new MemorySource("m", bytes));
  expect(await file.read("t")).toEqual(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
});

it("stops at the first byte too many", async () => {
  const tooMuch = async function* () {
    for (let i = 0; i < 5; i++) yield new Uint8Array(1000);
    throw new Error("it went on");
  };
  await expect(serializeSafetensors([tensor("t", "u8", [1500], tooMuch)])).rejects.toMatchObject({
    code: "SIZE_MISMATCH",
  });
});

const one = Uint8Array.of(1);
const refusals: [string, string, TensorEntry[], Record<string, string>?][] = [
  ["BAD_NAME", "empty name", [tensor("", "u8", [1], one)]],
  ["BAD_NAME", "NUL in a name", [tensor("a\0", "u8", [1], one)]],
  ["BAD_NAME", "half a surrogate pair", [tensor("\ud800", "u8", [1], one)]],
  ["BAD_NAME", "the metadata's name", [tensor("__metadata__", "u8", [1], one)]],
  ["DUPLICATE_KEY", "a name twice", [tensor("t", "u8", [1], one), tensor("t", "i8", [1], one)]],
  ["RANK", "9 dimensions", [tensor("t", "u8", [1, 1, 1, 1, 1, 1, 1, 1, 1], one)]],
  ["BAD_INT", "negative dimension", [tensor("t", "u8", [-1], one)]],
  ["BAD_INT", "dimension 0.5", [tensor("t", "u8", [0.5, 2], one)]],
  ["OVERFLOW", "2^80 elements", [tensor("t", "u8", [2 ** 40, 2 ** 40], one)]],
  ["OVERFLOW", "9 tensors of 2^50 bytes", [..."abcdefghi"].map((name) => tensor(name, "u8", [2 ** 50 - 1], pieces()))],
  ["SIZE_MISMATCH", "too little data", [tensor("t", "f32", [1], one)]],
  ["SIZE_MISMATCH", "too much data", [tensor("t", "u8", [0], one)]],
  ["SIZE_MISMATCH", "too little streamed data", [tensor("t", "u8", [3], pieces(1, 1))]],
  ["SIZE_MISMATCH", "too much streamed data", [tensor("t", "u8", [3], pieces(2, 2))]],
  ["BAD_METADATA", "a number", [], { a: 1 as unknown as string }],
  ["BAD_METADATA", "half a surrogate pair", [], { a: "\udc00" }],
];

describe("refuses", () => {
  it.each(refusals)("%s: %s", async (code, _about, tensors, metadata) => {
    await expect(serializeSafetensors(tensors, metadata)).rejects.toMatchObject({ name: "WeightError", code });
  });

  it("HEADER_TOO_LARGE: more than 100 MB of metadata", { timeout: 30_000 }, async () => {
    await expect(serializeSafetensors([], { a: "x".repeat(100_000_000) })).rejects.toMatchObject({
      code: "HEADER_TOO_LARGE",
    });
  });
});

describe("files", () => {
  it("are there whole, and open as a checkpoint", async () => {
    const path = join(folder, "good.safetensors");
    await saveSafetensors(path, REFERENCE_TENSORS, { format: "pt" });
    expect((await readFile(path)).equals(REFERENCE_FILE)).toBe(true);
    const checkpoint = await openCheckpoint(path);
    expect(checkpoint.metadata.get("format")).toBe("pt");
    expect(await checkpoint.read("byte")).toEqual(Uint8Array.of(7));
    await checkpoint.close();
  });

  it("stay as they were when writing fails, and nothing else is left", async () => {
    const path = join(folder, "old.safetensors");
    await writeFile(path, "old");
    const before = await readdir(folder);
    const bad = saveSafetensors(path, [tensor("t", "u8", [3], pieces(1, 1))]);
    await expect(bad).rejects.toMatchObject({ code: "SIZE_MISMATCH" });
    const thrown = new Error("the caller's own");
    await expect(writeFileAtomic(path, () => Promise.reject(thrown))).rejects.toBe(thrown);
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(before);
  });

  it.skipIf(process.platform === "win32")("keep a link and their mode, and devices are written to", async () => {
    const [file, link] = [join(folder, "private"), join(folder, "link")];
    await writeFile(file, "old", { mode: 0o600 });
    await symlink(file, link);
    const write = (path: string, text: string) =>
      writeFileAtomic(path, (sink) => sink.write(new TextEncoder().encode(text)));
    await write(link, "new");
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
    expect(await readFile(file, "utf8")).toBe("new");
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const device = join(folder, "device");
    await symlink("/dev/null", device);
    await write(device, "gone");
    expect((await stat(device)).isCharacterDevice()).toBe(true);
    await symlink("/dev/full", join(folder, "full"));
    await expect(write(join(folder, "full"), "lost")).rejects.toMatchObject({ code: "IO" });
  });

  it("cannot be written where there is no folder, or over a folder", async () => {
    await expect(saveSafetensors(join(folder, "none", "a.safetensors"), [])).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    const error = await saveSafetensors(folder, []).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "IO" });
    expect((error as Error).message).not.toContain(folder);
  });
});
