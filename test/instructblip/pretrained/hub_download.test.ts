/**
 * Downloads from a local server with the Hub's protocol: the cache's layout, resuming, hashes, refusals, and offline use.
 * There are no requests to other machines.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import type { ServerResponse } from "node:http";
import { hostname, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { HubOptions } from "../../../src/instructblip/pretrained/hub/client.node.ts";
import { HubFolder } from "../../../src/instructblip/pretrained/hub/folder.node.ts";
import type { DownloadProgress } from "../../../src/instructblip/pretrained/hub/hub.ts";
import { parseHubId } from "../../../src/instructblip/pretrained/hub/hub.ts";
import { nodePlatform } from "../../../src/instructblip/pretrained/platform.node.ts";
import { InstructBlipProcessor } from "../../../src/instructblip/processing/instructblip_processor.ts";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { NodeFolder, openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { compiled } from "../../compiled.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { type HubModel, HubServer, oidOf } from "./hub_server.ts";

const SIZE = 300_000;
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS = "model.safetensors";

let folder: string;
let model: HubModel;
let server: HubServer;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "hub-"));
  const files = {
    "README.md": Buffer.from("# not needed"),
    "config.json": Buffer.from('{"model_type": "instructblip"}'),
    [WEIGHTS]: randomBytes(SIZE),
    "pytorch_model.bin": randomBytes(100),
    "qformer_tokenizer/tokenizer.json": Buffer.from("{}"),
    "empty.txt": Buffer.alloc(0),
  };
  model = { repository: "owner/name", commit: COMMIT, files, large: [WEIGHTS, "pytorch_model.bin"] };
  server = await HubServer.start(model);
});

afterEach(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

const store = () => join(folder, "hub", "models--owner--name");
const blobs = () => readdirSync(join(store(), "blobs")).sort();
const blobOf = (file: string) => join(store(), "blobs", oidOf(model, file));
const requests = () =>
  server.seen.map(({ host, method, path, range }) => `${host} ${method} ${path}${range ? ` ${range}` : ""}`);
const ofWeights = () => server.seen.filter(({ host }) => host === "cdn").map(({ range }) => range);

function openHub(id = "owner/name", { env, ...options }: HubOptions = {}): Promise<HubFolder> {
  const own = { HF_HOME: folder, HF_ENDPOINT: server.endpoint, ...env };
  return HubFolder.open(parseHubId(id)!, { retryDelayMs: 1, env: own, ...options });
}

async function bytesOf(from: HubFolder, file: string): Promise<Buffer> {
  const source = await from.open(file);
  try {
    const bytes = Buffer.alloc(source.size);
    await source.read(0, bytes);
    return bytes;
  } finally {
    await source.close();
  }
}

/** Not `toEqual`, which takes half a second for each. */
async function expectWhole(from: HubFolder, file: string): Promise<void> {
  expect((await bytesOf(from, file)).equals(model.files[file]), file).toBe(true);
}

test("a file is downloaded when it is opened, into the layout of huggingface_hub, and only then", async () => {
  const hub = await openHub();
  expect([hub.name, hub.commit]).toEqual(["owner/name", COMMIT]);
  expect(await hub.text("config.json")).toBe('{"model_type": "instructblip"}');
  expect(await hub.text("qformer_tokenizer/tokenizer.json")).toBe("{}");
  expect(await hub.text("empty.txt")).toBe("");
  await expectWhole(hub, WEIGHTS);
  // "Has" and "hasn't" are known without a download.
  expect(await hub.has("pytorch_model.bin")).toBe(true);
  expect(await hub.has("added_tokens.json")).toBe(false);

  expect(readFileSync(join(store(), "refs", "main"), "utf8")).toBe(COMMIT);
  const opened = ["config.json", "qformer_tokenizer/tokenizer.json", "empty.txt", WEIGHTS];
  expect(blobs()).toEqual(opened.map((file) => oidOf(model, file)).sort());
  const snapshot = join(store(), "snapshots", COMMIT);
  expect(readlinkSync(join(snapshot, WEIGHTS))).toBe(`../../blobs/${oidOf(model, WEIGHTS)}`);
  expect(readlinkSync(join(snapshot, "qformer_tokenizer/tokenizer.json"))).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\//);
  expect(existsSync(join(store(), ".no_exist", COMMIT, "added_tokens.json"))).toBe(true);
  expect(requests().filter((line) => /README|\.bin|added_tokens/.test(line))).toEqual([]);
  await expect(hub.open("../../refs/main")).rejects.toMatchObject({ code: "BAD_SHARD_PATH" });
});

test("what is cached is found with no network: offline, with the server gone, and by its commit without a question", async () => {
  const first = await openHub();
  await first.text("config.json");
  await bytesOf(first, WEIGHTS);
  expect(await first.has("added_tokens.json")).toBe(false);
  server.seen.length = 0;

  const again = await openHub();
  await expectWhole(again, WEIGHTS);
  expect(await again.has("added_tokens.json")).toBe(false);
  expect(requests()).toEqual(["hub GET /api/models/owner/name/revision/main"]);

  server.seen.length = 0;
  for (const hub of [
    await openHub(`owner/name@${COMMIT}`),
    await openHub("owner/name", { env: { HF_HUB_OFFLINE: "1" } }),
  ]) {
    await expectWhole(hub, WEIGHTS);
    expect(await hub.has("added_tokens.json")).toBe(false);
  }
  expect(server.seen).toEqual([]);

  await server.stop();
  rmSync(join(store(), ".no_exist"), { recursive: true });
  for (const id of ["owner/name", `owner/name@${COMMIT}`]) {
    const hub = await openHub(id);
    expect(await hub.text("config.json")).toContain("instructblip");
    expect(await hub.has("added_tokens.json")).toBe(false);
    await expect(hub.open("README.md")).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
  }
  await expect(openHub("owner/name@other")).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
});

test("offline, a model that is not wholly cached is refused before anything is tried", async () => {
  const offline = { env: { HF_HUB_OFFLINE: "1" } };
  await expect(openHub("owner/name", offline)).rejects.toMatchObject({ code: "HUB_OFFLINE" });
  await (await openHub()).text("config.json");
  server.seen.length = 0;
  const refusal = await openHub("owner/name", offline).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "HUB_OFFLINE", message: expect.stringContaining("HF_HUB_OFFLINE") });
  expect(server.seen).toEqual([]);
});

test("a new commit on the Hub is fetched, and shares the blobs that did not change", async () => {
  const old = await openHub();
  await bytesOf(old, WEIGHTS);
  await old.text("config.json");
  model.commit = "f".repeat(40);
  model.files["config.json"] = Buffer.from("{}");
  server.seen.length = 0;
  const hub = await openHub();
  expect(await hub.text("config.json")).toBe("{}");
  await expectWhole(hub, WEIGHTS);
  expect(ofWeights()).toEqual([]);
  expect(readFileSync(join(store(), "refs", "main"), "utf8")).toBe("f".repeat(40));
  expect(await old.text("config.json")).toContain("instructblip");
});

test("a cut connection is resumed where it stopped, and progress never goes back", async () => {
  const cuts = [100_000, 100_000, 50_000];
  model.cutAfter = ({ host }) => (host === "cdn" ? cuts.shift() : undefined);
  const seen: DownloadProgress[] = [];
  // What had been reported when the next request came.
  const reported: (string | undefined)[] = [];
  model.fault = ({ host }) => {
    const { loadedBytes } = seen.at(-1) ?? { loadedBytes: 0 };
    if (host === "cdn") reported.push(loadedBytes === 0 ? undefined : `bytes=${loadedBytes}-`);
    return false;
  };
  const hub = await openHub("owner/name", { on_download: (progress) => seen.push(progress) });
  await expectWhole(hub, WEIGHTS);
  expect(ofWeights()).toEqual(reported);
  expect(reported.length).toBe(4);
  expect(reported.slice(1)).not.toContain(undefined);
  const loaded = seen.map(({ loadedBytes }) => loadedBytes);
  expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
  expect(seen[0]).toEqual({ file: WEIGHTS, loadedBytes: 0, totalBytes: SIZE });
  expect(seen.at(-1)).toEqual({ file: WEIGHTS, loadedBytes: SIZE, totalBytes: SIZE });
});

test("what a listener rejects with is its caller's", async () => {
  const refused = new Error("the log is full");
  const hub = await openHub("owner/name", { on_download: () => Promise.reject(refused) });
  await expect(hub.open(WEIGHTS)).rejects.toBe(refused);
});

test("a connection that brings nothing any more is given up, and the next run goes on from what there is", async () => {
  model.cutAfter = ({ host, range }) => (host === "cdn" ? (range ? 0 : 100_000) : undefined);
  const refusal = await (await openHub()).open(WEIGHTS).catch((error: Error) => error);
  expect(refusal).toMatchObject({ code: "HUB_UNREACHABLE" });
  // The first counts as one that brought nothing if little of it arrived before the cut.
  expect([5, 6]).toContain(ofWeights().length);
  expect(blobs()).toEqual([`${oidOf(model, WEIGHTS)}.incomplete`]);
  const { size } = statSync(`${blobOf(WEIGHTS)}.incomplete`);
  expect(size).toBeGreaterThan(0);
  expect(size).toBeLessThanOrEqual(100_000);
  expect((refusal as Error).message).toContain(`${size} of ${SIZE} bytes are kept`);
  expect(existsSync(join(store(), "snapshots", COMMIT, WEIGHTS))).toBe(false);

  model.cutAfter = undefined;
  server.seen.length = 0;
  await expectWhole(await openHub(), WEIGHTS);
  expect(ofWeights()).toEqual([`bytes=${size}-`]);
  expect(blobs()).toEqual([oidOf(model, WEIGHTS)]);
});

test("a server that ignores ranges is read from the start again", async () => {
  mkdirSync(join(store(), "blobs"), { recursive: true });
  writeFileSync(`${blobOf(WEIGHTS)}.incomplete`, model.files[WEIGHTS].subarray(0, 1000));
  model.ignoreRange = true;
  await expectWhole(await openHub(), WEIGHTS);
  expect(ofWeights()).toEqual(["bytes=1000-"]);
});

test.each([
  ["416", (response: ServerResponse) => response.writeHead(416, { "content-range": `bytes */${SIZE}` }).end()],
  [
    "another part",
    (response: ServerResponse) =>
      response.writeHead(206, { "content-range": `bytes 5-${SIZE - 1}/${SIZE}` }).end(model.files[WEIGHTS].subarray(5)),
  ],
])("a server that cuts, and answers whoever goes on with %s, is given up", async (_, answer) => {
  model.cutAfter = ({ host }) => (host === "cdn" ? 100_000 : undefined);
  model.fault = ({ host, range }, response) => {
    if (host !== "cdn" || range === undefined) return false;
    answer(response);
    return true;
  };
  await expect((await openHub()).open(WEIGHTS)).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
  expect(ofWeights().length).toBeLessThanOrEqual(6);
});

test("a server that brings a little at a time, and cuts, is given up", async () => {
  model.cutAfter = ({ host }) => (host === "cdn" ? 1 : undefined);
  await expect((await openHub()).open(WEIGHTS)).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
  expect(ofWeights().length).toBe(5);
});

test("HTTP_SLOW: a trickle is given up, and what it brought is kept", async () => {
  model.fault = ({ host }, response) => {
    if (host !== "cdn") return false;
    response.writeHead(200);
    let sent = 0;
    const timer = setInterval(() => response.write(model.files[WEIGHTS].subarray(sent, ++sent)), 10);
    response.on("close", () => clearInterval(timer));
    return true;
  };
  const hub = await openHub("owner/name", { silenceMs: 60 });
  await expect(hub.open(WEIGHTS)).rejects.toMatchObject({ code: "HTTP_SLOW" });
  expect(ofWeights().length).toBe(5);
  expect(blobs()).toEqual([`${oidOf(model, WEIGHTS)}.incomplete`]);
});

test("an abort ends the wait before the next request", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  model.fault = ({ host }, response) => {
    if (host === "cdn") response.writeHead(503).end(() => setTimeout(() => controller.abort(reason), 20));
    return host === "cdn";
  };
  const hub = await openHub("owner/name", { signal: controller.signal, retryDelayMs: 60_000 });
  await expect(hub.open(WEIGHTS)).rejects.toBe(reason);
});

test("a listing without end, in bytes or in pages, is refused", async () => {
  let sent = 0;
  model.fault = ({ path }, response) => {
    if (!path.includes("/tree/")) return false;
    response.writeHead(200, { "content-type": "application/json" });
    const entry = `${JSON.stringify({ type: "file", path: "x".repeat(60_000), size: 3, oid: "a".repeat(40) })},`;
    response.write("[");
    const pump = () => {
      while (sent < 300e6 && !response.destroyed) {
        sent += entry.length;
        if (!response.write(entry)) return void response.once("drain", pump);
      }
    };
    pump();
    return true;
  };
  await expect((await openHub()).text("config.json")).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
  expect(sent).toBeLessThan(100e6);

  let pages = 0;
  model.fault = ({ path }, response) => {
    if (!path.includes("/tree/")) return false;
    const next = `<${server.endpoint}${path}?cursor=${++pages}>; rel="next"`;
    response.writeHead(200, { "content-type": "application/json", link: next }).end("[]");
    return true;
  };
  await expect((await openHub()).text("config.json")).rejects.toMatchObject({ code: "HUB_STATUS" });
  expect(pages).toBe(100);
});

test("a busy server is asked again; a silent one is given up", async () => {
  let busy = 2;
  model.fault = ({ host }, response) => {
    if (host !== "cdn" || busy-- <= 0) return false;
    response.writeHead(503).end();
    return true;
  };
  await expectWhole(await openHub(), WEIGHTS);
  expect(ofWeights().length).toBe(3);
  model.fault = ({ path }) => path.includes("/revision/") || path.includes("README");
  await expect(openHub("owner/name@v1", { silenceMs: 100 })).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
  const hub = await openHub(`owner/name@${COMMIT}`, { silenceMs: 100 });
  await expect(hub.open("README.md")).rejects.toMatchObject({ code: "HUB_UNREACHABLE" });
});

test.each([WEIGHTS, "config.json"])(
  "%s with the wrong bytes is refused, and nothing of it is kept",
  async (damaged) => {
    model.damage = (file, bytes) => {
      const copy = Buffer.from(bytes);
      if (file === damaged) copy[0] ^= 1;
      return copy;
    };
    const hub = await openHub();
    await expect(hub.open(damaged)).rejects.toMatchObject({ code: "INTEGRITY" });
    expect(blobs()).toEqual([]);
    model.damage = undefined;
    await expectWhole(hub, damaged);
  },
);

test("a file that is longer than listed is refused", async () => {
  model.damage = (_, bytes) => Buffer.concat([bytes, Buffer.from("!")]);
  await expect((await openHub()).open(WEIGHTS)).rejects.toMatchObject({ code: "INTEGRITY" });
});

test.each([
  ["the wrong beginning", () => randomBytes(1000), ["bytes=1000-", undefined]],
  ["more than the whole", () => randomBytes(SIZE + 1), [undefined]],
  ["the whole", () => model.files[WEIGHTS], []],
])("a partial file with %s is used only if the hash agrees", async (_, partial, asked) => {
  mkdirSync(join(store(), "blobs"), { recursive: true });
  writeFileSync(`${blobOf(WEIGHTS)}.incomplete`, partial());
  await expectWhole(await openHub(), WEIGHTS);
  expect(ofWeights()).toEqual(asked);
  expect(blobs()).toEqual([oidOf(model, WEIGHTS)]);
});

test("what a killed process left is resumed, what a running one writes is not touched", async () => {
  mkdirSync(join(store(), "blobs"), { recursive: true });
  const { pid } = await promisify(execFile)("true").child;
  const host = hostname()
    .replace(/[^\w-]/g, "_")
    .slice(0, 60);
  const ended = `${blobOf(WEIGHTS)}.${host}-${pid}-00000000.incomplete`;
  const running = `${blobOf(WEIGHTS)}.${host}-${process.ppid}-00000000.incomplete`;
  const elsewhere = `${blobOf(WEIGHTS)}.another.host-1-00000000.incomplete`;
  const python = `${blobOf(WEIGHTS)}.0a1b2c3d.incomplete`;
  for (const file of [running, elsewhere, python]) writeFileSync(file, "theirs");
  writeFileSync(ended, model.files[WEIGHTS].subarray(0, 5000));
  await new Promise((resolve) => setTimeout(resolve, 100)); // the child is reaped
  await expectWhole(await openHub(), WEIGHTS);
  expect(ofWeights()).toEqual(["bytes=5000-"]);
  expect(existsSync(ended)).toBe(false);
  for (const file of [running, elsewhere, python]) expect(readFileSync(file, "utf8")).toBe("theirs");
});

test("an aborted download rejects with the signal's reason, and keeps what it has", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const on_download = ({ loadedBytes }: DownloadProgress) => void (loadedBytes > 0 && controller.abort(reason));
  const hub = await openHub("owner/name", { signal: controller.signal, on_download });
  await expect(hub.open(WEIGHTS)).rejects.toBe(reason);
  const [kept] = blobs();
  expect(kept).toBe(`${oidOf(model, WEIGHTS)}.incomplete`);
  const { size } = statSync(join(store(), "blobs", kept));
  expect(size).toBeGreaterThan(0);
  server.seen.length = 0;
  await expectWhole(await openHub(), WEIGHTS);
  expect(ofWeights()).toEqual(size === SIZE ? [] : [`bytes=${size}-`]);
  await expect(openHub("owner/name", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

test("two processes that want the same file both get it whole", async () => {
  const script = `
    const { HubFolder } = await import(${JSON.stringify(compiled("src/instructblip/pretrained/hub/folder.node.ts"))});
    const hub = await HubFolder.open({ repository: "owner/name", revision: "main" });
    const source = await hub.open("${WEIGHTS}");
    const bytes = Buffer.alloc(source.size);
    await source.read(0, bytes);
    console.log((await import("node:crypto")).createHash("sha256").update(bytes).digest("hex"));`;
  // Neither is answered before both ask, so that they do overlap.
  const waiting: (() => void)[] = [];
  model.fault = ({ host }, response) => {
    if (host !== "cdn") return false;
    waiting.push(() => response.writeHead(200).end(model.files[WEIGHTS]));
    if (waiting.length === 2) for (const answer of waiting) answer();
    return true;
  };
  const env = { ...process.env, HF_HOME: folder, HF_ENDPOINT: server.endpoint };
  const args = ["--input-type=module", "-e", script];
  const run = async () => (await promisify(execFile)(process.execPath, args, { env })).stdout.trim();
  expect(await Promise.all([run(), run()])).toEqual([oidOf(model, WEIGHTS), oidOf(model, WEIGHTS)]);
  expect(waiting.length).toBe(2);
  expect(blobs()).toEqual([oidOf(model, WEIGHTS)]);
});

test("whoever reads the file is not disturbed by another who has just fetched it as well", async () => {
  const waiting: (() => void)[] = [];
  const bothAsk = new Promise<void>((resolve) => {
    model.fault = ({ host }, response) => {
      if (host !== "cdn") return false;
      waiting.push(() => response.writeHead(200).end(model.files[WEIGHTS]));
      if (waiting.length === 2) resolve();
      return true;
    };
  });
  const opening = [await openHub(), await openHub()].map((hub) => hub.open(WEIGHTS));
  await bothAsk;
  waiting[0]();
  const source = await Promise.race(opening);
  const bytes = Buffer.alloc(SIZE);
  await source.read(0, bytes.subarray(0, 1000));
  waiting[1]();
  const both = await Promise.all(opening);
  await source.read(0, bytes);
  expect(bytes.equals(model.files[WEIGHTS])).toBe(true);
  for (const opened of both) await opened.close();
  expect(blobs()).toEqual([oidOf(model, WEIGHTS)]);
});

test("several readers in one process share a download", async () => {
  const hub = await openHub();
  await Promise.all([bytesOf(hub, WEIGHTS), bytesOf(hub, WEIGHTS), bytesOf(hub, WEIGHTS)]);
  expect(ofWeights()).toEqual([undefined]);
});

test("without symbolic links files are moved and copied", async () => {
  const env = { HF_HUB_DISABLE_SYMLINKS: "1" };
  await expectWhole(await openHub("owner/name", { env }), WEIGHTS);
  const pointer = join(store(), "snapshots", COMMIT, WEIGHTS);
  expect(lstatSync(pointer).isFile()).toBe(true);
  expect(blobs()).toEqual([]);
  writeFileSync(blobOf(WEIGHTS), model.files[WEIGHTS]);
  unlinkSync(pointer);
  await expectWhole(await openHub("owner/name", { env }), WEIGHTS);
  expect(blobs()).toEqual([oidOf(model, WEIGHTS)]);
});

test("a link to a blob that was deleted is mended", async () => {
  await (await openHub()).open(WEIGHTS).then((source) => source.close());
  unlinkSync(blobOf(WEIGHTS));
  await expectWhole(await openHub(), WEIGHTS);
});

test("the token goes to the Hub, and to nobody it sends us on to", async () => {
  mkdirSync(join(folder, "elsewhere"));
  writeFileSync(join(folder, "token"), "hf_home\n");
  writeFileSync(join(folder, "elsewhere", "token"), "hf_path\n");
  const sent = async (env: Record<string, string>) => {
    server.seen.length = 0;
    const hub = await openHub("owner/name", { env });
    await bytesOf(hub, WEIGHTS);
    rmSync(store(), { recursive: true });
    const of = (host: string) => [...new Set(server.seen.filter((s) => s.host === host).map((s) => s.authorization))];
    return [of("hub"), of("cdn")];
  };
  expect(await sent({})).toEqual([["Bearer hf_home"], [undefined]]);
  expect(await sent({ HF_TOKEN_PATH: join(folder, "elsewhere", "token") })).toEqual([["Bearer hf_path"], [undefined]]);
  expect(await sent({ HF_TOKEN: "hf_env" })).toEqual([["Bearer hf_env"], [undefined]]);
});

test.each([
  [401, "GatedRepo", "HUB_GATED"],
  [403, "GatedRepo", "HUB_GATED"],
  [401, undefined, "HUB_UNAUTHORIZED"],
  [403, undefined, "HUB_FORBIDDEN"],
  [500, undefined, "HUB_BUSY"],
] as const)("%s %s is %s when the model is opened, and when a file is", async (status, code, expected) => {
  const refuse = (part: string) => {
    model.fault = ({ path }, response) => {
      if (!path.includes(part)) return false;
      response.writeHead(status, code && { "x-error-code": code }).end("no");
      return true;
    };
  };
  refuse("/revision/");
  await expect(openHub()).rejects.toMatchObject({ code: expected });
  refuse("/resolve/");
  const hub = await openHub();
  await expect(hub.open(WEIGHTS)).rejects.toMatchObject({ code: expected });
  expect(blobs()).toEqual([]);
});

test("repository, revision and file that are not there are three different errors", async () => {
  await expect(openHub("owner/nome")).rejects.toMatchObject({ code: "HUB_REPOSITORY_NOT_FOUND" });
  await expect(openHub("owner/name@v9")).rejects.toMatchObject({ code: "HUB_REVISION_NOT_FOUND" });
  const hub = await openHub();
  await expect(hub.open("nothing.json")).rejects.toMatchObject({ code: "NOT_FOUND" });
  await expect(
    openHub(`owner/name@${"a".repeat(40)}`).then((other) => other.open("config.json")),
  ).rejects.toMatchObject({
    code: "HUB_REVISION_NOT_FOUND",
  });
});

test("a listing that would lead out of the cache is refused, as is an answer that is no JSON", async () => {
  model.fault = ({ path }, response) => {
    if (!path.includes("/tree/")) return false;
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify([{ type: "file", path: "config.json", size: 3, oid: "../../../evil" }]));
    return true;
  };
  await expect((await openHub()).text("config.json")).rejects.toMatchObject({ code: "HUB_STATUS" });
  model.fault = (_, response) => !!response.writeHead(200).end("<html>");
  await expect(openHub()).rejects.toMatchObject({ code: "HUB_STATUS" });
});

test("a text that is listed as too large is not downloaded", async () => {
  await expect((await openHub()).text(WEIGHTS, 1000)).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
  expect(ofWeights()).toEqual([]);
});

test("a cache that cannot be written is named", async () => {
  writeFileSync(join(folder, "hub"), "a file where the cache should be");
  await expect(openHub()).rejects.toMatchObject({ code: "IO", message: expect.stringContaining("HF_HOME") });
});

test("a sharded checkpoint and its processor are read through an id as from the disk, and nothing else is fetched", async () => {
  const golden = goldenFolder("cross_frequency_3_sharded");
  model.files = {};
  for (const { parentPath, name } of readdirSync(golden, { recursive: true, withFileTypes: true }).filter((e) =>
    e.isFile(),
  )) {
    model.files[relative(golden, join(parentPath, name))] = readFileSync(join(parentPath, name));
  }
  model.large = Object.keys(model.files).filter((file) => file.endsWith(".safetensors"));
  const hub = await openHub();
  const [there, here] = [await Checkpoint.open(hub), await openCheckpoint(golden)];
  expect(there.tensors).toEqual(here.tensors);
  const [name] = here.tensors.keys();
  expect(await there.read(name)).toEqual(await here.read(name));
  await Promise.all([there.close(), here.close()]);
  const processor = await InstructBlipProcessor.from_pretrained(hub);
  expect(processor.tokenizer.length).toBe(
    (await InstructBlipProcessor.from_pretrained(new NodeFolder(golden))).tokenizer.length,
  );
  const fetched = requests().filter((line) => line.startsWith("hub") && line.includes("/resolve/"));
  expect(fetched.filter((line) => /golden|png/.test(line))).toEqual([]);
  expect(fetched.filter((line) => line.includes("-of-00004")).length).toBe(4);
});

test("the platform opens an id, but a folder of that name comes first", async () => {
  const before = process.cwd();
  try {
    vi.stubEnv("HF_HOME", folder);
    vi.stubEnv("HF_ENDPOINT", server.endpoint);
    expect(await (await nodePlatform.openFolder("owner/name")).text("config.json")).toContain("instructblip");
    mkdirSync(join(folder, "owner", "name"), { recursive: true });
    writeFileSync(join(folder, "owner", "name", "config.json"), "local");
    process.chdir(folder);
    expect(await (await nodePlatform.openFolder("owner/name")).text("config.json")).toBe("local");
    await expect(nodePlatform.openFolder("owner/name/config.json")).rejects.toMatchObject({ code: "NOT_FOUND" });
  } finally {
    process.chdir(before);
    vi.unstubAllEnvs();
  }
});
