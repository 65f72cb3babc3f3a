/**
 * PyTorch's files: every dtype, stride and shared storage as torch.load gives it (test/golden/pytorch/make.py), pickles that try to
 * run code, damaged archives, and a checkpoint of shards from every kind of folder.
 */
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { PyTorchFile } from "../../../src/tensor/files/pytorch.ts";
import { type ByteSource, FileListFolder, HttpFolder, MemorySource } from "../../../src/tensor/files/source.ts";
import { dictPickle, op, pytorchFile, pytorchZip, tensorPickle, type View, zip } from "./pytorch_file.ts";

interface Described {
  readonly tensors: Readonly<Record<string, { dtype: string; shape: number[]; hex: string }>>;
  readonly ignored: readonly string[];
  /** The file in base64. */
  readonly data: string;
}
const INDEX = JSON.parse(
  gunzipSync(readFileSync(new URL("../../golden/pytorch/data/files.json.gz", import.meta.url))).toString(),
) as {
  files: Record<string, Described>;
  refused: Record<string, { code: string; named: string; data: string }>;
};

/** Ours for each of torch's dtypes. */
const DTYPE_OF: Record<string, string> = {
  ...{ float64: "f64", float32: "f32", float16: "f16", bfloat16: "bf16", bool: "bool" },
  ...{ int64: "i64", int32: "i32", int16: "i16", int8: "i8" },
  ...{ uint64: "u64", uint32: "u32", uint16: "u16", uint8: "u8" },
  ...{ complex64: "C64", complex128: "C128", float8_e4m3fn: "F8_E4M3", float8_e5m2: "F8_E5M2" },
  ...{ float8_e4m3fnuz: "F8_E4M3FNUZ", float8_e5m2fnuz: "F8_E5M2FNUZ", float8_e8m0fnu: "F8_E8M0" },
};
const isReadable = (dtype: string) => /^[a-z]/.test(DTYPE_OF[dtype]);

const memory = (name: string, bytes: Uint8Array) => new MemorySource(name, bytes);
const open = (bytes: Uint8Array, limits?: Parameters<typeof PyTorchFile.open>[1]) =>
  PyTorchFile.open(memory("pytorch_model.bin", bytes), limits);

/** All tensors of a checkpoint through its stream, as hex. */
async function streamed(
  checkpoint: Checkpoint,
  names: Iterable<string>,
  options = {},
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { name, byteOffset, bytes } of checkpoint.stream(names, options)) {
    expect(byteOffset).toBe((found[name] ?? "").length / 2);
    expect(bytes.byteOffset % 8).toBe(0);
    found[name] = (found[name] ?? "") + Buffer.from(bytes).toString("hex");
  }
  return found;
}

describe.each(Object.keys(INDEX.files))("%s", (file) => {
  const { tensors, ignored, data } = INDEX.files[file];
  const readable = Object.keys(tensors).filter((name) => isReadable(tensors[name].dtype));
  const numbers = Object.fromEntries(readable.map((name) => [name, tensors[name].hex]));

  test("has torch's tensors, byte for byte, whole, by rows and streamed", async () => {
    const checkpoint = await Checkpoint.open(memory(file, Buffer.from(data, "base64")));
    expect(new Set(checkpoint.tensors.keys())).toEqual(new Set(Object.keys(tensors)));
    for (const [name, { dtype, shape }] of Object.entries(tensors)) {
      expect({ name, ...checkpoint.tensors.get(name) }).toMatchObject({ name, dtype: DTYPE_OF[dtype], shape });
    }
    const warnings = checkpoint.warnings.join();
    for (const name of ignored) expect(warnings).toContain(name);
    for (const name of readable) {
      const { shape, hex } = tensors[name];
      expect(Buffer.from(await checkpoint.read(name)).toString("hex"), name).toBe(hex);
      const [rows] = shape;
      if (!rows) continue;
      const row = hex.length / rows;
      for (const [a, b] of [
        [0, 1],
        [rows - 1, rows],
        [1, Math.max(1, rows - 1)],
      ]) {
        // biome-ignore format: pairs
        if (b > rows || a > b) continue;
        expect(Buffer.from(await checkpoint.read(name, [a, b])).toString("hex"), name).toBe(
          hex.slice(a * row, b * row),
        );
      }
    }
    for (const chunkBytes of [8, 24, 64, 4096]) {
      for (const reads of [1, 3]) {
        if (chunkBytes / reads < 8) continue;
        expect(await streamed(checkpoint, readable, { chunkBytes, reads })).toEqual(numbers);
      }
    }
    for (const name of Object.keys(tensors).filter((name) => !isReadable(tensors[name].dtype))) {
      await expect(checkpoint.read(name)).rejects.toMatchObject({ code: "UNSUPPORTED_DTYPE" });
    }
    await checkpoint.close();
  });
});

describe("refused by torch.save's files", () => {
  test.each(Object.entries(INDEX.refused))("%s", async (file, { code, named, data }) => {
    const refusal = Checkpoint.open(memory(file, Buffer.from(data, "base64")));
    await expect(refusal).rejects.toMatchObject({ code, message: expect.stringContaining(named) });
    expect(existsSync("/tmp/instructblip-pwned")).toBe(false);
  });
});

const F32 = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const W: View = { dtype: "f32", shape: [2, 2], storage: "0" };
const STORAGES = { 0: F32(1, 2, 3, 4) };
const rebuilt = (view: Partial<View>, numel = 4) => tensorPickle({ ...W, ...view }, numel);

describe("the archive", () => {
  test.each([{}, { wide: true }, { narrow: true }, { comment: "PK\x05\x06 and more" }])("with %o", async (options) => {
    const file = await open(pytorchFile({ w: W, t: { ...W, strides: [1, 2] } }, STORAGES, options));
    expect(await file.read("w")).toEqual(F32(1, 2, 3, 4));
    expect(await file.read("t")).toEqual(F32(1, 3, 2, 4));
  });

  const good = pytorchFile({ w: W }, STORAGES, { narrow: true });
  const patched = (search: string, at: number, write: (bytes: Buffer) => void, last = false) => {
    const bytes = Buffer.from(good);
    const found = last ? bytes.lastIndexOf(search, undefined, "latin1") : bytes.indexOf(search, 0, "latin1");
    write(bytes.subarray(found + at));
    return bytes;
  };
  test.each<[string, Uint8Array, string]>([
    ["nothing", new Uint8Array(0), "NOT_PYTORCH"],
    ["text", Buffer.from("weights"), "NOT_PYTORCH"],
    ["a Git LFS pointer", Buffer.from("version https://git-lfs.github.com/spec/v1\noid"), "NOT_PYTORCH"],
    [
      "a safetensors file",
      Buffer.concat([Buffer.from([40, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{"a": 1}')]),
      "NOT_PYTORCH",
    ],
    ["a pickle of Python", Buffer.from("\x80\x04N.", "latin1"), "NOT_PYTORCH"],
    ["half of the archive", good.subarray(0, good.length / 2), "TRUNCATED"],
    ["an end cut off", good.subarray(0, -1), "TRUNCATED"],
    ["bytes before it", Buffer.concat([good.subarray(0, 30), good]), "BAD_ZIP"],
    ["a directory elsewhere", patched("PK\x05\x06", 16, (b) => b.writeUInt32LE(3), true), "BAD_ZIP"],
    ["more entries than there are", patched("PK\x05\x06", 10, (b) => b.writeUInt16LE(9), true), "BAD_ZIP"],
    ["fewer entries", patched("PK\x05\x06", 10, (b) => b.writeUInt16LE(1), true), "BAD_ZIP"],
    ["several parts", patched("PK\x05\x06", 4, (b) => b.writeUInt16LE(1), true), "BAD_ZIP"],
    ["two sizes", patched("PK\x01\x02", 20, (b) => b.writeUInt32LE(1)), "BAD_ZIP"],
    ["an encrypted entry", patched("PK\x01\x02", 8, (b) => b.writeUInt16LE(1)), "ZIP_PACKED"],
    ["a header elsewhere", patched("PK\x01\x02", 42, (b) => b.writeUInt32LE(1)), "BAD_ZIP"],
    ["a header beyond the data", patched("PK\x01\x02", 42, (b) => b.writeUInt32LE(2 ** 30)), "BAD_ZIP"],
    ["data beyond the directory", patched("PK\x03\x04", 28, (b) => b.writeUInt16LE(0xffff)), "BAD_ZIP"],
    ["zip64 without its end record", patched("PK\x05\x06", 16, (b) => b.writeUInt32LE(0xffffffff), true), "BAD_ZIP"],
    ["no pickle", zip({ "a/data/0": F32(1) }), "NOT_PYTORCH"],
    ["two pickles", zip({ "a/data.pkl": op.stop, "b/data.pkl": op.stop }), "NOT_PYTORCH"],
  ])("%s", async (_, bytes, code) => {
    await expect(open(bytes)).rejects.toMatchObject({ code });
  });

  test("one name twice", async () => {
    const bytes = Buffer.from(zip({ "a/1": F32(1), "a/2": F32(1) }));
    const name = bytes.lastIndexOf("a/2");
    bytes.write("a/1", name);
    await expect(open(bytes)).rejects.toMatchObject({ code: "BAD_ZIP", message: expect.stringContaining("a/1") });
  });

  test("what it takes is bounded before it is read", async () => {
    const bytes = pytorchFile({ w: W }, STORAGES);
    await expect(open(bytes, { maxHeaderBytes: 60 })).rejects.toMatchObject({ code: "HEADER_TOO_LARGE" });
    const two = pytorchFile({ a: W, b: W }, STORAGES);
    await expect(open(two, { maxTensors: 1 })).rejects.toMatchObject({ code: "TOO_MANY_TENSORS" });
    const dicts = Buffer.concat([op.begin, Buffer.alloc(3000, "}"), op.stop]);
    await expect(open(pytorchZip(dicts, {}), { maxTensors: 1 })).rejects.toMatchObject({ code: "HEADER_TOO_LARGE" });
  });
});

describe("the pickle", () => {
  const call = (module: string, name: string, ...args: Buffer[]) =>
    Buffer.concat([op.global(module, name), op.mark, ...args, op.tuple, op.reduce]);
  const raw = (...bytes: (Buffer | number)[]) =>
    Buffer.concat(bytes.map((part) => (typeof part === "number" ? Buffer.from([part]) : part)));
  const dict = (value: Buffer) => dictPickle({ w: rebuilt({}), x: value });
  const storageId = (...items: Buffer[]) => raw(op.mark, ...items, op.tuple, op.persistent);

  test("what calls copy is bounded too", async () => {
    const list = raw(op.emptyList, 0x71, 1, op.mark, ...Array.from({ length: 1000 }, () => op.int(1)), 0x65);
    const copies = (calls: number) =>
      raw(...Array.from({ length: calls }, () => raw(op.global("torch", "Size"), 0x68, 1, 0x85, op.reduce)));
    const bytes = (calls: number) =>
      pytorchZip(raw(op.begin, op.emptyList, op.mark, list, copies(calls), 0x65, op.stop), {});
    await expect(open(bytes(1), { maxTensors: 2000 })).rejects.not.toMatchObject({ code: "HEADER_TOO_LARGE" });
    await expect(open(bytes(300), { maxTensors: 2000 })).rejects.toMatchObject({ code: "HEADER_TOO_LARGE" });
  });

  test.each<[string, Buffer, string, string]>([
    ["os.system", dict(call("os", "system", op.text("true"))), "PICKLE_GLOBAL", "os.system"],
    ["a name that is not called", dict(op.global("builtins", "exec")), "PICKLE_GLOBAL", "builtins.exec"],
    ["a name with what terminals obey", dict(op.global("a", "\x1b[2J")), "PICKLE_GLOBAL", "a.\\u001b[2J"],
    ["a part of an allowed name", dict(op.global("torch", "Float")), "PICKLE_GLOBAL", "torch.Float"],
    ["an object's own names", dict(op.global("torch", "__proto__")), "PICKLE_GLOBAL", "torch.__proto__"],
    ["INST", dict(raw(op.mark, Buffer.from("ios\nsystem\n"))), "PICKLE_GLOBAL", "os.system"],
    ["STACK_GLOBAL", dict(raw(op.text("os"), op.text("system"), 0x93)), "PICKLE_GLOBAL", "os.system"],
    ["STACK_GLOBAL of no text", dict(raw(op.int(1), op.int(2), 0x93)), "BAD_PICKLE", "no text"],
    ["NEWOBJ of a known name", dict(raw(op.global("torch", "Size"), op.emptyTuple, 0x81)), "BAD_PICKLE", "torch.Size"],
    ["OBJ", dict(raw(op.mark, op.int(1), 0x6f)), "BAD_PICKLE", "0x6f"],
    ["an extension", dict(raw(0x82, 1)), "BAD_PICKLE", "0x82"],
    ["a call of a storage", dict(call("torch", "FloatStorage", op.int(9))), "BAD_PICKLE", "torch.FloatStorage"],
    ["a call of a number", dict(raw(op.int(1), op.emptyTuple, op.reduce)), "BAD_PICKLE", "no function"],
    ["a call of None", dict(raw(0x4e, op.emptyTuple, op.reduce)), "BAD_PICKLE", "no function"],
    ["a call with a list", dict(raw(op.global("torch", "Size"), op.emptyList, op.reduce)), "BAD_PICKLE", "no tuple"],
    ["BUILD of a tensor", dict(raw(rebuilt({}), op.emptyDict, 0x62)), "BAD_PICKLE", "state"],
    [
      "a parameter of no tensor",
      dict(call("torch._utils", "_rebuild_parameter", op.int(1))),
      "BAD_PICKLE",
      "_rebuild_parameter",
    ],
    ["items set in a list", dict(raw(op.emptyList, op.int(1), op.int(2), 0x73)), "BAD_PICKLE", "no dict"],
    ["an unknown protocol", raw(0x80, 9, op.stop), "BAD_PICKLE", "protocol 9"],
    ["a reference to nothing", dict(raw(0x68, 7)), "BAD_PICKLE", "under 7"],
    ["no mark", dict(raw(op.tuple, op.tuple, op.tuple)), "BAD_PICKLE", "marks"],
    ["an empty stack", raw(op.begin, op.stop), "BAD_PICKLE", "too few values"],
    ["values below a mark", raw(op.begin, op.int(1), op.mark, 0x85, op.stop), "BAD_PICKLE", "too few values"],
    ["an end before its end", dict(op.int(1)).subarray(0, -1), "BAD_PICKLE", "too early"],
    ["a text longer than the pickle", dict(raw(0x58, 255, 255, 255, 127)), "BAD_PICKLE", "too early"],
    ["a text that is no UTF-8", dict(raw(0x55, 1, 0xff, 0x8c, 1, 0xff)), "BAD_PICKLE", "UTF-8"],
    ["a persistent id of a module", dict(storageId(op.text("module"), op.int(1))), "BAD_PICKLE", "module"],
    ["a persistent id that is no tuple", dict(raw(op.int(1), op.persistent)), "BAD_PICKLE", "unknown kind"],
    [
      "a storage without a number",
      dict(storageId(op.text("storage"), op.global("torch", "FloatStorage"))),
      "BAD_PICKLE",
      "storage",
    ],
    [
      "a dtype as a storage",
      dict(storageId(op.text("storage"), op.global("torch", "float32"), op.text("0"), op.text("cpu"), op.int(4))),
      "BAD_PICKLE",
      "storage",
    ],
    ["storages of two sizes", dict(rebuilt({}, 5)), "BAD_PICKLE", "two sizes"],
    ["a storage of another size", dictPickle({ w: rebuilt({}, 5) }), "SIZE_MISMATCH", "20 bytes, got 16"],
    ["a storage that is not there", dictPickle({ w: rebuilt({ storage: "../0" }) }), "TRUNCATED", "../0"],
    ["a storage above 2^53 bytes", dictPickle({ w: rebuilt({}, 2 ** 52) }), "OVERFLOW", "elements"],
    ["a view beyond its storage", dictPickle({ w: rebuilt({ offset: 1 }) }), "BAD_VIEW", "16 bytes"],
    ["a stride beyond its storage", dictPickle({ w: rebuilt({ strides: [3, 1] }) }), "BAD_VIEW", "16 bytes"],
    [
      "an offset of nothing beyond it",
      dictPickle({ w: rebuilt({ shape: [0, 2], offset: 5 }) }),
      "BAD_VIEW",
      "16 bytes",
    ],
    ["a shape of another rank", dictPickle({ w: rebuilt({ strides: [1] }) }), "BAD_PICKLE", "strides"],
    ["nine dimensions", dictPickle({ w: rebuilt({ shape: Array(9).fill(1) }) }), "RANK", "9 dimensions"],
    [
      "more elements than numbers",
      dictPickle({ w: rebuilt({ shape: [2 ** 40, 2 ** 40], strides: [0, 0] }) }),
      "OVERFLOW",
      "2^53",
    ],
    [
      "an expanded tensor too large to gather",
      dictPickle({ w: rebuilt({ shape: [2 ** 30, 2], strides: [0, 1] }) }),
      "TENSOR_TOO_LARGE",
      "contiguous",
    ],
    ["a name with a control character", dictPickle({ "a\nb": rebuilt({}) }), "BAD_NAME", "control character"],
  ])("%s", async (_, pickle, code, named) => {
    await expect(open(pytorchZip(pickle, STORAGES))).rejects.toMatchObject({
      code,
      message: expect.stringContaining(named),
    });
  });

  test("a state dict is found below its key, also beside a few tensors, of which a warning tells", async () => {
    const inner = dictPickle({ w: rebuilt({}) }).subarray(2, -1);
    for (const key of ["model", "state_dict", "module"]) {
      const file = await open(pytorchZip(dictPickle({ epoch: op.int(3), [key]: inner }), STORAGES));
      expect([...file.tensors.keys()]).toEqual(["w"]);
    }
    const both = await open(pytorchZip(dictPickle({ model: inner, own: rebuilt({}) }), STORAGES));
    expect([...both.tensors.keys()]).toEqual(["w"]);
    expect(both.warnings.join()).toContain('"own"');
    const more = dictPickle({ model: inner, own: rebuilt({}), other: rebuilt({}) });
    const outer = await open(pytorchZip(more, STORAGES));
    expect([...outer.tensors.keys()].sort()).toEqual(["other", "own"]);
    expect(outer.warnings.join()).toContain('"model"');
  });
});

describe("a file before 1.6", () => {
  const good = Buffer.from(INDEX.files["training.legacy.pth"].data, "base64");
  const patched = (write: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(good);
    write(bytes);
    return bytes;
  };
  test.each<[string, Uint8Array, string]>([
    ["cut off in its data", good.subarray(0, -1), "TRUNCATED"],
    ["cut off in its pickle", good.subarray(0, 300), "TRUNCATED"],
    ["with a byte more", Buffer.concat([good, Buffer.of(0)]), "TRAILING_DATA"],
    ["of another version", patched((b) => b.writeUInt16LE(1002, 18)), "NOT_PYTORCH"],
    ["of a big-endian machine", patched((b) => b.fill(0x89, b.indexOf(0x88), b.indexOf(0x88) + 1)), "BIG_ENDIAN"],
    [
      "with a key that no storage has",
      patched((b) => b.fill("x", b.lastIndexOf("X", -100) + 5, b.lastIndexOf("X", -100) + 6)),
      "BAD_PICKLE",
    ],
  ])("%s", async (_, bytes, code) => {
    await expect(open(bytes)).rejects.toMatchObject({ code });
  });

  test.each([2n, -1n, 2n ** 62n])("with %s as the number of elements", async (count) => {
    const { begin } = (await open(good)).tensors.get("weight")!;
    await expect(open(patched((b) => b.writeBigInt64LE(count, begin - 8)))).rejects.toMatchObject({
      code: "SIZE_MISMATCH",
    });
  });

  test("its pickle is read until it ends, and no further than the limit", async () => {
    const names = Array.from({ length: 2000 }, (_, i) => `name.${i}`.padEnd(200, "."));
    const start = good.indexOf(Buffer.from("}q\x00(X\x05\x00\x00\x00model", "latin1"));
    expect(start).toBeGreaterThan(0);
    const more = Buffer.concat(names.flatMap((name) => [op.text(name), op.int(1)]));
    const opening = good.subarray(0, start + 4); // the dict and its mark
    const large = Buffer.concat([opening, more, good.subarray(start + 4)]);
    const file = await open(large);
    expect(await file.read("weight")).toEqual(await (await open(good)).read("weight"));
    await expect(open(large, { maxHeaderBytes: 300_000 })).rejects.toMatchObject({ code: "HEADER_TOO_LARGE" });
  });
});

test("a file that is refused is closed, and an open one reads only what is asked for", async () => {
  const bytes = pytorchFile(
    { far: { ...W, storage: "9" }, t: { ...W, strides: [1, 2] } },
    { 0: F32(1, 2, 3, 4), 5: new Uint8Array(2 ** 20), 9: F32(5, 6, 7, 8) },
  );
  const reads: number[] = [];
  let closed = 0;
  const source: ByteSource = {
    name: "a.bin",
    size: bytes.length,
    read: async (offset, into) => {
      reads.push(into.length);
      bytes.copy(into, 0, offset, offset + into.length);
    },
    close: async () => void closed++,
  };
  const file = await PyTorchFile.open(source);
  expect(reads.reduce((a, b) => a + b)).toBeLessThan(2 ** 17); // the directory's search and the headers
  reads.length = 0;
  expect(await file.read("far", [1, 2])).toEqual(F32(7, 8));
  expect(await file.read("t")).toEqual(F32(1, 3, 2, 4));
  expect(await file.read("t", [1, 2])).toEqual(F32(2, 4));
  expect(reads).toEqual([8, 16]); // what is gathered from is read once
  await file.close();
  expect(closed).toBe(1);
  bytes.fill(0, bytes.length - 22);
  await expect(PyTorchFile.open(source)).rejects.toMatchObject({ code: "TRUNCATED" });
  expect(closed).toBe(2);
});

describe("a checkpoint", () => {
  const shards: Record<string, Uint8Array> = {
    "pytorch_model-00001-of-00002.bin": pytorchFile({ w: W, same: W }, STORAGES),
    "pytorch_model-00002-of-00002.bin": pytorchFile({ v: W }, { 0: F32(5, 6, 7, 8) }),
  };
  const [one, two] = Object.keys(shards);
  const index = { metadata: { total_size: 32 }, weight_map: { w: one, same: one, v: two } };
  const files: Record<string, Uint8Array> = {
    ...shards,
    "pytorch_model.bin.index.json": Buffer.from(JSON.stringify(index)),
  };
  const listOf = (given: Record<string, Uint8Array>) =>
    new FileListFolder(Object.entries(given).map(([name, bytes]) => new File([new Uint8Array(bytes)], name)));

  /** A server that answers ranges. */
  const served = async (url: string | URL | Request, init?: RequestInit) => {
    const body = files[new URL(String(url)).pathname.slice(1)];
    if (!body) return new Response(null, { status: 404 });
    const range = /bytes=(\d+)-(\d+)/.exec(new Headers(init?.headers).get("range") ?? "");
    if (!range) return new Response(init?.method === "HEAD" ? null : new Uint8Array(body));
    const [begin, last] = [Number(range[1]), Math.min(Number(range[2]), body.length - 1)];
    const headers = { "content-range": `bytes ${begin}-${last}/${body.length}` };
    return new Response(new Uint8Array(body.subarray(begin, last + 1)), { status: 206, headers });
  };

  test.each([
    ["chosen in a browser", () => listOf(files)],
    [
      "on a server",
      () => new HttpFolder("https://host.example/", { fetch: served as typeof fetch, lookup: async () => [] }),
    ],
  ])("of shards, %s", async (_, folder) => {
    const checkpoint = await Checkpoint.open(folder());
    expect(checkpoint.warnings).toEqual([]);
    expect(await checkpoint.read("same")).toEqual(F32(1, 2, 3, 4));
    const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
    const all = { w: hex(F32(1, 2, 3, 4)), same: hex(F32(1, 2, 3, 4)), v: hex(F32(5, 6, 7, 8)) };
    expect(await streamed(checkpoint, Object.keys(all))).toEqual(all);
    expect(checkpoint.files.map(({ name }) => name)).toEqual(Object.keys(shards));
    await checkpoint.close();
  });

  test("safetensors come first, then one file, then shards", async () => {
    const single = pytorchFile({ single: W }, STORAGES);
    const tensors = Buffer.from('8       {"s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}} x');
    tensors.writeBigUInt64LE(BigInt(tensors.length - 9));
    const of = async (given: Record<string, Uint8Array>) => [...(await Checkpoint.open(listOf(given))).tensors.keys()];
    const both = { ...files, "pytorch_model.bin": single };
    expect(await of({ ...both, "model.safetensors": tensors })).toEqual(["s"]);
    expect(await of(both)).toEqual(["single"]);
    expect(await of(files)).toEqual(["w", "same", "v"]);
  });

  test("a shard that is missing, and one with another's numbers", async () => {
    const { [two]: gone, ...rest } = files;
    await expect(Checkpoint.open(listOf(rest))).rejects.toMatchObject({ code: "MISSING_SHARD" });
    const other = pytorchFile({ v: W, w: { ...W, strides: [1, 2] } }, { 0: F32(1, 2, 3, 4) });
    await expect(Checkpoint.open(listOf({ ...files, [two]: other }))).rejects.toMatchObject({
      code: "INDEX_MISMATCH",
      message: expect.stringContaining("pytorch_model.bin.index.json"),
    });
  });
});
