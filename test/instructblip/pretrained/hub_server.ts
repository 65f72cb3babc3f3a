/**
 * A local server with the part of the Hub's protocol that downloads need: revisions, paged listings, small files, and large
 * ones (Git LFS) on a second host by a redirect. Tests can request faults.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What is served, and what goes wrong. */
export interface HubModel {
  repository: string;
  commit: string;
  files: Record<string, Buffer>;
  /** Files kept in Git LFS. */
  large: string[];
  /** Answers a request itself by returning true. */
  fault?: (request: SeenRequest, response: ServerResponse) => boolean;
  /** Changes the bytes of a file on their way; the listing keeps the hashes of `files`. */
  damage?: (file: string, bytes: Buffer) => Buffer;
  /** Cuts the connection after so many bytes of this answer. */
  cutAfter?: (request: SeenRequest) => number | undefined;
  ignoreRange?: boolean;
  /** Answers pages of other origins, as the Hub and its hosts of large files do. */
  cors?: boolean;
}

/** What the Hub lets pages of other origins read. */
const EXPOSED =
  "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag,X-Xet-Hash";

export interface SeenRequest {
  host: "hub" | "cdn";
  method: string;
  path: string;
  range: string | undefined;
  authorization: string | undefined;
}

export const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
export const gitSha1 = (bytes: Buffer) =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
export const oidOf = (model: HubModel, file: string) =>
  model.large.includes(file) ? sha256(model.files[file]) : gitSha1(model.files[file]);

/** Two names, because huggingface_hub tells hosts apart by name alone. */
const HOSTS = { hub: "127.0.0.1", cdn: "localhost" };
/** Two to a page, so that every listing has several. */
const PAGE = 2;

export class HubServer {
  readonly model: HubModel;
  readonly seen: SeenRequest[] = [];
  endpoint = "";
  readonly #hub: Server;
  readonly #cdn: Server;

  private constructor(model: HubModel) {
    this.model = model;
    this.#hub = createServer((request, response) => this.#answer("hub", request, response));
    this.#cdn = createServer((request, response) => this.#answer("cdn", request, response));
  }

  static async start(model: HubModel, port = 0): Promise<HubServer> {
    const server = new HubServer(model);
    await new Promise<void>((ready) => server.#hub.listen(port, HOSTS.hub, ready));
    await new Promise<void>((ready) => server.#cdn.listen(0, HOSTS.cdn, ready));
    server.endpoint = addressOf("hub", server.#hub);
    return server;
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#cdn]) {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  }

  #answer(host: "hub" | "cdn", request: IncomingMessage, response: ServerResponse): unknown {
    const { model } = this;
    const url = new URL(request.url ?? "", this.endpoint);
    const path = decodeURIComponent(url.pathname);
    const { range, authorization } = request.headers;
    if (model.cors) {
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("access-control-expose-headers", host === "hub" ? EXPOSED : "*");
      if (request.method === "OPTIONS") {
        const allowed = {
          "access-control-allow-headers": "authorization,range",
          "access-control-allow-methods": "GET",
        };
        return void response.writeHead(204, allowed).end();
      }
    }
    const seen: SeenRequest = { host, method: request.method ?? "", path, range, authorization };
    this.seen.push(seen);
    if (model.fault?.(seen, response)) return undefined;
    const refuse = (code: string) => void response.writeHead(404, { "x-error-code": code }).end("{}");
    const api = `/api/models/${model.repository}`;
    const known = (revision: string) => revision === "main" || revision === model.commit;
    if (host === "cdn") {
      const [file, etag] = [path.slice(1), `"${oidOf(model, path.slice(1))}"`];
      return this.#send(seen, model.files[file], response, { etag }, file);
    }
    if (path.startsWith(`${api}/revision/`)) {
      if (!known(path.slice(`${api}/revision/`.length))) return refuse("RevisionNotFound");
      const answer = {
        _id: "1",
        id: model.repository,
        sha: model.commit,
        private: false,
        tags: [],
        siblings: Object.keys(model.files).map((rfilename) => ({ rfilename })),
        gated: false,
      };
      return json(response, { ...answer, lastModified: "2026-01-01T00:00:00.000Z", downloads: 0, likes: 0 });
    }
    if (path.startsWith(`${api}/tree/`)) {
      if (!known(path.slice(`${api}/tree/`.length))) return refuse("RevisionNotFound");
      const begin = Number(url.searchParams.get("cursor") ?? 0);
      const files = Object.keys(model.files).sort();
      url.searchParams.set("cursor", String(begin + PAGE));
      if (begin + PAGE < files.length) response.setHeader("Link", `<${url}>; rel="next"`);
      return json(
        response,
        files.slice(begin, begin + PAGE).map((file) => this.#entry(file)),
      );
    }
    const [, revision, file] = path.match(new RegExp(`^/${model.repository}/resolve/([^/]+)/(.+)$`)) ?? [];
    if (file === undefined) return refuse("RepoNotFound");
    if (!known(revision)) return refuse("RevisionNotFound");
    const bytes = model.files[file];
    const headers = { "x-repo-commit": model.commit };
    if (!bytes) return void response.writeHead(404, { ...headers, "x-error-code": "EntryNotFound" }).end();
    const etag = `"${oidOf(model, file)}"`;
    if (!model.large.includes(file)) return this.#send(seen, bytes, response, { ...headers, etag }, file);
    const location = `${addressOf("cdn", this.#cdn)}/${file}`;
    response.writeHead(302, { ...headers, location, "x-linked-etag": etag, "x-linked-size": bytes.length }).end();
  }

  #entry(file: string): object {
    const { size, oid } = { size: this.model.files[file].length, oid: gitSha1(this.model.files[file]) };
    if (!this.model.large.includes(file)) return { type: "file", path: file, size, oid };
    const lfs = { oid: sha256(this.model.files[file]), size, pointerSize: 134 };
    return { type: "file", path: file, size, oid: gitSha1(Buffer.from(`pointer to ${lfs.oid}`)), lfs };
  }

  #send(seen: SeenRequest, whole: Buffer, response: ServerResponse, headers: object, file: string): void {
    const { model } = this;
    const bytes = model.damage?.(file, whole) ?? whole;
    const [, from, to] = (!model.ignoreRange && /^bytes=(\d+)-(\d*)$/.exec(seen.range ?? "")) || [];
    const begin = Number(from ?? 0);
    const part = bytes.subarray(begin, to ? Number(to) + 1 : undefined);
    const isPart = seen.range !== undefined && !model.ignoreRange;
    const last = begin + part.length - 1;
    const range = isPart ? { "content-range": `bytes ${begin}-${last}/${bytes.length}` } : {};
    response.writeHead(isPart ? 206 : 200, { ...headers, ...range, "content-length": part.length });
    const cut = seen.method === "GET" ? model.cutAfter?.(seen) : undefined;
    if (seen.method === "HEAD") return void response.end();
    if (cut === undefined) return void response.end(part);
    response.write(part.subarray(0, cut), () => response.destroy());
  }
}

function addressOf(host: "hub" | "cdn", server: Server): string {
  return `http://${HOSTS[host]}:${(server.address() as AddressInfo).port}`;
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
}
