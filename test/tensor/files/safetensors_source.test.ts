/** The places that bytes come from: files that change, servers that misbehave, folders, and what nobody may reach. */
import { appendFile, mkdir, mkdtemp, rename, rm, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { serializeSafetensors } from "../../../src/tensor/files/safetensors_writer.ts";
import { checkSha256, FileSource, NodeFolder, openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { BlobSource, FileListFolder, HttpFolder, HttpSource, MemorySource } from "../../../src/tensor/files/source.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sources-"));
});
afterAll(() => rm(folder, { recursive: true }));

const bytes = (n: number, seed = 0) => Uint8Array.from({ length: n }, (_, i) => (seed + i) % 251);

describe("FileSource", () => {
  const make = async (name: string, size = 100) => {
    const path = join(folder, name);
    await writeFile(path, bytes(size));
    return path;
  };

  it("reads exactly what is asked for, at any offset", async () => {
    const source = await FileSource.open(await make("plain"));
    expect([source.name, source.size]).toEqual(["plain", 100]);
    const into = new Uint8Array(40).subarray(10, 20);
    await source.read(90, into);
    expect(into).toEqual(bytes(10, 90));
    await source.read(100, new Uint8Array(0));
    await source.close();
  });

  it.each([
    [91, 10],
    [-1, 1],
    [0.5, 1],
    [Number.NaN, 1],
  ])("refuses offset %s, length %s", async (offset, length) => {
    const source = await FileSource.open(await make("range"));
    await expect(source.read(offset, new Uint8Array(length))).rejects.toMatchObject({ code: "IO" });
    await source.close();
  });

  const changes: [string, (path: string) => Promise<unknown>][] = [
    ["truncated", (path) => truncate(path, 50)],
    ["appended to", (path) => appendFile(path, "x")],
    ["touched", (path) => utimes(path, 1, 1)],
    [
      "replaced by an equal file of the same age",
      async (path) => {
        const other = await make("other");
        await utimes(other, 1000, 1000);
        await rename(other, path);
      },
    ],
    ["deleted", (path) => rm(path)],
  ];
  it.each(changes)("notices that the file was %s", async (what, change) => {
    const path = await make(what);
    await utimes(path, 1000, 1000);
    const source = await FileSource.open(path);
    await source.read(0, new Uint8Array(10));
    await change(path);
    await expect(source.read(60, new Uint8Array(10))).rejects.toMatchObject({ code: "FILE_CHANGED" });
    await source.close();
  });

  it("refuses what is not a file, or not there, without the whole path in the message", async () => {
    const refusal = (path: string) =>
      FileSource.open(path).then(
        () => expect.unreachable(),
        (error: Error & { code: string }) => [error.code, error.message.includes(folder)],
      );
    expect(await refusal(folder)).toEqual(["NOT_REGULAR_FILE", false]);
    expect(await refusal(join(folder, "none"))).toEqual(["NOT_FOUND", false]);
    expect(await refusal(join(folder, "plain", "below"))).toEqual(["NOT_FOUND", false]);
    if (process.platform === "linux") expect(await refusal("/dev/zero")).toEqual(["NOT_REGULAR_FILE", false]);
  });

  it("keeps to SHA-256 when one is given", async () => {
    const source = await FileSource.open(await make("hashed", 5 * 2 ** 20));
    const another = "4cda10fc38c57d3c7c85b71b1ce7e2df16bb26b9d5b5ab3b8b8e6e3f7c5e5b0a";
    await expect(checkSha256(source, another)).rejects.toMatchObject({ code: "INTEGRITY" });
    await source.close();
    const abc = new MemorySource("abc", new TextEncoder().encode("abc"));
    // FIPS 180-2, appendix B.1
    await checkSha256(abc, "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD");
    const empty = new MemorySource("empty", new Uint8Array(0));
    await checkSha256(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  });
});

describe("BlobSource", () => {
  it("reads slices, and reports a file that cannot be read any more", async () => {
    const source = new BlobSource("b", new Blob([bytes(60), bytes(40, 60)]));
    const into = new Uint8Array(20);
    await source.read(50, into);
    expect(into).toEqual(bytes(20, 50));
    await expect(source.read(90, into)).rejects.toMatchObject({ code: "IO" });
    // What browsers do once the file behind a File has changed.
    const gone = new Blob([bytes(10)]);
    gone.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("", "NotReadableError")) }) as Blob;
    await expect(new BlobSource("g", gone).read(0, new Uint8Array(5))).rejects.toMatchObject({ code: "FILE_CHANGED" });
    gone.slice = () => new Blob([bytes(4)]);
    await expect(new BlobSource("g", gone).read(0, new Uint8Array(5))).rejects.toMatchObject({ code: "FILE_CHANGED" });
    await source.close();
  });
});

type Handler = (request: IncomingMessage, response: ServerResponse, begin: number, end: number) => void;
const FILE = bytes(1000);
let handler: Handler;
let requests: string[] = [];
const server = createServer((request, response) => {
  requests.push(`${request.method} ${request.url} ${request.headers.range ?? ""}`);
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  handler(request, response, Number(range?.[1] ?? 0), Number(range?.[2] ?? FILE.length - 1) + 1);
});
beforeAll(() => new Promise<void>((done) => server.listen(0, "127.0.0.1", done)));
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
afterEach(() => {
  requests = [];
});
const url = (path = "/m.safetensors?token=secret") =>
  `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`;

const send = (response: ServerResponse, begin: number, end: number, headers: Record<string, string> = {}) => {
  response.writeHead(206, { "content-range": `bytes ${begin}-${end - 1}/${FILE.length}`, ...headers });
  response.end(FILE.subarray(begin, end));
};
const honest: Handler = (_request, response, begin, end) => send(response, begin, end);
/** Promises everything that was asked for, sends `count` bytes, and cuts the line. */
const cutAfter = (response: ServerResponse, begin: number, end: number, count: number) => {
  response.writeHead(206, {
    "content-range": `bytes ${begin}-${end - 1}/${FILE.length}`,
    "content-length": String(end - begin),
  });
  if (count === 0) response.flushHeaders();
  response.write(FILE.subarray(begin, begin + count), () => setTimeout(() => response.destroy(), 5));
};

describe("HttpSource", () => {
  const openHonest = async (options = {}) => {
    handler = honest;
    return HttpSource.open(url(), { retryDelayMs: 1, ...options });
  };

  it("reads ranges, and shows neither the host nor the query", async () => {
    const source = await openHonest({ headers: { authorization: "Bearer x" } });
    expect([source.name, source.size]).toEqual(["m.safetensors", 1000]);
    handler = (request, response, begin, end) => {
      expect(request.headers.authorization).toBe("Bearer x");
      send(response, begin, end);
    };
    const into = new Uint8Array(100);
    await source.read(850, into);
    expect(into).toEqual(bytes(100, 850));
    expect(requests.at(-1)).toContain("bytes=850-949");
    await source.read(3, new Uint8Array(0));
    expect(requests.length).toBe(2);
    await expect(source.read(950, into)).rejects.toMatchObject({ code: "IO" });
  });

  const refusals: [string, string, Handler][] = [
    ["HTTP_NO_RANGE", "ignores ranges", (_q, response) => void response.writeHead(200).end(FILE)],
    ["HTTP_NO_RANGE", "gives no size", (_q, response) => send(response, 0, 1, { "content-range": "bytes 0-0/*" })],
    ["HTTP_NO_RANGE", "gives another range", (_q, response) => send(response, 5, 6)],
    ["HTTP_NO_RANGE", "gives no Content-Range", (_q, response) => void response.writeHead(206).end("x")],
    ["NOT_FOUND", "answers 404", (_q, response) => void response.writeHead(404).end("not here")],
    ["HTTP_STATUS", "answers 403", (_q, response) => void response.writeHead(403).end()],
    ["HTTP_STATUS", "answers 500", (_q, response) => void response.writeHead(500).end()],
    ["HTTP_STATUS", "answers 416 for a file that has bytes", (_q, response) => void response.writeHead(416).end()],
    ["IO", "hangs up", (_q, response) => void response.destroy()],
  ];
  it.each(refusals)("%s: a server that %s, when opening and when reading", async (code, _what, misbehave) => {
    const source = await openHonest();
    handler = misbehave;
    const errors = [HttpSource.open(url()), source.read(0, new Uint8Array(10))].map((p) => p.catch((e: unknown) => e));
    for (const error of await Promise.all(errors)) {
      expect(error).toMatchObject({ name: "WeightError", code });
      expect((error as Error).message).not.toMatch(/secret|127\.0\.0\.1/);
    }
  });

  it("does not download a file whose server ignores ranges", async () => {
    let sent = 0;
    handler = (_request, response) => {
      response.writeHead(200);
      const pump = () => {
        while (sent < 200e6 && !response.destroyed) {
          sent += 65_536;
          if (!response.write(new Uint8Array(65_536))) return void response.once("drain", pump);
        }
        response.end();
      };
      pump();
    };
    await expect(HttpSource.open(url())).rejects.toMatchObject({ code: "HTTP_NO_RANGE" });
    expect(sent).toBeLessThan(20e6);
  });

  it("knows an empty file", async () => {
    handler = (_request, response) => void response.writeHead(416, { "content-range": "bytes */0" }).end();
    expect((await HttpSource.open(url())).size).toBe(0);
  });

  it("goes on where a cut connection stopped, and where a server sends less than asked", async () => {
    const source = await openHonest();
    let cuts = 0;
    handler = (_request, response, begin, end) => {
      if (cuts++ < 1) cutAfter(response, begin, end, 300);
      else if (cuts === 2) send(response, begin, begin + 200);
      else send(response, begin, end);
    };
    const into = new Uint8Array(1000);
    await source.read(0, into);
    expect(into).toEqual(FILE);
    expect(requests.slice(1).map((r) => r.split(" ")[2])).toEqual(["bytes=0-999", "bytes=300-999", "bytes=500-999"]);
  });

  it("IO: gives up on a connection that breaks again and again", async () => {
    const source = await openHonest();
    handler = (_request, response, begin, end) => cutAfter(response, begin, end, 0);
    await expect(source.read(0, new Uint8Array(100))).rejects.toMatchObject({ code: "IO" });
    expect(requests.length).toBe(1 + 4);
  });

  it("IO: gives up on a silent server", async () => {
    const source = await openHonest({ silenceMs: 300 }); // which must not happen where the server answers
    handler = () => {};
    await expect(HttpSource.open(url(), { silenceMs: 300 })).rejects.toMatchObject({ code: "IO" });
    handler = (_request, response, begin, end) => {
      response.writeHead(206, { "content-range": `bytes ${begin}-${end - 1}/1000` });
      response.write(FILE.subarray(begin, begin + 1)); // and no more
    };
    await expect(source.read(0, new Uint8Array(100))).rejects.toMatchObject({ code: "IO" });
    expect(requests.length).toBe(2 + 4);
  });

  it("FILE_CHANGED: another size, or another strong ETag", async () => {
    const source = await openHonest();
    handler = (_request, response) => send(response, 0, 10, { "content-range": "bytes 0-9/999" });
    await expect(source.read(0, new Uint8Array(10))).rejects.toMatchObject({ code: "FILE_CHANGED" });

    handler = (_request, response, begin, end) => send(response, begin, end, { etag: '"one"' });
    const tagged = await HttpSource.open(url());
    await tagged.read(0, new Uint8Array(10));
    handler = (_request, response, begin, end) => send(response, begin, end, { etag: 'W/"two"' });
    await tagged.read(0, new Uint8Array(10));
    handler = (_request, response, begin, end) => send(response, begin, end, { etag: '"two"' });
    await expect(tagged.read(0, new Uint8Array(10))).rejects.toMatchObject({ code: "FILE_CHANGED" });
  });

  it("HTTP_NO_RANGE: more bytes than asked for", async () => {
    const source = await openHonest();
    handler = (_request, response, begin, end) => {
      response.writeHead(206, { "content-range": `bytes ${begin}-${end - 1}/1000` }).end(FILE);
    };
    await expect(source.read(0, new Uint8Array(10))).rejects.toMatchObject({ code: "HTTP_NO_RANGE" });
  });

  it("stops when aborted: before, while waiting, while reading", async () => {
    const reason = new Error("stop");
    handler = honest;
    await expect(HttpSource.open(url(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);

    const waiting = new AbortController();
    handler = () => waiting.abort(reason);
    await expect(HttpSource.open(url(), { signal: waiting.signal })).rejects.toBe(reason);

    const reading = new AbortController();
    const source = await openHonest({ signal: reading.signal });
    handler = (_request, response, begin, end) => {
      response.writeHead(206, { "content-range": `bytes ${begin}-${end - 1}/1000` });
      response.write(FILE.subarray(0, 1), () => setTimeout(() => reading.abort(reason), 20));
    };
    await expect(source.read(0, new Uint8Array(100))).rejects.toBe(reason);
    expect(requests.length).toBe(3);
  });

  it("leaves no timer behind that would keep the process alive", async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
    const before = timers();
    const source = await openHonest();
    await source.read(0, new Uint8Array(500));
    handler = (_request, response) => void response.destroy();
    await expect(source.read(0, new Uint8Array(500))).rejects.toMatchObject({ code: "IO" });
    expect(timers()).toBeLessThanOrEqual(before);
  });

  it("uses the fetch it is given", async () => {
    handler = honest;
    let calls = 0;
    const counted: typeof fetch = (...args) => {
      calls++;
      return fetch(...args);
    };
    const source = await HttpSource.open(url(), { fetch: counted });
    await source.read(0, new Uint8Array(1));
    expect(calls).toBe(2);
    await source.close();
  });
});

const TENSORS = [
  { name: "a", dtype: "f32", shape: [2], data: Float32Array.of(1, 2) },
  { name: "b", dtype: "u8", shape: [3], data: Uint8Array.of(1, 2, 3) },
] as const;

describe("folders", () => {
  const BAD_NAMES = [
    "../x",
    "/x",
    "a/../b",
    "a//b",
    "./a",
    "C:x",
    "a\\b",
    "http://x/y",
    "a\0",
    "",
    "a/",
    "x".repeat(201),
  ];

  const nodeFolder = async () => {
    const path = join(folder, "node", "sub ü");
    await mkdir(path, { recursive: true });
    await writeFile(join(folder, "node", "config.json"), '{"é": 1}');
    await writeFile(join(path, "vocab.json"), "[]");
    return new NodeFolder(join(folder, "node"));
  };
  const listFolder = async () => {
    const picked = (path: string, content: string) =>
      Object.defineProperty(new File([content], path.split("/").at(-1)!), "webkitRelativePath", { value: path });
    return new FileListFolder([picked("node/config.json", '{"é": 1}'), picked("node/sub ü/vocab.json", "[]")]);
  };
  const httpFolder = async () => {
    handler = (request, response) => {
      const files = new Map([
        ["/node/config.json", '{"é": 1}'],
        ["/node/sub%20%C3%BC/vocab.json", "[]"],
      ]);
      const found = files.get(request.url!);
      response.writeHead(found ? 200 : 404).end(found);
    };
    return new HttpFolder(url("/node/"));
  };

  it.each([
    ["NodeFolder", nodeFolder],
    ["FileListFolder", listFolder],
    ["HttpFolder", httpFolder],
  ])("%s finds, reads, and stays inside", async (_kind, make) => {
    const found = await make();
    expect(found.name).toBe("node");
    expect(await found.has("config.json")).toBe(true);
    expect(await found.has("none.json")).toBe(false);
    expect(await found.text("config.json")).toBe('{"é": 1}');
    expect(await found.text("sub ü/vocab.json")).toBe("[]");
    await expect(found.text("none.json")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(found.open("none.json")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(found.text("config.json", 8)).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
    expect(await found.text("config.json", 9)).toBe('{"é": 1}');
    for (const bad of BAD_NAMES) {
      await expect(found.has(bad)).rejects.toMatchObject({ code: "BAD_SHARD_PATH" });
      await expect(found.text(bad)).rejects.toMatchObject({ code: "BAD_SHARD_PATH" });
      await expect(found.open(bad)).rejects.toMatchObject({ code: "BAD_SHARD_PATH" });
    }
  });

  it("text is strict UTF-8 and keeps a byte order mark for the parser to refuse", async () => {
    await nodeFolder();
    const path = join(folder, "node");
    await writeFile(join(path, "bad.txt"), Uint8Array.of(0x61, 0xff));
    await writeFile(join(path, "bom.txt"), Uint8Array.of(0xef, 0xbb, 0xbf, 0x61));
    const found = new NodeFolder(path);
    await expect(found.text("bad.txt")).rejects.toMatchObject({ code: "BAD_UTF8" });
    expect(await found.text("bom.txt")).toBe("\ufeffa");
  });

  it("FileListFolder also takes single files", async () => {
    const found = new FileListFolder([new File(["[]"], "a.json")]);
    expect([found.name, await found.text("a.json")]).toEqual(["the chosen files", "[]"]);
  });

  it("NodeFolder passes on what is not plain absence", async () => {
    await symlink("loop", join(folder, "loop"));
    await expect(new NodeFolder(folder).has("loop")).rejects.toMatchObject({ code: "IO" });
  });

  it("HttpFolder passes on what is not plain absence, and reports a cut line", async () => {
    handler = (_request, response) => void response.writeHead(401).end();
    await expect(new HttpFolder(url("/m")).has("a")).rejects.toMatchObject({ code: "HTTP_STATUS" });
    await expect(new HttpFolder(url("/m")).text("a")).rejects.toMatchObject({ code: "HTTP_STATUS" });
    handler = (_request, response, begin, end) => cutAfter(response, begin, end, 10);
    await expect(new HttpFolder(url("/m")).text("a")).rejects.toMatchObject({ code: "IO" });
    const controller = new AbortController();
    handler = (_request, response) => {
      response.writeHead(200);
      response.write("x", () => setTimeout(() => controller.abort("stop"), 20));
    };
    await expect(new HttpFolder(url("/m"), { signal: controller.signal }).text("a")).rejects.toBe("stop");
  });

  it("HttpFolder takes the page that a web application answers everything else with for no file", async () => {
    const html = { "content-type": "text/html; charset=utf-8" };
    handler = (request, response) => {
      const there = request.url === "/m/config.json";
      response
        .writeHead(200, there ? { "content-type": "application/json" } : html)
        .end(there ? "{}" : "<!doctype html>");
    };
    const folder = new HttpFolder(url("/m"));
    expect([await folder.has("config.json"), await folder.has("special_tokens_map.json")]).toEqual([true, false]);
    await expect(folder.text("none.json")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(folder.open("none.safetensors")).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(folder.open("config.json")).rejects.toMatchObject({ code: "HTTP_NO_RANGE" });
  });

  it("a checkpoint opens from each of them", async () => {
    const file = await serializeSafetensors(TENSORS);
    const path = join(folder, "checkpoint");
    await mkdir(path);
    await writeFile(join(path, "model.safetensors"), file);
    handler = (request, response, begin) => {
      const range = /^bytes=\d+-(\d+)$/.exec(request.headers.range ?? "");
      if (request.url !== "/m/model.safetensors") response.writeHead(404).end();
      else if (!range) response.writeHead(200).end();
      else {
        const end = Math.min(Number(range[1]) + 1, file.length);
        response.writeHead(206, { "content-range": `bytes ${begin}-${end - 1}/${file.length}` });
        response.end(file.subarray(begin, end));
      }
    };
    const list = new FileListFolder([new File([file as BlobPart], "model.safetensors")]);
    for (const checkpoint of [
      await openCheckpoint(path),
      await openCheckpoint(join(path, "model.safetensors")),
      await Checkpoint.open(list),
      await Checkpoint.open(new HttpFolder(url("/m"))),
    ]) {
      const gathered: [string, number[]][] = [];
      for await (const { name, bytes } of checkpoint.stream(["b", "a"])) gathered.push([name, [...bytes]]);
      expect(gathered).toEqual([
        ["a", [0, 0, 128, 63, 0, 0, 0, 64]],
        ["b", [1, 2, 3]],
      ]);
      await checkpoint.close();
    }
    await expect(openCheckpoint(join(folder, "none"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
