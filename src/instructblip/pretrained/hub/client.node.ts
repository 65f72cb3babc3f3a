/** Requests to the Hub for one repository, with its refusals as typed errors. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { EngineError, InputError, WeightError } from "../../../tensor/errors.ts";
import { type FetchLimits, fetchLimited, type LimitedResponse } from "../../../tensor/files/fetch_limited.ts";
import { type ByteSource, HttpSource } from "../../../tensor/files/source.ts";
import type { OpenFolderOptions } from "./hub.ts";
import { COMMIT, cleanToken, type HubId, type HubSettings, hubRefusal, hubSettings } from "./hub.ts";

/** An aborted download keeps what has arrived, and the next one resumes it. */
export interface HubOptions extends OpenFolderOptions, Pick<FetchLimits, "silenceMs" | "minRate"> {
  /** Default: those of the process. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Milliseconds before a broken download is resumed; doubled after each attempt without progress. Default 1000. */
  retryDelayMs?: number;
}

/** A file of the repository and its hash: git's SHA-1 for a small file, SHA-256 for a large one. */
export interface Blob {
  readonly oid: string;
  readonly size: number;
}

/** Timeout of a request about a repository, with all pages of the response. */
const QUESTION_MS = 60_000;
/** Largest response: about 60,000 files; a model has a hundred. */
const MAX_ANSWER_BYTES = 16 * 2 ** 20;
const MAX_ANSWER_PAGES = 100;
/** Ranges count transferred bytes: a compressed response could not be resumed. */
const UNCOMPRESSED = { "Accept-Encoding": "identity" } as const;

/** Requests for one repository: token, endpoint and error messages. */
export class Hub {
  readonly id: HubId;
  readonly options: HubOptions;
  readonly settings: HubSettings;
  readonly cache: string;
  readonly #token: string | undefined;

  private constructor(id: HubId, options: HubOptions, settings: HubSettings, cache: string, token: string | undefined) {
    this.id = id;
    this.options = options;
    this.settings = settings;
    this.cache = cache;
    this.#token = token;
  }

  static async open(id: HubId, options: HubOptions): Promise<Hub> {
    const { env = process.env, endpoint } = options;
    const settings = hubSettings(endpoint === undefined ? env : { ...env, HF_ENDPOINT: endpoint });
    const path = (given: string) => resolve(given.replace(/^~(?=$|[\\/])/, homedir()));
    const home = path(settings.home ?? join(settings.userCache ?? "~/.cache", "huggingface"));
    const offline = settings.offline || options.local_files_only === true;
    const cache = path(options.cache_dir ?? settings.cache ?? join(home, "hub"));
    return new Hub(id, options, { ...settings, offline }, cache, await tokenOf());

    async function tokenOf(): Promise<string | undefined> {
      const { token } = options;
      if (token === false) return undefined;
      if (typeof token === "string") return cleanToken(token, "token");
      const file = path(settings.tokenPath ?? join(home, "token"));
      const found =
        settings.token === undefined
          ? cleanToken(await readFile(file, "utf8").catch(() => ""), "the token file of the Hub")
          : cleanToken(settings.token, "HF_TOKEN");
      if (token === true && found === undefined) {
        throw new InputError("TOKEN", "token: true stands for the stored token, and there is none", {
          hint: "set HF_TOKEN, run `hf auth login`, or give the token itself",
        });
      }
      return found;
    }
  }

  /** The hint for a file that is not cached. */
  get hintOffline(): string {
    const why = this.options.local_files_only ? "local_files_only forbids" : "HF_HUB_OFFLINE forbids";
    const undo = this.options.local_files_only ? "leave it out" : "unset it";
    return `${why} a download; ${undo}, or point HF_HOME or cache_dir to the cache that has the model`;
  }

  /** The commit of the revision now. */
  async commit(): Promise<string> {
    const { modelInfo } = await library();
    const { repository: name, revision } = this.id;
    return this.#ask(async (connection) => {
      const { sha } = await modelInfo({ name, revision, additionalFields: ["sha"], ...connection });
      if (!COMMIT.test(sha)) throw new SyntaxError("not a commit");
      return sha;
    });
  }

  /** Every file of a commit. */
  async list(commit: string): Promise<ReadonlyMap<string, Blob>> {
    const { listFiles } = await library();
    const { repository: repo } = this.id;
    return this.#ask(async (connection) => {
      const files = new Map<string, Blob>();
      for await (const entry of listFiles({ repo, revision: commit, recursive: true, ...connection })) {
        if (entry.type !== "file") continue;
        const oid = entry.lfs?.oid ?? entry.oid ?? "";
        const size = entry.lfs?.size ?? entry.size;
        // The hash becomes a file's name in the cache.
        if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(oid) || !Number.isSafeInteger(size) || size < 0) {
          throw new SyntaxError("not a hash and a size");
        }
        files.set(entry.path, { oid, size });
      }
      return files;
    });
  }

  /** The bytes of a file from `begin`. For large files the Hub redirects to another host. */
  async bytes(commit: string, file: string, begin: number): Promise<LimitedResponse> {
    const headers: Record<string, string> = { ...UNCOMPRESSED };
    if (begin > 0) headers.Range = `bytes=${begin}-`;
    return this.#send(this.#urlOf(commit, file), { headers }, file);
  }

  /** A file that is read by ranges, without downloading it whole. @throws WeightError as HttpSource.open */
  async ranges(commit: string, file: string): Promise<ByteSource> {
    const { signal, silenceMs, minRate } = this.options;
    const headers = { ...UNCOMPRESSED, ...(this.#token && { Authorization: `Bearer ${this.#token}` }) };
    const options = { headers, signal, from: this.settings.endpoint };
    return HttpSource.open(this.#urlOf(commit, file), {
      ...options,
      ...(silenceMs !== undefined && { silenceMs }),
      ...(minRate !== undefined && { minRate }),
    });
  }

  #urlOf(commit: string, file: string): string {
    const path = file.split("/").map(encodeURIComponent).join("/");
    return `${this.settings.endpoint}/${this.id.repository}/resolve/${commit}/${path}`;
  }

  /** Runs a request of the library; its errors become typed ones. */
  async #ask<T>(question: (connection: { hubUrl: string; fetch: typeof fetch }) => Promise<T>): Promise<T> {
    const { signal } = this.options;
    const begun = performance.now();
    const left = { bytes: MAX_ANSWER_BYTES, pages: MAX_ANSWER_PAGES };
    try {
      return await question({
        hubUrl: this.settings.endpoint,
        fetch: async (url, init) => {
          if (left.pages-- === 0) throw this.#notTheHubs(`it has more than ${MAX_ANSWER_PAGES} pages`);
          const { response, bytes } = await this.#send(String(url), {
            headers: Object.fromEntries(new Headers(init?.headers)),
            timeoutMs: Math.max(1, QUESTION_MS - (performance.now() - begun)),
            maxBytes: left.bytes,
          });
          const body = await bytes();
          left.bytes -= body.length;
          return new Response(body, { headers: response.headers });
        },
      });
    } catch (cause) {
      signal?.throwIfAborted();
      throw cause instanceof EngineError ? cause : this.#notTheHubs("it is not the Hub's", cause);
    }
  }

  #notTheHubs(why: string, cause?: unknown): WeightError {
    return new WeightError(
      "HUB_STATUS",
      `${this.id.repository}: the answer to a question about it is unusable: ${why}`,
      {
        hint: "is HF_ENDPOINT a server of the Hub's protocol?",
        cause,
      },
    );
  }

  /** A request with the token. A refusal is thrown here, typed, as the library drops the Hub's error code. */
  async #send(
    url: string,
    { headers, ...limits }: { headers: Record<string, string> } & FetchLimits,
    file?: string,
  ): Promise<LimitedResponse> {
    const { endpoint } = this.settings;
    const { signal, silenceMs, minRate } = this.options;
    // A listing gives its next page by an absolute URL.
    const isHub = URL.canParse(url) && new URL(url).origin === new URL(endpoint).origin;
    const request = await fetchLimited(url, {
      headers: { ...headers, ...(isHub && this.#token && { Authorization: `Bearer ${this.#token}` }) },
      signal,
      silenceMs,
      minRate,
      ...limits,
      from: endpoint,
      error: (code, message, more) =>
        code === "IO" || code === "HTTP_TIMEOUT"
          ? this.#unreachable(more?.cause ?? new Error(message), file)
          : new WeightError(code, `${this.id.repository}: ${message}`, more),
    });
    const { response, end } = request;
    if (response.ok || (response.status === 416 && "Range" in headers)) return request;
    end();
    throw this.refusal(response.status, response.headers.get("x-error-code"), file);
  }

  refusal(status: number, errorCode: string | null, file?: string): WeightError {
    const hasToken = this.#token !== undefined;
    return hubRefusal(status, errorCode, { ...this.id, endpoint: this.settings.endpoint, file, hasToken });
  }

  #unreachable(cause: unknown, file?: string): WeightError {
    const { endpoint } = this.settings;
    const what = file === undefined ? "no such folder, and the Hub cannot be reached" : `${file}: the connection broke`;
    return new WeightError("HUB_UNREACHABLE", `${this.id.repository}: ${what}`, {
      hint: `is there a network? ${new URL(endpoint).host} was asked; HF_ENDPOINT names another server`,
      cause,
    });
  }
}

/** Imported at its first use: a local folder does not need it. */
function library(): Promise<typeof import("@huggingface/hub")> {
  return import("@huggingface/hub");
}
