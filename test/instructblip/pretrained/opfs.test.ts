/** What a browser keeps, on a file system and a server in memory. `npm run browser:check` tests it in a browser. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { HandleFolder, OpfsCache } from "../../../src/index.ts";
import * as browserPlatform from "../../../src/instructblip/pretrained/platform.browser.ts";
import type { Folder } from "../../../src/tensor/files/source.ts";
import { FakeFile, FakeStore } from "./opfs.ts";

const URL = "https://example.org/m";
const FILE = "sub/weights.safetensors";
const bytesOf = (length: number, first = 0) => Uint8Array.from({ length }, (_, i) => (first + 7 * i) % 251);

let store: FakeStore;
/** The server: what it has, what goes wrong, and what was asked of it. */
let server: {
  files: Map<string, Uint8Array>;
  etag: string | null;
  last_modified: string | null;
  isGone: boolean;
  ignoresRange: boolean;
  /** Bytes after which the connection breaks, for each request of more than one byte. */
  cuts: number[];
  seen: string[];
};

beforeEach(() => {
  store = new FakeStore();
  const files = new Map([
    ["config.json", new TextEncoder().encode("{}")],
    ["empty.txt", new Uint8Array()],
    [FILE, bytesOf(1000)],
  ]);
  server = { files, etag: '"1"', last_modified: null, isGone: false, ignoresRange: false, cuts: [], seen: [] };
  vi.stubGlobal("navigator", store.navigator);
  vi.stubGlobal("FileSystemFileHandle", FakeFile);
  vi.stubGlobal("fetch", answer);
});
afterEach(() => vi.unstubAllGlobals());

async function answer(url: string, { method, headers }: RequestInit): Promise<Response> {
  if (server.isGone) throw new TypeError("fetch failed");
  const name = url.slice(URL.length + 1);
  const range = new Headers(headers).get("range");
  server.seen.push([method, name, range].filter(Boolean).join(" "));
  const file = server.files.get(name);
  if (!file) return new Response(null, { status: 404 });
  const [, from, to] = (!server.ignoresRange && /^bytes=(\d+)-(\d*)$/.exec(range ?? "")) || [];
  const part = file.slice(Number(from ?? 0), to ? Number(to) + 1 : undefined);
  const answered: Record<string, string> = {};
  if (server.etag) answered.etag = server.etag;
  if (server.last_modified) answered["last-modified"] = server.last_modified;
  const isBeyond = from !== undefined && Number(from) >= file.length;
  if (isBeyond) answered["content-range"] = `bytes */${file.length}`;
  else if (from) answered["content-range"] = `bytes ${from}-${Number(from) + part.length - 1}/${file.length}`;
  else answered["content-length"] = `${file.length}`;
  const cut = part.length > 1 && method !== "HEAD" ? server.cuts.shift() : undefined;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(part.slice(0, cut));
      if (cut === undefined) controller.close();
    },
    // What was sent before a cut arrives.
    pull: (controller) => controller.error(new TypeError("terminated")),
  });
  const status = isBeyond ? 416 : from === undefined ? 200 : 206;
  return new Response(method === "HEAD" || isBeyond ? null : body, { status, headers: answered });
}

const open = async (options: Parameters<OpfsCache["folder"]>[1] = {}) =>
  (await OpfsCache.open()).folder(URL, { retryDelayMs: 0, pieceBytes: 64, ...options });

/** The bytes of a file; those asked of the server are in `server.seen`. */
async function read(folder: Folder, file = FILE): Promise<Uint8Array> {
  server.seen.length = 0;
  const source = await folder.open(file);
  const bytes = new Uint8Array(source.size);
  await source.read(0, bytes);
  return bytes;
}

describe("a download", () => {
  test("is kept in pieces, and later checked by its first byte", async () => {
    expect(await read(await open())).toEqual(bytesOf(1000));
    expect(server.seen).toEqual([`GET ${FILE} bytes=0-0`, `GET ${FILE} bytes=0-`]);
    const pieces = [...store.files()].filter(([path]) => /\/\d+$/.test(path));
    expect(pieces.map(([, { bytes }]) => bytes.length)).toEqual([...new Array(15).fill(64), 40]);
    expect(await read(await open())).toEqual(bytesOf(1000));
    expect(server.seen).toEqual([`GET ${FILE} bytes=0-0`]);
    expect((await (await open()).open(FILE)).version).toBe('"1"');
  });

  test("goes on after every break as long as there is progress, and where it stopped at a later visit", async () => {
    server.cuts = [100, 1, 128, 5, 6, 7, 8, 9];
    expect(await read(await open())).toEqual(bytesOf(1000));
    expect(server.seen.slice(1, 4)).toEqual(["0-", "100-", "101-"].map((range) => `GET ${FILE} bytes=${range}`));
    await (await OpfsCache.open()).clear();
    server.cuts = [300, 0, 0, 0, 0, 0];
    await expect(read(await open())).rejects.toMatchObject({ code: "IO", hint: expect.stringMatching(/300 of 1000/) });
    expect(await (await OpfsCache.open()).list()).toEqual([
      {
        url: URL,
        keptBytes: 300,
        files: [{ name: FILE, size: 1000, keptBytes: 300, isReduced: false }],
        quantized: [],
      },
    ]);
    expect(await read(await open())).toEqual(bytesOf(1000));
    expect(server.seen[1]).toBe(`GET ${FILE} bytes=300-`);
  });

  test("of a server that ignores ranges begins again", async () => {
    server.ignoresRange = true;
    server.cuts = [0, 300, 500]; // the first is the question for the first byte, which sends all
    expect(await read(await open())).toEqual(bytesOf(1000));
  });

  test("that a crash ended goes on after the last full piece", async () => {
    await read(await open());
    for (const path of store.files().keys()) {
      // What a browser had not closed is not there.
      const [, folder, name] = /^(.*)\/(\d+)$/.exec(path) ?? [];
      if (Number(name) < 9 || folder === undefined) continue;
      let at = store.root;
      for (const part of folder.split("/")) at = await at.getDirectoryHandle(part);
      await at.removeEntry(name);
    }
    expect(await read(await open())).toEqual(bytesOf(1000));
    expect(server.seen[1]).toBe(`GET ${FILE} bytes=${9 * 64}-`);
  });

  test.each([
    ["another ETag", { etag: '"2"' }],
    ["another time of change", { etag: null, last_modified: "Tue, 02 Jan 2024 00:00:00 GMT" }],
    ["another size", { etag: '"1"' }],
  ])("is begun again for %s", async (what, now) => {
    if (now.etag === null) Object.assign(server, { etag: null, last_modified: "Mon, 01 Jan 2024 00:00:00 GMT" });
    server.cuts = [300, 0, 0, 0, 0, 0];
    await expect(read(await open())).rejects.toMatchObject({ code: "IO" });
    server.files.set(FILE, bytesOf(what === "another size" ? 999 : 1000, 3));
    Object.assign(server, now);
    expect(await read(await open())).toEqual(server.files.get(FILE));
    expect(server.seen[1]).toBe(`GET ${FILE} bytes=0-`);
  });

  test("of a file that changes on the way is refused", async () => {
    const around = globalThis.fetch;
    vi.stubGlobal("fetch", (url: string, init: RequestInit) => {
      const asked = around(url, init);
      server.etag = '"2"';
      return asked;
    });
    await expect(read(await open())).rejects.toMatchObject({ code: "FILE_CHANGED" });
  });

  test("is told how far it is, and aborted with its signal's reason; what came is kept", async () => {
    const seen: number[] = [];
    const controller = new AbortController();
    server.cuts = [300];
    const on_download = ({
      file,
      loadedBytes,
      totalBytes,
    }: {
      file: string;
      loadedBytes: number;
      totalBytes: number;
    }) => {
      expect([file, totalBytes]).toEqual([FILE, 1000]);
      seen.push(loadedBytes);
      if (loadedBytes >= 300) controller.abort("enough");
    };
    await expect(read(await open({ on_download, signal: controller.signal }))).rejects.toBe("enough");
    expect(seen).toEqual([0, 300]);
    expect((await (await OpfsCache.open()).list())[0].keptBytes).toBe(300);
  });
});

describe("without the server", () => {
  test("what is kept is read, and what was absent is absent; the rest is not known", async () => {
    const folder = await open();
    await read(folder);
    expect([await folder.has("config.json"), await folder.has("other.json")]).toEqual([true, false]);
    server.isGone = true;
    const later = await open();
    expect(await read(later)).toEqual(bytesOf(1000));
    expect([await later.has(FILE), await later.has("other.json")]).toEqual([true, false]);
    await expect(later.has("config.json")).rejects.toMatchObject({ code: "IO" });
    await expect(later.text("config.json")).rejects.toMatchObject({ code: "IO" });
  });

  test("local_files_only asks for nothing", async () => {
    await read(await open());
    const local = await open({ local_files_only: true });
    expect(await read(local)).toEqual(bytesOf(1000));
    expect(await local.has("config.json")).toBe(false);
    await expect(local.text("config.json")).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(server.seen).toEqual([]);
  });

  test("a file that the server no longer has is not there", async () => {
    await read(await open());
    server.files.delete(FILE);
    await expect(read(await open())).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});

describe("what cannot be kept is a warning, and read from the server", () => {
  test.each<[string, () => void, RegExp]>([
    ["no validators", () => Object.assign(server, { etag: null }), /neither its size nor its version/],
    ["too little room", () => Object.assign(store.estimate, { quota: 1500, usage: 600 }), /takes 0\.0 MB more/],
    ["no room after all", () => Object.assign(store, { left: 500 }), /no more space for its 0\.0 MB/],
  ])("%s", async (_, arrange, said) => {
    arrange();
    const folder = await open();
    expect(await read(folder)).toEqual(bytesOf(1000));
    expect(folder.warnings).toEqual([expect.stringMatching(said)]);
    expect((await (await OpfsCache.open()).list()).flatMap(({ files }) => files)).toEqual([]);
  });

  test("no file system", async () => {
    vi.stubGlobal("navigator", {});
    await expect(OpfsCache.open()).rejects.toMatchObject({ code: "NO_OPFS" });
    await expect(browserPlatform.cacheFolder(true)).rejects.toMatchObject({ code: "NO_OPFS" });
    const folder = await browserPlatform.openFolder(URL, { cache: "opfs" });
    expect(folder.warnings).toEqual([expect.stringMatching(/^files are not kept: /)]);
    expect(await read(folder)).toEqual(bytesOf(1000));
  });
});

describe("quantized weights that are kept too", () => {
  const NEEDED: [number, number][] = [
    [0, 10],
    [500, 530],
    [530, 540],
    [990, 1000],
  ];
  const part = async (folder: Folder, [begin, end]: [number, number]) => {
    const bytes = new Uint8Array(end - begin);
    await (await folder.open(FILE)).read(begin, bytes);
    return bytes;
  };
  const readParts = (ranges: [number, number][]) => async (folder: Folder) => {
    await folder.text("config.json");
    for (const range of ranges) await part(folder, range);
  };
  const paths = () => [...store.files().keys()].map((path) => path.slice(path.lastIndexOf("/") + 1));
  const filesOf = async () => (await (await OpfsCache.open()).list())[0]!.files;

  /** A visit that ends with quantized weights. */
  async function reduce(ranges = NEEDED, name = "q.safetensors"): Promise<void> {
    const folder = await open();
    await read(folder, "config.json");
    await read(folder);
    await folder.quantizedAs!(name, readParts(ranges));
  }

  test("take the place of the file, but for the parts that are needed besides", async () => {
    await reduce();
    expect(await filesOf()).toEqual([
      { name: "config.json", size: 2, keptBytes: 2, isReduced: false },
      { name: FILE, size: 1000, keptBytes: 60, isReduced: true },
    ]);
    expect(paths().filter((name) => /^\d+$/.test(name))).toEqual(["0"]); // of config.json
    server.seen.length = 0;
    server.isGone = true;
    const folder = await open();
    expect(await folder.has(FILE)).toBe(true);
    const source = await folder.preview!()!.open(FILE);
    expect([source.size, source.version]).toEqual([1000, '"1"']);
    for (const [begin, end] of [...NEEDED, [500, 540], [501, 539]] as [number, number][]) {
      expect(await part(folder, [begin, end])).toEqual(bytesOf(1000).slice(begin, end));
    }
    expect(server.seen).toEqual([]);
    await expect(part(folder, [9, 11])).rejects.toMatchObject({ code: "IO" });
  });

  test("with the rest downloaded again where it is needed, resumed after a break", async () => {
    await reduce();
    const local = await open({ local_files_only: true });
    expect(await part(local, [0, 10])).toEqual(bytesOf(10));
    await expect(part(local, [0, 11])).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringContaining("as quantized weights alone"),
    });
    server.cuts = [300, 0, 0, 0, 0, 0];
    await expect(part(await open(), [0, 1000])).rejects.toMatchObject({ code: "IO" });
    expect((await filesOf())[1]).toEqual({ name: FILE, size: 1000, keptBytes: 360, isReduced: true });
    const progress: number[] = [];
    const folder = await open({ on_download: ({ loadedBytes }) => void progress.push(loadedBytes) });
    server.seen.length = 0;
    expect(await part(folder, [5, 1000])).toEqual(bytesOf(1000).slice(5));
    expect(server.seen).toEqual([`GET ${FILE} bytes=0-0`, `GET ${FILE} bytes=300-`]);
    expect([progress[0], progress.at(-1)]).toEqual([300, 1000]);
    expect((await filesOf())[1]).toMatchObject({ isReduced: false });
  });

  test("of another dtype need other parts: both are kept", async () => {
    await reduce();
    await part(await open(), [0, 1000]);
    await reduce([[100, 200]], "q2.safetensors");
    expect((await filesOf())[1]).toMatchObject({ keptBytes: 160, isReduced: true });
    server.isGone = true;
    const folder = await open();
    for (const range of [...NEEDED, [100, 200]] as [number, number][]) {
      expect(await part(folder, range)).toEqual(bytesOf(1000).slice(...range));
    }
    expect(paths().filter((name) => /^parts-/.test(name))).toHaveLength(1);
  });

  test("of a file that has changed count no more", async () => {
    await reduce();
    server.files.set(FILE, bytesOf(1000, 3));
    server.etag = '"2"';
    expect(await read(await open())).toEqual(bytesOf(1000, 3));
    expect((await filesOf())[1]).toMatchObject({ keptBytes: 1000, isReduced: false });
    expect(paths().some((name) => /^parts-/.test(name))).toBe(false);
  });

  test("leave the file as it is where the parts cannot be written, or all of it is needed", async () => {
    await read(await open());
    const folder = await open();
    await folder.open(FILE);
    await folder.quantizedAs!("q", readParts([[0, 1000]]));
    await folder.quantizedAs!("q");
    store.left = 0;
    await expect(folder.quantizedAs!("q", readParts(NEEDED))).rejects.toMatchObject({ name: "WeightError" });
    server.isGone = true;
    expect(await read(await open())).toEqual(bytesOf(1000));
  });

  test("are read from the server by ranges where there is no more room for the file", async () => {
    await reduce();
    store.left = 500;
    const folder = await open();
    expect(await part(folder, [0, 1000])).toEqual(bytesOf(1000));
    expect(folder.warnings).toEqual([expect.stringMatching(/no more space/)]);
    expect(await part(folder, [500, 540])).toEqual(bytesOf(1000).slice(500, 540));
  });

  test("are listed and deleted with their folder", async () => {
    await reduce();
    const cache = await OpfsCache.open();
    const { write } = await cache.quantized();
    for (const name of ["q.safetensors", "other"]) await write.writeText(name, "12345");
    const [kept] = await cache.list();
    expect(kept).toMatchObject({ quantized: [{ name: "q.safetensors", size: 5 }], keptBytes: 67 });
    await cache.delete(URL);
    expect(await cache.list()).toEqual([]);
    expect(paths()).toEqual(["other"]);
  });
});

test("an empty file is kept, and a damaged state is as none", async () => {
  expect(await read(await open(), "empty.txt")).toEqual(new Uint8Array());
  server.isGone = true;
  expect(await read(await open(), "empty.txt")).toEqual(new Uint8Array());
  server.isGone = false;
  await read(await open());
  for (const [path, file] of store.files()) if (path.endsWith("state.json")) file.bytes = new Uint8Array([123]);
  expect(await read(await open())).toEqual(bytesOf(1000));
  expect(server.seen).toHaveLength(2);
});

describe("a folder of the browser's file system", () => {
  test("is written to and read", async () => {
    const folder = new HandleFolder(store.root as unknown as FileSystemDirectoryHandle);
    await folder.writeText("a/b/c.txt", "words");
    await folder.write("d.bin", async (sink) => {
      await sink.write(bytesOf(5));
      await sink.write(bytesOf(6));
    });
    expect(await folder.text("a/b/c.txt")).toBe("words");
    expect(await folder.list()).toEqual(["d.bin"]);
    expect([await folder.has("a/b/c.txt"), await folder.has("a/b"), await folder.has("a/x")]).toEqual([
      true,
      false,
      false,
    ]);
    const source = await folder.open("d.bin");
    expect([source.size, source.version]).toEqual([11, "2"]);
    await folder.delete("d.bin");
    await folder.delete("d.bin");
    await expect(folder.open("d.bin")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(folder.open("../d.bin")).rejects.toMatchObject({ code: "BAD_SHARD_PATH" });
  });

  test("keeps the old file where writing fails", async () => {
    const folder = new HandleFolder(store.root as unknown as FileSystemDirectoryHandle);
    await folder.writeText("a.txt", "old");
    store.left = 3;
    const failed = folder.writeText("a.txt", "longer");
    await expect(failed).rejects.toMatchObject({ code: "IO", message: expect.stringContaining("no more space") });
    await expect(folder.write("a.txt", () => Promise.reject(new RangeError("mine")))).rejects.toThrow(RangeError);
    expect(await folder.text("a.txt")).toBe("old");
  });
});
