/** Servers of checks, on a free port. */
import { readFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { checkFileName } from "../../src/tensor/files/source.ts";

export interface Served {
  readonly url: string;
  close(): Promise<void>;
}

export async function serveCheck(answer: RequestListener): Promise<Served> {
  const server = createServer(answer);
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  return {
    url: `http://localhost:${(server.address() as AddressInfo).port}/`,
    close: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

async function bundled(entry: string): Promise<Uint8Array> {
  const entryPoints = [fileURLToPath(new URL(`../../src/${entry}`, import.meta.url))];
  const { outputFiles } = await build({
    ...{ entryPoints, bundle: true, platform: "browser", format: "esm", write: false, logLevel: "silent" },
  });
  return outputFiles![0].contents;
}

/**
 * Serves a page with the library: /lib.js, /worker_lib.js, and /worker.js, which answers calls.
 *
 * @param folders by the beginning of their URLs, `checkpoint/`; files of them may be read by ranges
 */
export async function serveLibrary(page: string, folders: Readonly<Record<string, string>>): Promise<Served> {
  const start = Buffer.from('import { answerCalls } from "/worker_lib.js"; answerCalls();');
  const made: Readonly<Record<string, Uint8Array>> = {
    "/lib.js": await bundled("index.ts"),
    "/worker_lib.js": await bundled("worker.ts"),
    "/worker.js": start,
  };
  return serveCheck((request, response) => {
    const path = decodeURIComponent(request.url ?? "");
    if (path === "/") return void response.writeHead(200, { "content-type": "text/html" }).end(page);
    const script = made[path];
    if (script) return void response.writeHead(200, { "content-type": "text/javascript" }).end(script);
    try {
      const [begins, folder] = Object.entries(folders).find(([begin]) => path.startsWith(`/${begin}`))!;
      const name = path.slice(1 + begins.length);
      checkFileName(name);
      const file = readFileSync(join(folder, name));
      const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
      const begin = Number(from ?? 0);
      const part = file.subarray(begin, to ? Number(to) + 1 : undefined);
      response.writeHead(from === undefined ? 200 : 206, {
        "content-type": extname(path) === ".png" ? "image/png" : "application/octet-stream",
        "content-length": part.length,
        etag: `"${path.length}-${file.length}"`,
        ...(from !== undefined && { "content-range": `bytes ${begin}-${begin + part.length - 1}/${file.length}` }),
      });
      response.end(request.method === "HEAD" ? undefined : part);
    } catch {
      response.writeHead(404).end();
    }
  });
}
