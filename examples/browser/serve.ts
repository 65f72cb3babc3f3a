/**
 * `npm run browser`: builds the page beside this file and serves it, with a checkpoint and the example images, to this
 * machine alone. Reload the page to see a change in page/, worker/ or src/.
 *
 *   npm run browser                           the embedded checkpoint
 *   npm run browser -- --model FOLDER         also this checkpoint folder; may be given several times
 *   npm run browser -- --port 9000            another port than 8080
 *   npm run browser -- --help
 *
 * The page accepts ?checkpoint=0 to load the first of the list at once, ?dtype=int4, for a large checkpoint,
 * ?fix_vicuna_token_ids, for Vicuna's answers to end, ?keep, to keep it in the browser, and ?quick, for a short check of the adapter.
 *
 * It listens on localhost only, and refuses requests with another Host: otherwise a foreign page could read the checkpoint
 * by DNS rebinding.
 *
 * To publish a page of your own, use any static server with Range requests, over https.
 */
import { createReadStream } from "node:fs";
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, dirname, extname, join, resolve, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { exitWithReader } from "../../src/instructblip/cli/terminal.node.ts";
import { COLOUR_STYLES } from "../../src/instructblip/instruments/colours.ts";
import { InputError } from "../../src/tensor/errors.ts";
import { checkFileName } from "../../src/tensor/files/source.ts";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const SHAPES = fileURLToPath(new URL("../shapes/", import.meta.url));
export const EMBEDDED = join(SHAPES, "checkpoint");

/** A checkpoint that the server offers. */
export interface OfferedCheckpoint {
  readonly name: string;
  readonly note: string;
  readonly url: string;
  readonly files: readonly string[];
  /** Of all files. */
  readonly bytes: number;
  /** Suggested questions for images of the user's own. */
  readonly questions: readonly string[];
}

/** The page's settings: page.json. */
export interface PageFacts {
  /** In the list's order: the folders of --model, and the embedded checkpoint. */
  readonly checkpoints: readonly OfferedCheckpoint[];
  readonly images: readonly { readonly image: string; readonly questions: readonly string[] }[];
}

/** exam.json. */
export interface PageExam {
  readonly checkpoint: Pick<OfferedCheckpoint, "url" | "files">;
  readonly images: readonly {
    readonly image: string;
    readonly questions: readonly string[];
    readonly tokens: readonly (readonly number[])[];
  }[];
}

export interface PageServer {
  readonly url: string;
  close(): Promise<void>;
}

/** The modules of the page and of its worker. */
const MODULES: Readonly<Record<string, string>> = { "/app.js": "page/app.ts", "/worker.js": "worker/worker.ts" };

/** Bundles a module and its imports to one file. @throws esbuild's BuildFailure */
export async function buildPage(module = "page/app.ts"): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(HERE, module)],
    bundle: true,
    platform: "browser",
    format: "esm",
    target: "es2022",
    sourcemap: "inline",
    write: false,
    logLevel: "silent", // thrown, with every message
  });
  return outputFiles[0].text;
}

/** @param port 0: any that is free @throws InputError NOT_FOUND; BuildFailure; the system's error, EADDRINUSE */
export async function servePage({
  models,
  port,
}: {
  /** Folders of checkpoints, besides the embedded one. */
  models: readonly string[];
  port: number;
}): Promise<PageServer> {
  const folders: string[] = [];
  for (const model of [...models, EMBEDDED]) {
    const folder = await realpath(resolve(model)).catch(() => resolve(model));
    if (!(await stat(join(folder, "config.json")).catch(() => undefined))?.isFile()) {
      throw new InputError("NOT_FOUND", `--model ${model}: there is no checkpoint's config.json in this folder`);
    }
    if (!folders.includes(folder)) folders.push(folder);
  }
  await Promise.all(Object.values(MODULES).map(buildPage)); // build errors are thrown here, not in the browser
  const server = createServer((request, response) => {
    answer(request, response, folders).catch((error: Error) => {
      if (response.headersSent) response.destroy();
      else sendText(response, 500, "text/plain", error.message);
    });
  });
  await new Promise<void>((listening, failed) => {
    server.once("error", failed);
    // One address: "localhost" may have two, and a server listens on the first only.
    server.listen(port, "127.0.0.1", listening);
  });
  return {
    url: `http://localhost:${(server.address() as AddressInfo).port}/`,
    close: async () => {
      const closed = new Promise((done) => server.close(done));
      server.closeAllConnections();
      await closed;
    },
  };
}

const TYPES: Readonly<Record<string, string>> = {
  ".png": "image/png",
  ".json": "application/json",
  ".safetensors": "application/octet-stream",
};
/** Content security policy: no other origins; images may also be local ones. */
const POLICY = "default-src 'self'; img-src 'self' blob: data:";

/** Serves the page, its module, its settings, images and the checkpoint's files, and nothing else. */
async function answer(request: IncomingMessage, response: ServerResponse, folders: readonly string[]) {
  response.setHeader("cache-control", "no-cache");
  response.setHeader("x-content-type-options", "nosniff");
  // Other origins may neither read nor embed responses.
  response.setHeader("cross-origin-resource-policy", "same-origin");
  if (!isOurName(request.headers.host)) {
    return sendText(response, 421, "text/plain", "this server is called localhost or 127.0.0.1");
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD");
    return sendText(response, 405, "text/plain", "only GET and HEAD");
  }
  const path = pathOf(request.url ?? "");
  if (path === "/") {
    response.setHeader("content-security-policy", POLICY);
    return sendText(response, 200, "text/html", await readFile(join(HERE, "index.html"), "utf8"));
  }
  if (path === "/styles.css" || path === "/explorer.css") {
    return sendText(response, 200, "text/css", await readFile(join(HERE, path), "utf8"));
  }
  if (path === "/colours.css") return sendText(response, 200, "text/css", COLOUR_STYLES);
  const module = path && MODULES[path];
  if (module) {
    response.setHeader("content-security-policy", POLICY); // a worker has its own
    return sendText(response, 200, "text/javascript", await buildPage(module));
  }
  if (path === "/exam.json") return sendText(response, 200, "application/json", JSON.stringify(await examOf(folders)));
  if (path === "/page.json") {
    return sendText(response, 200, "application/json", JSON.stringify(await factsOf(folders)));
  }
  const file = path && (await fileOf(path, folders));
  return file
    ? sendFile(request, response, file, TYPES[extname(path)])
    : sendText(response, 404, "text/plain", "no such file");
}

/** Whether a request's Host is localhost, not a name that resolves to it. */
function isOurName(host: string | undefined): boolean {
  return /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i.test(host ?? "");
}

/** A URL's path, decoded. Not by `new URL`, which would resolve its dots. */
function pathOf(url: string): string | undefined {
  try {
    return decodeURIComponent(url.replace(/[?#].*$/s, ""));
  } catch {
    return undefined;
  }
}

/** The file of a path, links followed; files outside of the allowed folders cannot be reached. */
async function fileOf(path: string, folders: readonly string[]): Promise<string | undefined> {
  const [, kind, number, name] = /^\/(?:(images)|checkpoint\/(\d{1,4}))\/(.+)$/s.exec(path) ?? [];
  if (name === undefined) return undefined;
  const root = kind === "images" ? join(SHAPES, "images") : folders[Number(number)];
  if (root === undefined) return undefined;
  try {
    checkFileName(name);
  } catch {
    return undefined;
  }
  const endings = kind === "images" ? [".png"] : CHECKPOINT_FILES;
  return endings.includes(extname(name)) ? insideOf(root, name) : undefined;
}

const CHECKPOINT_FILES = [".json", ".safetensors", ".bin", ".pt", ".pth", ".ckpt"];

/** A file of a folder, links followed; undefined if it is outside. */
async function insideOf(root: string, name: string): Promise<string | undefined> {
  const file = await realpath(join(root, name)).catch(() => undefined);
  const roots = [await realpath(root), ...blobsOf(root)];
  return file !== undefined && roots.some((inside) => file.startsWith(inside + sep)) ? file : undefined;
}

/** The files of a checkpoint that are served, and their sizes together. */
async function filesOf(folder: string): Promise<{ files: string[]; bytes: number }> {
  const files: string[] = [];
  let bytes = 0;
  for (const name of (await readdir(folder, { recursive: true })).map((path) => path.split(sep).join("/")).sort()) {
    const file = CHECKPOINT_FILES.includes(extname(name)) && (await insideOf(folder, name));
    const found = file ? await stat(file) : undefined;
    if (!found?.isFile()) continue;
    files.push(name);
    bytes += found.size;
  }
  return { files, bytes };
}

/** The target folder of links in the Hub's cache: from models--OWNER--NAME/snapshots/COMMIT to blobs beside snapshots. */
function blobsOf(folder: string): string[] {
  const snapshots = dirname(folder);
  const model = dirname(snapshots);
  return basename(snapshots) === "snapshots" && basename(model).startsWith("models--") ? [join(model, "blobs")] : [];
}

/** The questions of "Check this adapter" for the embedded checkpoint, and PyTorch's answers. */
async function examOf(folders: readonly string[]): Promise<PageExam> {
  const read = async (name: string) => JSON.parse(await readFile(join(SHAPES, "images", name), "utf8"));
  const [examples, tokens] = [(await read("questions.json")) as PageFacts["images"], await read("tokens.json")];
  const { files } = await filesOf(EMBEDDED);
  return {
    checkpoint: { url: `checkpoint/${folders.indexOf(await realpath(EMBEDDED))}`, files },
    images: examples.map(({ image, questions }, i) => ({ image, questions, tokens: tokens[i] })),
  };
}

async function factsOf(folders: readonly string[]): Promise<PageFacts> {
  const examples = JSON.parse(await readFile(join(SHAPES, "images/questions.json"), "utf8")) as PageFacts["images"];
  const embedded = await realpath(EMBEDDED);
  const checkpoints = folders.map(async (folder, i): Promise<OfferedCheckpoint> => {
    const about =
      folder === embedded
        ? {
            name: "The embedded checkpoint",
            note: "3.3 million parameters. It has only ever seen coloured shapes, and takes any image for some.",
            questions: ["What is in the image?", "How many shapes are there?", "What color is the star?"],
          }
        : {
            name: basename(folder),
            note: "",
            questions: ["What is unusual about this image?", "Describe the image in detail.", "a photo of"],
          };
    return { ...about, url: `checkpoint/${i}`, ...(await filesOf(folder)) };
  });
  return {
    checkpoints: await Promise.all(checkpoints),
    images: examples.map(({ image, questions }) => ({ image, questions })),
  };
}

function sendText(response: ServerResponse, status: number, type: string, text: string): void {
  const body = Buffer.from(text);
  response.writeHead(status, { "content-type": `${type}; charset=utf-8`, "content-length": body.length });
  response.end(response.req.method === "HEAD" ? undefined : body);
}

/** Serves a file or a requested byte range of it. Source: RFC 9110, 14. */
async function sendFile(request: IncomingMessage, response: ServerResponse, path: string, type: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) return sendText(response, 404, "text/plain", "no such file");
  const { size, mtimeMs } = found;
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
  const whole = from === undefined; // also for unsupported kinds of ranges
  const [start, end] = whole ? [0, size - 1] : [Number(from), to ? Math.min(Number(to), size - 1) : size - 1];
  if (!whole && start > end) {
    response.setHeader("content-range", `bytes */${size}`);
    return sendText(response, 416, "text/plain", "the file is shorter");
  }
  response.writeHead(whole ? 200 : 206, {
    "content-type": type,
    "content-length": end - start + 1,
    "accept-ranges": "bytes",
    etag: `"${size.toString(36)}-${Math.floor(mtimeMs).toString(36)}"`,
    ...(whole ? {} : { "content-range": `bytes ${start}-${end}/${size}` }),
  });
  if (request.method === "HEAD" || size === 0) return void response.end();
  await pipeline(createReadStream(path, { start, end }), response).catch(() => {}); // the browser has closed the connection
}

const HELP = `usage: npm run browser -- [--model FOLDER] [--port N]

Serves a page that answers questions about images to this machine's browsers; Ctrl-C ends it.

  --model FOLDER  a checkpoint to offer besides the embedded one; may be given several times
  --port N        0 for any that is free (default 8080)
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      help: { type: "boolean", short: "h", default: false },
      model: { type: "string", multiple: true, default: [] },
      port: { type: "string", default: "8080" },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65535) throw new InputError("PORT", `--port ${values.port}: 0 to 65535`);
  const { url } = await servePage({ models: values.model, port });
  for (const model of [...values.model, "examples/shapes/checkpoint/"]) console.log(`model    ${model}`);
  console.log(`page     ${url}  (Ctrl-C ends it)`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  exitWithReader();
  main().catch((error: NodeJS.ErrnoException) => {
    const busy = error.code === "EADDRINUSE" ? "the port is in use; --port 0 takes any that is free" : undefined;
    console.error(`error: ${busy ?? error.message}`);
    process.exitCode = 1;
  });
}
