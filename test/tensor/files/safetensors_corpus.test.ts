/**
 * Every good and bad file and folder of the corpus, through every way of reading, against the verdicts that are written
 * down. `reference` in the table is what safetensors 0.8.0 (the Rust reader, through Python) said to the same bytes.
 */
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, open, readdir, readlink, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WeightError } from "../../../src/tensor/errors.ts";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { FileSource, NodeFolder } from "../../../src/tensor/files/source.node.ts";
import { BlobSource, type ByteSource, HttpSource, MemorySource } from "../../../src/tensor/files/source.ts";
import { type CorpusFile, FILES } from "./corpus/files.ts";
import { type Content, FOLDERS } from "./corpus/folders.ts";
import verdictTable from "./corpus/verdicts.json" with { type: "json" };

interface Verdict {
  /** "accept" or the error's code. */
  verdict: string;
  warns?: boolean;
  reference?: string;
}
const verdicts: Record<string, Verdict> = verdictTable;

/** Where ours refuses what the reference reads, and why. Everything else must be the same. */
const STRICTER: Record<string, string> = {
  A16: "two readers may see two different tensors",
  A17: "two readers may see two different tensors",
  A18b: "two readers may see two different texts",
  A19e: "null is no map of strings",
  A22a: "no name",
  A22b: "a reader in C sees another name",
  A22c: "a terminal obeys it",
  A22f: "a terminal obeys it",
  A23a: "no module has such a name",
  A23b: "no module has such a name",
  A26a: "time and memory",
  A26b: "time and memory",
  B09a: "no model has such a tensor",
  B09b: "no model has such a tensor",
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

it("has one verdict for each file and folder, and no other", () => {
  expect(Object.keys(verdicts).sort()).toEqual([...Object.keys(FILES), ...Object.keys(FOLDERS)].sort());
});

it("differs from the reference only where it means to", () => {
  for (const [id, { verdict, reference }] of Object.entries(verdicts)) {
    if (reference === undefined) continue;
    const ours = verdict === "accept" ? "accept" : "reject";
    expect({ id, differs: ours !== reference }).toEqual({ id, differs: id in STRICTER });
    if (ours !== reference) expect(reference).toBe("accept");
  }
});

/** The rules for every refusal, whatever the code. */
function expectRefusal(error: unknown, code: string): void {
  expect(error).toBeInstanceOf(WeightError);
  const { message, code: actual } = error as WeightError;
  expect({ code: actual, message }).toEqual({ code, message });
  expect(message.length).toBeLessThanOrEqual(300);
  expect(message).not.toContain(folder);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: nothing from the file may reach a terminal raw
  expect(message.replace("\n    hint: ", "")).not.toMatch(/[\x00-\x1f\x7f-\x9f]/);
}

/** Counts the bytes that are asked of `source` from now on. */
function countReads(source: ByteSource): { bytes: number } {
  const taken = { bytes: 0 };
  const read = source.read.bind(source);
  source.read = (offset, into) => {
    taken.bytes += into.length;
    return read(offset, into);
  };
  return taken;
}

/** Opens, and reads every tensor of a supported dtype whole. */
async function readAll(source: ByteSource, limits: CorpusFile["limits"]): Promise<Map<string, Uint8Array>> {
  const file = await SafetensorsFile.open(source, limits);
  const read = new Map<string, Uint8Array>();
  let many = 0;
  for (const { name, dtype } of file.tensors.values()) {
    if (many++ === 100) break;
    if (dtype === dtype.toLowerCase()) read.set(name, await file.read(name));
  }
  await file.close();
  return read;
}

describe.each(Object.entries(FILES))("%s", (id, { about, bytes: make, size, limits }) => {
  const { verdict, warns = false } = verdicts[id];
  it(`${about}: ${verdict}`, async () => {
    const bytes = make();
    const path = join(folder, `${id}.safetensors`);
    await writeFile(path, bytes);
    if (size) await truncate(path, size);
    // Every way of reading for the small ones; the large ones differ in nothing else.
    const sources: [string, () => Promise<ByteSource> | ByteSource][] = [["file", () => FileSource.open(path)]];
    if (bytes.length < 1e6 && !size) {
      sources.push(["memory", () => new MemorySource("m", bytes)]);
      sources.push(["blob", () => new BlobSource("b", new Blob([bytes as BlobPart]))]);
      sources.push(["http", () => HttpSource.open(serve(bytes))]);
    }
    for (const [kind, open] of sources) {
      const source = await open();
      let closed = 0;
      const close = source.close.bind(source);
      source.close = () => close().then(() => void closed++);
      const taken = countReads(source);
      const result = await readAll(source, limits).catch((error: unknown) => error);
      expect(taken.bytes, kind).toBeLessThanOrEqual(source.size + 64); // nothing twice but the first bytes
      expect(closed, kind).toBe(1);
      if (verdict !== "accept") expectRefusal(result, verdict);
      else {
        expect(result, kind).toBeInstanceOf(Map);
        // Data bytes count 1, 2, 3, …: each tensor must have got its own.
        const header = Number(new DataView(bytes.buffer).getBigUint64(0, true));
        const file = await SafetensorsFile.open(new MemorySource("m", bytes), limits);
        for (const [name, data] of result as Map<string, Uint8Array>) {
          const first = file.tensors.get(name)!.begin - 8 - header + 1;
          expect([...data]).toEqual(Array.from(data, (_, i) => first + i));
        }
        expect(file.warnings.length > 0).toBe(warns);
      }
    }
  });
});

// The served file; the corpus goes through one at a time.
let served = new Uint8Array();
const server = createServer((request, response) => {
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  const [begin, end] = [Number(range?.[1]), Math.min(Number(range?.[2]) + 1, served.length)];
  if (begin >= served.length) {
    response.writeHead(416, { "content-range": `bytes */${served.length}` }).end();
  } else {
    response.writeHead(206, { "content-range": `bytes ${begin}-${end - 1}/${served.length}` });
    response.end(served.subarray(begin, end));
  }
});
beforeAll(() => new Promise<void>((done) => server.listen(0, "127.0.0.1", done)));
afterAll(() => void server.close());
function serve(bytes: Uint8Array): string {
  served = new Uint8Array(bytes);
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/m.safetensors`;
}

describe("what the accepted files hold", () => {
  const openFile = (id: string) => SafetensorsFile.open(new MemorySource(id, FILES[id].bytes()));

  it("A21: names of Object.prototype are names", async () => {
    const { tensors } = await openFile("A21");
    expect([...tensors.keys()]).toEqual(["__proto__", "constructor", "toString", "hasOwnProperty"]);
    expect({}).not.toHaveProperty("dtype");
    const plain = await openFile("A00");
    expect(plain.tensors.has("constructor")).toBe(false);
    await expect(plain.read("constructor")).rejects.toMatchObject({ code: "MISSING_TENSORS" });
  });

  it("A00b, A24, A30: texts and names come through exactly", async () => {
    expect([...(await openFile("A00b")).metadata]).toEqual([
      ["format", "pt"],
      ["", "€€"],
    ]);
    expect([...(await openFile("A24")).tensors.keys()]).toEqual(["../../x"]);
    expect([...(await openFile("A30")).tensors.keys()]).toEqual(["\u2028", "😀e\u0301", '€😀/\\"']);
  });

  it("A27d: names the unknown field", async () => {
    expect((await openFile("A27d")).warnings).toEqual([expect.stringContaining('"extra"')]);
  });

  it.each(["A28d", "A28e", "A28h"])("%s: an unsupported dtype is refused when used", async (id) => {
    const file = await openFile(id);
    const error = await file.read("t").catch((e: unknown) => e);
    expectRefusal(error, "UNSUPPORTED_DTYPE");
    expect((error as WeightError).message).toContain(file.tensors.get("t")!.dtype);
  });

  it("B06, B08, B15: shapes, empty tensors, file order", async () => {
    const scalar = await openFile("B06");
    expect(scalar.tensors.get("t")!.shape).toEqual([]);
    expect(await scalar.read("t")).toEqual(Uint8Array.of(1, 2, 3, 4));
    const empty = await openFile("B08");
    expect(await empty.read("e")).toEqual(new Uint8Array(0));
    expect(await empty.read("a")).toEqual(Uint8Array.of(1));
    expect([...(await openFile("B15")).tensors.keys()]).toEqual(["b", "a"]);
  });

  it("B20: an F16 tensor at an odd offset can be viewed as 16-bit numbers", async () => {
    const bytes = await (await openFile("B20")).read("h");
    expect([...new Uint16Array(bytes.buffer)]).toEqual([0x0302, 0x0504, 0x0706]);
  });
});

describe("hints", () => {
  const hint = async (id: string) => {
    const error = await SafetensorsFile.open(new MemorySource(id, FILES[id].bytes())).catch((e: unknown) => e);
    return (error as WeightError).hint;
  };
  it.each([
    ["A12", "NUL-padded"],
    ["A28a", "F32"],
    ["A29a", "git lfs pull"],
    ["A29b", "download"],
    ["A29c", "pytorch_model.bin"],
    ["A29d", "pytorch_model.bin"],
    ["A26b", "maxHeaderBytes"],
    ["B17", "download"],
  ])("%s mentions %s", async (id, text) => expect(await hint(id)).toContain(text));
});

async function put(path: string, content: Content): Promise<void> {
  if (content === "directory") await mkdir(path);
  else if (content === "fifo") execFileSync("mkfifo", [path]);
  else if (typeof content === "string" || content instanceof Uint8Array) await writeFile(path, content);
  else if ("symlink" in content) await symlink(content.symlink, path);
  else {
    await writeFile(path, content.start);
    await truncate(path, content.size);
  }
}

describe.skipIf(process.platform === "win32").each(Object.entries(FOLDERS))("%s", (id, { about, files, limits }) => {
  const { verdict, warns = false } = verdicts[id];
  it(`${about}: ${verdict}`, async () => {
    const path = join(folder, id);
    await mkdir(path);
    for (const [name, content] of Object.entries(files())) await put(join(path, name), content);
    const result = await Checkpoint.open(new NodeFolder(path), limits).catch((error: unknown) => error);
    if (verdict !== "accept") return expectRefusal(result, verdict);
    expect(result).toBeInstanceOf(Checkpoint);
    const checkpoint = result as Checkpoint;
    expect(checkpoint.warnings.length > 0).toBe(warns);
    for (const name of checkpoint.tensors.keys()) expect(await checkpoint.read(name)).toHaveLength(1);
    await checkpoint.close();
  });
});

it("leaves no file open after refusing folders", async () => {
  if (process.platform !== "linux") return;
  const files = async () => {
    const links = (await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ""));
    return (await Promise.all(links)).filter((path) => path.startsWith(folder));
  };
  const held = await open(join(folder, "A00.safetensors"));
  expect(await files()).toEqual([join(folder, "A00.safetensors")]);
  await held.close();
  for (const id of ["B28a", "B28d", "B28f", "B27a"]) {
    for (let i = 0; i < 5; i++) await Checkpoint.open(new NodeFolder(join(folder, id))).catch(() => undefined);
  }
  expect(await files()).toEqual([]);
});
