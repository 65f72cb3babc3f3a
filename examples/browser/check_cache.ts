/**
 * The part of `npm run browser:check` about what a browser keeps: weights in OPFS, downloaded once, resumed after a cut, loaded
 * without the server; models of the Hub by their ids, from a server of its protocol. It has its own page, and the checkpoint is on
 * another origin.
 */
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join, relative } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { HubServer } from "../../test/instructblip/pretrained/hub_server.ts";
import type { Expect } from "./check_page.ts";
import { type Served, serveCheck } from "./check_server.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

const ENTRY = fileURLToPath(new URL("../../src/index.ts", import.meta.url));
const IMAGE = readFileSync(fileURLToPath(new URL("../shapes/images/a.png", import.meta.url)));
const QUESTION = "What color is the square?";
const ANSWER = "orange";
const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** The functions that the page's script offers to the checks. */
const PAGE = `<!doctype html><body><script type="module">
  import * as lib from "/lib.js";
  const budget = Number(new URLSearchParams(location.search).get("budget") ?? Infinity);
  Object.assign(window, { lib, device: await lib.openDevice({ memory_budget: budget }) });
  /** Loads and answers: the answer, warnings, and the files that were downloaded. */
  window.visit = async (from, options = {}, stopAt = Infinity) => {
    const warnings = [];
    const downloaded = {};
    const controller = new AbortController();
    const on_download = ({ file, loadedBytes, totalBytes }) => {
      downloaded[file] ??= { from: loadedBytes };
      downloaded[file].to = loadedBytes;
      if (file === "model.safetensors" && loadedBytes >= stopAt) controller.abort("stopped");
    };
    const opening = { cache: "opfs", on_download, signal: controller.signal };
    const { dtype, weight_cache, keep_originals, ...more } = options;
    try {
      const processor = await lib.AutoProcessor.from_pretrained(from, { ...opening, ...more });
      const model = await lib.AutoModelForImageTextToText.from_pretrained(from, {
        ...opening, ...options, device, on_warning: (warning) => warnings.push(warning),
      });
      const inputs = await processor({ images: ["/image.png"], text: [${JSON.stringify(QUESTION)}] });
      const sequences = await model.generate({ ...inputs, max_new_tokens: 8, return_full_text: false });
      model.dispose();
      const [answer] = processor.batch_decode(sequences, { skip_special_tokens: true });
      return { answer, warnings, downloaded };
    } catch (error) {
      return { failure: error?.code ?? String(error), message: error?.message ?? "", warnings, downloaded };
    }
  };
  window.ready = true;
</script>`;

interface Visit {
  readonly answer?: string;
  readonly failure?: string;
  readonly message?: string;
  readonly warnings: readonly string[];
  readonly downloaded: Readonly<Record<string, { readonly from: number; readonly to: number }>>;
}

/** The checkpoint's server, which another origin's page may read, and what was asked of it. */
class CheckpointServer {
  url = "";
  /** Bytes of bodies that were sent. */
  bytes = 0;
  requests = 0;
  /** Of model.safetensors. */
  ranges: string[] = [];
  /** Cuts the next answer of more than so many bytes, there. */
  cutNext: number | undefined;
  version = 1;
  readonly #files = new Map<string, Buffer>();
  #server: Server | undefined;

  constructor() {
    for (const [name, bytes] of Object.entries(checkpointFiles())) this.#files.set(name, bytes);
  }

  async start(port = 0): Promise<void> {
    const server = createServer((request, response) => this.#answer(request, response));
    await new Promise<void>((ready) => server.listen(port, "127.0.0.1", ready));
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/model`;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    server?.closeAllConnections();
    if (server) await new Promise((done) => server.close(done));
  }

  /** Starts it again on its port. */
  restart(): Promise<void> {
    return this.start(Number(new URL(this.url).port));
  }

  /** Counts from now on. */
  reset(): void {
    this.bytes = this.requests = 0;
    this.ranges = [];
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    response.setHeader("access-control-allow-origin", "*");
    response.setHeader("access-control-expose-headers", "Content-Range, ETag");
    if (request.method === "OPTIONS") {
      return void response.writeHead(204, { "access-control-allow-headers": "range" }).end();
    }
    this.requests++;
    const name = (request.url ?? "").replace(/^\/model\//, "");
    const file = this.#files.get(name);
    if (!file) return void response.writeHead(404).end();
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const begin = Number(from ?? 0);
    const part = file.subarray(begin, to ? Number(to) + 1 : undefined);
    if (name === "model.safetensors" && request.method === "GET") this.ranges.push(request.headers.range ?? "whole");
    response.writeHead(from === undefined ? 200 : 206, {
      "content-length": part.length,
      etag: `"${name}-${this.version}"`,
      ...(from !== undefined && { "content-range": `bytes ${begin}-${begin + part.length - 1}/${file.length}` }),
    });
    if (request.method === "HEAD") return void response.end();
    const cut = this.cutNext !== undefined && part.length > this.cutNext ? this.cutNext : undefined;
    if (cut !== undefined) this.cutNext = undefined;
    void this.#send(response, part.subarray(0, cut), cut !== undefined);
  }

  /** Sends bytes as fast as they are taken, so that those of an aborted request are not counted. */
  async #send(response: ServerResponse, bytes: Buffer, thenCut: boolean): Promise<void> {
    const slices = async function* (this: CheckpointServer) {
      for (let at = 0; at < bytes.length; at += 2 ** 16) {
        const slice = bytes.subarray(at, at + 2 ** 16);
        this.bytes += slice.length;
        yield slice;
      }
    };
    const sent = pipeline(Readable.from(slices.call(this), { objectMode: false }), response, { end: !thenCut });
    await sent.catch(() => {}); // the browser has closed the connection
    if (thenCut) setTimeout(() => response.destroy(), 100);
  }
}

function checkpointFiles(): Record<string, Buffer> {
  const entries = readdirSync(EMBEDDED, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = entries.map(({ parentPath, name }) => join(parentPath, name));
  return Object.fromEntries(paths.map((path) => [relative(EMBEDDED, path).replaceAll("\\", "/"), readFileSync(path)]));
}

/** Serves the page and the library. */
async function servePage(): Promise<Served> {
  const bundle = await build({
    entryPoints: [ENTRY],
    bundle: true,
    platform: "browser",
    format: "esm",
    write: false,
    logLevel: "silent",
  });
  const script = bundle.outputFiles[0].contents;
  return serveCheck(({ url }, response) => {
    const path = url?.replace(/\?.*/, "");
    if (path === "/lib.js") response.writeHead(200, { "content-type": "text/javascript" }).end(script);
    else if (path === "/image.png") response.writeHead(200, { "content-type": "image/png" }).end(IMAGE);
    else if (path === "/") response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
    else response.writeHead(404).end();
  });
}

const MB = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

export async function checkCache(browser: Chromium, expect: Expect): Promise<void> {
  const page = await servePage();
  const server = new CheckpointServer();
  await server.start();
  const open = async (query = "") => {
    await browser.send("Page.navigate", { url: page.url + query });
    await browser.until("window.ready");
  };
  const visit = async (from: string, options: object = {}, stopAt?: number) => {
    await open(); // every visit is a new page
    server.reset();
    const asked = [from, options, ...(stopAt === undefined ? [] : [stopAt])].map((one) => JSON.stringify(one));
    return browser.evaluate<Visit>(`visit(${asked.join(", ")})`);
  };
  const size = readFileSync(join(EMBEDDED, "model.safetensors")).length;
  const right = ({ answer, failure, message, warnings }: Visit, what: string) => {
    expect(answer === ANSWER, `${what}: “${ANSWER}”, not ${answer ?? `${failure}: ${message}`}`);
    expect(warnings.length === 0, `${what}: no warnings, not ${warnings.join("; ")}`);
  };
  try {
    await checkFits();
    await checkVisits();
    await checkChanges();
    await checkRoom();
    await checkHub(visit, right, expect);
  } finally {
    await server.stop();
    await page.close();
  }

  /** A model that does not fit is refused by the headers of its files. */
  async function checkFits(): Promise<void> {
    await open("?budget=5000000");
    server.reset();
    const { failure, message = "" } = await browser.evaluate<Visit>(`visit(${JSON.stringify(server.url)})`);
    const most = size / 10;
    expect(
      failure === "BUDGET" && /"int8" takes/.test(message),
      `a model that is too large is refused, not ${message}`,
    );
    const weights = server.ranges.filter((range) => range === "bytes=0-").length;
    expect(weights === 0, `and its weights are not downloaded, not ${server.ranges.join(", ")}`);
    expect(
      server.bytes < most,
      `of a model that is too large at most ${most} bytes are asked for, not ${server.bytes}`,
    );
    console.log(`too large       ${server.bytes} bytes asked for: “${message.replace(/\s+/g, " ")}”`);
  }

  /** Three visits: one that is cut, one that resumes, one without the server. */
  async function checkVisits(): Promise<void> {
    const stopped = await visit(server.url, {}, 1e6);
    let asked = server.bytes;
    expect(stopped.failure === "stopped", `a download stops when it is aborted, not: ${JSON.stringify(stopped)}`);
    server.cutNext = 3e6; // once more, on the way
    const first = await visit(server.url);
    const { from = 0, to } = first.downloaded["model.safetensors"] ?? {};
    right(first, "the first visit");
    expect(from >= 1e6 && to === size, `the download goes on where it stopped, not from ${from} to ${to}`);
    expect(
      server.ranges.includes(`bytes=${from}-`) && server.ranges.filter((range) => range.endsWith("-")).length === 2,
      `it asks for the rest, and after a cut for the rest of that, not for ${server.ranges.join(", ")}`,
    );
    asked += server.bytes;
    await server.stop();
    const second = await visit(server.url);
    right(second, "a visit without the server");
    expect(server.requests === 0, "without the server nothing is asked of it");
    const offline = server.bytes;
    const local = await visit(server.url, { local_files_only: true });
    right(local, "local_files_only");
    await server.restart();
    const third = await visit(server.url);
    right(third, "a visit with the server");
    expect(server.bytes < 20, `kept files are checked by one byte each, not by ${server.bytes} bytes`);
    console.log(
      `weights kept    first visit ${asked} bytes from the network, stopped at ${MB(from)} and cut by the server, both resumed; second visit, server off: ${offline} bytes; server on: ${server.bytes} bytes in ${server.requests} requests`,
    );
  }

  /** A file that changes is fetched again. What is kept is listed and deleted. Quantized weights are kept too. */
  async function checkChanges(): Promise<void> {
    server.version = 2;
    const changed = await visit(server.url);
    right(changed, "a changed file");
    expect(server.bytes > size, `a file with another ETag is fetched again, not ${server.bytes} bytes`);
    interface Listed {
      readonly url: string;
      readonly keptBytes: number;
      readonly files: readonly { name: string; size: number; keptBytes: number; isReduced: boolean }[];
      readonly quantized: readonly { name: string; size: number }[];
    }
    const list = () => browser.evaluate<Listed[]>("lib.OpfsCache.open().then((cache) => cache.list())");
    const weightsOf = async () => {
      const [kept] = await list();
      return { kept, weights: kept?.files.find(({ name }) => name === "model.safetensors") };
    };
    const { kept, weights } = await weightsOf();
    expect(
      kept?.url === server.url && weights?.keptBytes === size && !weights.isReduced,
      `the cache is listed, not: ${JSON.stringify(kept)}`,
    );
    for (const [visitor, quantizes, keep_originals] of [
      ["int8 at first", true, true],
      ["int8 from the cache", false, true],
      ["int8 in place of the originals", false, undefined],
    ] as const) {
      const before = await browser.evaluate<string | undefined>(QUANTIZED);
      right(await visit(server.url, { dtype: "int8", weight_cache: true, keep_originals }), visitor);
      const after = await browser.evaluate<string | undefined>(QUANTIZED);
      const isWritten = before !== after;
      expect(isWritten === quantizes, `${visitor}: quantized weights are ${quantizes ? "" : "not "}written`);
      expect(/instructblip-webgpu quantized weights 2/.test(after ?? ""), `${visitor}: in Node's format, not ${after}`);
      const { weights } = await weightsOf();
      const isReduced = keep_originals === undefined;
      expect(weights?.isReduced === isReduced, `${visitor}: the originals are ${isReduced ? "gone" : "kept"}`);
    }
    const reduced = await weightsOf();
    const rest = reduced.weights?.keptBytes ?? Number.NaN;
    const quantized = reduced.kept?.quantized[0]?.size ?? Number.NaN;
    expect(
      rest < size / 10 && quantized > size / 5 && quantized < size,
      `of the originals a tenth is kept at most beside quantized weights, not ${rest} and ${quantized} of ${size}`,
    );
    await server.stop();
    right(await visit(server.url, { dtype: "int8", weight_cache: true }), "quantized weights without the server");
    await server.restart();
    const refused = await visit(server.url, { local_files_only: true });
    expect(refused.failure === "NOT_FOUND", `another dtype needs the originals, not ${JSON.stringify(refused)}`);
    const again = await visit(server.url);
    right(again, "another dtype after the originals were dropped");
    expect(server.bytes > size, `which downloads them again, not ${server.bytes} bytes`);
    right(await visit(server.url, { dtype: "int8", weight_cache: true }), "int8 once more");
    const space = await browser.evaluate<{ usedBytes: number; quotaBytes: number; persisted: boolean }>(
      "lib.OpfsCache.open().then((cache) => cache.space())",
    );
    expect(
      space.usedBytes >= rest + quantized && space.quotaBytes > size,
      `the browser says what is used: ${JSON.stringify(space)}`,
    );
    const persisted = await browser.evaluate<boolean>("lib.OpfsCache.open().then((cache) => cache.persist())");
    await browser.evaluate(`lib.OpfsCache.open().then((cache) => cache.delete(${JSON.stringify(server.url)}))`);
    expect((await list()).length === 0, "a deleted folder is gone");
    expect((await browser.evaluate<string | undefined>(QUANTIZED)) === undefined, "its quantized weights go with it");
    right(await visit(server.url, { dtype: "int8", weight_cache: true }), "int8 after all was deleted");
    await browser.evaluate("lib.OpfsCache.open().then((cache) => cache.clear())");
    expect((await browser.evaluate<string | undefined>(QUANTIZED)) === undefined, "clear takes all");
    console.log(
      `                int8 in place of the originals: ${MB(quantized)} and ${MB(rest)} of ${MB(size)} kept, without network too`,
    );
    console.log(
      `                a new ETag is fetched again; quantized weights kept in Node's format; ${MB(space.usedBytes)} used of ${MB(space.quotaBytes)}; persistence ${persisted ? "granted" : "refused"}; listed, deleted, cleared`,
    );
  }

  /** Without room, or without OPFS, the model works, and says that it is not kept. */
  async function checkRoom(): Promise<void> {
    const origin = new URL(page.url).origin;
    await browser.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 3e6 });
    const full = await visit(server.url);
    expect(full.answer === ANSWER, `without room the model answers all the same, not ${JSON.stringify(full)}`);
    expect(
      full.warnings.some((said) => /^model\.safetensors is not kept in this browser: it takes 6\.\d MB/.test(said)),
      `without room the warning says how much is missing, not ${full.warnings.join("; ")}`,
    );
    await browser.send("Storage.overrideQuotaForOrigin", { origin });
    const source =
      'StorageManager.prototype.getDirectory = async () => { throw new DOMException("no", "SecurityError"); };';
    let without: Visit | undefined;
    await browser.beforePage(source, async () => {
      without = await visit(server.url);
    });
    expect(
      without!.answer === ANSWER && without!.warnings.some((said) => /^files are not kept: this browser/.test(said)),
      `without OPFS the model answers, and says so, not ${JSON.stringify(without)}`,
    );
    console.log(`no room         “${full.warnings[0]}”, and the model answers`);
  }
}

/** The metadata of the file of quantized weights, and its time of change. */
const QUANTIZED = `(async () => {
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("instructblip-webgpu");
  const folder = await root.getDirectoryHandle("quantized").catch(() => undefined);
  for await (const [name, handle] of folder?.entries() ?? []) {
    if (!name.endsWith(".safetensors")) continue;
    const file = await handle.getFile();
    return (await file.slice(0, 4096).text()).match(/"format":"[^"]*"/)?.[0] + " " + file.lastModified;
  }
})()`;

/** A model by its id: CORS, a redirect to another host for large files, a typed refusal; kept, and later without the Hub. */
async function checkHub(
  visit: (from: string, options?: object) => Promise<Visit>,
  right: (visit: Visit, what: string) => void,
  expect: Expect,
): Promise<void> {
  const files = checkpointFiles();
  const model = { repository: "owner/name", commit: COMMIT, files, large: ["model.safetensors"], cors: true };
  const hub = await HubServer.start(model);
  const { endpoint } = hub;
  try {
    right(await visit("owner/name", { endpoint, cache: undefined }), "a model of the Hub");
    const cdn = hub.seen.filter(({ host }) => host === "cdn");
    expect(cdn.length > 0, "large files come from the other host");
    hub.seen.length = 0;
    right(await visit("owner/name", { endpoint, token: "hf_secret" }), "a model of the Hub that is kept");
    expect(
      hub.seen.every(({ host, authorization }) => authorization === (host === "hub" ? "Bearer hf_secret" : undefined)),
      "the token goes to the Hub, and not on to the other host",
    );
    hub.seen.length = 0;
    right(await visit("owner/name", { endpoint }), "a kept model of the Hub");
    const asked = hub.seen.map(({ path }) => path);
    expect(
      asked.every((path) => path === "/api/models/owner/name/revision/main"),
      `of a kept model the revision alone is asked for, not ${asked.join(", ")}`,
    );
    const missing = await visit("owner/other", { endpoint });
    expect(
      missing.failure === "HUB_REPOSITORY_NOT_FOUND",
      `a missing model is refused by name, not ${missing.failure}`,
    );
    const absent = await visit("owner/name@v9", { endpoint });
    expect(absent.failure === "HUB_REVISION_NOT_FOUND", `a missing revision is refused by name, not ${absent.failure}`);
    console.log(
      `the Hub         owner/name answers, from two hosts; kept, it asks ${asked.length} times for the revision`,
    );
  } finally {
    await hub.stop();
  }
  right(await visit("owner/name", { endpoint }), "a kept model without the Hub");
}
