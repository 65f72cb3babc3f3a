/**
 * A model of the Hugging Face Hub as a folder, kept in the cache that huggingface_hub keeps it in. A file is downloaded
 * when it is first opened, so only what a model needs is fetched. `@huggingface/hub` resolves revisions and lists files; its
 * own download neither resumes, nor checks a hash, nor keeps two processes apart, so that part is here. Nothing is uploaded.
 */
import { createHash, randomBytes } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import {
  copyFile,
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { homedir, hostname } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { EngineError, InputError, WeightError } from "../../tensor/errors.ts";
import { type FetchLimits, fetchLimited, type LimitedResponse, pause } from "../../tensor/files/fetch_limited.ts";
import { NodeFolder } from "../../tensor/files/source.node.ts";
import { type ByteSource, checkFileName, type Folder, MAX_TEXT_BYTES } from "../../tensor/files/source.ts";
import type { OpenFolderOptions } from "./hub.ts";
import { COMMIT, cleanToken, type HubId, type HubSettings, hubRefusal, hubSettings, repositoryFolder } from "./hub.ts";

/** An aborted download keeps what has arrived, and the next one resumes it. */
export interface HubOptions extends OpenFolderOptions, Pick<FetchLimits, "silenceMs" | "minRate"> {
  /** Default: the process's. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Before a broken download is resumed, and twice as long each time that brought nothing. Default 1000. */
  retryDelayMs?: number;
}

/** A file of the repository, by its content: git's SHA-1 of a small one, the SHA-256 of a large one. */
interface Blob {
  readonly oid: string;
  readonly size: number;
}

/** A download that brings nothing new so often in a row is given up. */
const ATTEMPTS = 5;
/** What a request must bring beyond all before it, so that the next one is not one more that brought nothing. */
const WORTH_RETRYING = 2 ** 16;
/** Refusals after which the same request may go well. */
const PASSING = ["HUB_UNREACHABLE", "HUB_BUSY", "HTTP_SLOW"];
/** A question about a repository and its answer, in all pages, take no longer. */
const QUESTION_MS = 60_000;
/** Of the answer: about 60,000 files, where a model has a hundred. */
const MAX_ANSWER_BYTES = 16 * 2 ** 20;
const MAX_ANSWER_PAGES = 100;

/** Partial files that this process is writing now. */
const writing = new Set<string>();

/** A repository of the Hub at one commit. */
export class HubFolder implements Folder {
  readonly name: string;
  readonly commit: string;
  /** Where the files of this commit lie, or will lie. */
  readonly path: string;
  readonly #store: string;
  readonly #hub: Hub;
  /** Why only the cache is used, if it is. */
  #apart: EngineError | undefined;
  #listing: Promise<ReadonlyMap<string, Blob>> | undefined;
  readonly #fetching = new Map<string, Promise<void>>();

  private constructor(hub: Hub, store: string, commit: string, apart: EngineError | undefined) {
    this.name = hub.id.repository;
    this.commit = commit;
    this.path = join(store, "snapshots", commit);
    this.#store = store;
    this.#hub = hub;
    this.#apart = apart;
  }

  /**
   * Finds out which commit is meant. A whole commit is not asked about; a branch is asked about, and where the Hub cannot be
   * reached or refuses, the cached copy serves, as in huggingface_hub.
   *
   * @throws WeightError HUB_OFFLINE, HUB_UNREACHABLE and those of {@link hubRefusal}; InputError ENV; the signal's reason
   */
  static async open(id: HubId, options: HubOptions = {}): Promise<HubFolder> {
    const hub = await Hub.open(id, options);
    const store = join(hub.cache, repositoryFolder(id.repository));
    const isCommit = COMMIT.test(id.revision);
    const ref = join(store, "refs", id.revision);
    const cached = isCommit ? id.revision : (await readFile(ref, "utf8").catch(() => "")).trim();
    const isCached = COMMIT.test(cached) && (await isWhole(join(store, "snapshots", cached)));
    if (hub.settings.offline) {
      const apart = new WeightError(
        "HUB_OFFLINE",
        `${id.repository}: no such folder, and its revision ${id.revision} is not, or not wholly, in the cache at ${hub.cache}`,
        { hint: hub.hintOffline },
      );
      if (!isCached) throw apart;
      return new HubFolder(hub, store, cached, apart);
    }
    if (isCommit) return new HubFolder(hub, store, cached, undefined);
    let commit: string;
    try {
      commit = await hub.commit();
    } catch (error) {
      const usable = error instanceof EngineError && error.code !== "HUB_REVISION_NOT_FOUND";
      if (!usable || !isCached) throw error;
      return new HubFolder(hub, store, cached, error);
    }
    if (commit !== cached) await inCache(hub.cache, () => replaceFile(ref, commit));
    return new HubFolder(hub, store, commit, undefined);
  }

  /** Whether the file is in the cache or, failing that, in the repository; nothing is downloaded. */
  async has(file: string): Promise<boolean> {
    checkFileName(file);
    if (await isFile(join(this.path, file))) return true;
    // Where huggingface_hub notes what a commit does not have.
    const absent = join(this.#store, ".no_exist", this.commit, file);
    if (this.#apart || (await isFile(absent))) return false;
    try {
      if ((await this.#list()).has(file)) return true;
    } catch (error) {
      // A commit given by its whole name is not asked about before; the network may be missed here first.
      if (!(error instanceof EngineError && (await isWhole(this.path)))) throw error;
      this.#apart = error;
      return false;
    }
    // A cache that cannot be written is only slower.
    await replaceFile(absent, "").catch(() => undefined);
    return false;
  }

  async text(file: string, maxBytes = MAX_TEXT_BYTES): Promise<string> {
    await this.#fetch(file, maxBytes);
    return new NodeFolder(this.path).text(file, maxBytes);
  }

  /** Downloads the file, unless it is cached. @throws WeightError NOT_FOUND, INTEGRITY, IO, HUB_… ; the signal's reason */
  async open(file: string): Promise<ByteSource> {
    await this.#fetch(file, Number.POSITIVE_INFINITY);
    return new NodeFolder(this.path).open(file);
  }

  async #fetch(file: string, maxBytes: number): Promise<void> {
    checkFileName(file);
    const pointer = join(this.path, file);
    if (await isFile(pointer)) return;
    let fetching = this.#fetching.get(file);
    if (!fetching) {
      fetching = this.#fetchOnce(file, pointer, maxBytes).finally(() => this.#fetching.delete(file));
      this.#fetching.set(file, fetching);
    }
    return fetching;
  }

  async #fetchOnce(file: string, pointer: string, maxBytes: number): Promise<void> {
    if (this.#apart) {
      const message = `${this.name}: ${file} is not in the cache`;
      throw new WeightError(this.#apart.code, message, { cause: this.#apart, hint: this.#apart.message });
    }
    const blob = (await this.#list()).get(file);
    const hub = this.#hub;
    if (!blob) throw hub.refusal(404, "EntryNotFound", file);
    if (blob.size > maxBytes) {
      throw new WeightError("FILE_TOO_LARGE", `${file}: larger than the limit of ${maxBytes} bytes`);
    }
    const blobs = join(this.#store, "blobs");
    const path = join(blobs, blob.oid);
    await inCache(hub.cache, async () => {
      await mkdir(blobs, { recursive: true });
      const isNew = !(await isFile(path));
      if (isNew) await download(hub, this.commit, file, blob, blobs);
      await point(pointer, path, isNew, hub.settings.symlinks);
    });
  }

  #list(): Promise<ReadonlyMap<string, Blob>> {
    this.#listing ??= this.#hub.list(this.commit).catch((error: unknown) => {
      this.#listing = undefined;
      throw error;
    });
    return this.#listing;
  }
}

// --- the Hub -------------------------------------------------------------------------------------------------------

/** One repository's requests: who asks, where, and what a refusal is called. */
class Hub {
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
    const settings = hubSettings(options.env ?? process.env);
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

  /** What to do about a file that only the Hub has. */
  get hintOffline(): string {
    const why = this.options.local_files_only ? "local_files_only forbids" : "HF_HUB_OFFLINE forbids";
    const undo = this.options.local_files_only ? "leave it out" : "unset it";
    return `${why} a download; ${undo}, or point HF_HOME or cache_dir to the cache that has the model`;
  }

  /** The commit that the revision stands for now. */
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

  /** The bytes of a file from `begin`. The Hub sends large files' readers on to another host. */
  async bytes(commit: string, file: string, begin: number): Promise<LimitedResponse> {
    const path = file.split("/").map(encodeURIComponent).join("/");
    // Ranges count the bytes that are sent: compressed ones cannot be resumed.
    const headers: Record<string, string> = { "Accept-Encoding": "identity" };
    if (begin > 0) headers.Range = `bytes=${begin}-`;
    return this.#send(`${this.settings.endpoint}/${this.id.repository}/resolve/${commit}/${path}`, { headers }, file);
  }

  /** Lets the library ask; whatever it stumbles over becomes an error of ours. */
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

  /** A request with the token, whose refusal is already thrown as ours: the library drops the Hub's own code for it. */
  async #send(
    url: string,
    { headers, ...limits }: { headers: Record<string, string> } & FetchLimits,
    file?: string,
  ): Promise<LimitedResponse> {
    const { endpoint } = this.settings;
    const { signal, silenceMs, minRate } = this.options;
    // A listing names its next page by a whole URL.
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

/** Loaded when it is first needed: a local folder needs none of it. */
function library(): Promise<typeof import("@huggingface/hub")> {
  return import("@huggingface/hub");
}

// --- downloading ---------------------------------------------------------------------------------------------------

/**
 * Brings a blob to its place: nothing lies at `blobs/OID` that is not whole and checked.
 *
 * The bytes go to a file of this process alone, as in huggingface_hub since its pull request 4228: file locks do not hold
 * on every network file system. A download that fails leaves `OID.incomplete`, which the next one takes by renaming it, so
 * only one can.
 */
async function download(hub: Hub, commit: string, file: string, blob: Blob, blobs: string): Promise<void> {
  const partial = await claim(blobs, blob.oid);
  let keep = true;
  try {
    let resumed = (await stat(partial)).size > 0;
    for (;;) {
      await receive(hub, commit, file, blob, partial);
      if (await isIntact(partial, blob, hub.options.signal)) break;
      await rm(partial);
      // What lay there may have been another download's; from here on every byte is ours.
      if (!resumed) {
        keep = false;
        throw new WeightError(
          "INTEGRITY",
          `${hub.id.repository}: ${file}: what arrived does not have the hash that the Hub lists`,
          {
            hint: "damaged on the way, or by a server in between; nothing was kept, try again",
          },
        );
      }
      resumed = false;
    }
    await publish(partial, join(blobs, blob.oid));
  } catch (error) {
    const isEmpty = (await stat(partial).catch(() => undefined))?.size === 0;
    if (keep && !isEmpty) await rename(partial, join(blobs, `${blob.oid}.incomplete`)).catch(() => undefined);
    else await rm(partial, { force: true });
    hub.options.signal?.throwIfAborted();
    throw error;
  } finally {
    writing.delete(partial);
  }
}

/** A partial file for this process: one that nobody is writing any more, or an empty one. */
async function claim(blobs: string, oid: string): Promise<string> {
  const host = hostname()
    .replace(/[^\w-]/g, "_")
    .slice(0, 60);
  const mine = join(blobs, `${oid}.${host}-${process.pid}-${randomBytes(4).toString("hex")}.incomplete`);
  writing.add(mine);
  for (const name of await readdir(blobs)) {
    if (!name.startsWith(`${oid}.`) || !name.endsWith(".incomplete")) continue;
    const [, itsHost, pid] = /^[0-9a-f]+\.([\w-]+)-(\d+)-[0-9a-f]{8}\.incomplete$/.exec(name) ?? [];
    const isReleased = name === `${oid}.incomplete`;
    const isAbandoned = itsHost === host && !isRunning(Number(pid), join(blobs, name));
    if (!isReleased && !isAbandoned) continue;
    const taken = await rename(join(blobs, name), mine).then(
      () => true,
      () => false, // another process was faster
    );
    if (taken) return mine;
  }
  await writeFile(mine, "");
  return mine;
}

/** Whether the process that began a partial file still writes it. */
function isRunning(pid: number, partial: string): boolean {
  if (pid === process.pid) return writing.has(partial); // or it was an earlier process of this number
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== "ESRCH";
  }
}

/** Fetches what the partial file lacks, again and again as long as that brings something. */
async function receive(hub: Hub, commit: string, file: string, blob: Blob, partial: string): Promise<void> {
  const { signal, on_download, retryDelayMs = 1000 } = hub.options;
  const handle = await open(partial, constants.O_RDWR | constants.O_CREAT);
  try {
    let loaded = (await handle.stat()).size;
    const report = (bytes: number) => {
      loaded = bytes;
      on_download?.({ file, loadedBytes: loaded, totalBytes: blob.size });
    };
    if (loaded > blob.size) {
      await handle.truncate(0);
      loaded = 0;
    }
    report(loaded);
    let most = loaded;
    for (let failures = 0; loaded < blob.size; ) {
      let cause: unknown;
      try {
        await receiveOnce(hub, commit, file, blob, handle, loaded, report);
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof WeightError && PASSING.includes(error.code))) throw error;
        cause = error;
      }
      if (loaded === blob.size) break;
      // What has to be fetched a second time, after a server that does not resume, is nothing new.
      const isWorth = loaded - most >= WORTH_RETRYING;
      failures = isWorth ? 0 : failures + 1;
      most = Math.max(most, loaded);
      if (failures === ATTEMPTS) {
        const isSlow = cause instanceof WeightError && cause.code === "HTTP_SLOW";
        throw new WeightError(
          isSlow ? "HTTP_SLOW" : "HUB_UNREACHABLE",
          `${hub.id.repository}: ${file}: the connection ${isSlow ? "was too slow" : "broke"} ${ATTEMPTS} times`,
          {
            hint: `${loaded} of ${blob.size} bytes are kept; the next run goes on from there`,
            cause,
          },
        );
      }
      await pause(retryDelayMs * 2 ** Math.max(0, failures - 1), signal);
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** One request: `report` is told how far the file on disk is after each piece. @throws WeightError of {@link PASSING}, … */
async function receiveOnce(
  hub: Hub,
  commit: string,
  file: string,
  blob: Blob,
  handle: FileHandle,
  begin: number,
  report: (loadedBytes: number) => void,
): Promise<void> {
  const { response, chunks, end } = await hub.bytes(commit, file, begin);
  try {
    let at = begin;
    // 200 is the whole file again; so is any part but the one that was asked for useless, and 416 has none.
    const range = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
    if (begin > 0 && !(response.status === 206 && Number(range?.[1]) === begin)) {
      at = 0;
      await handle.truncate(0);
      report(0);
      if (response.status !== 200) return;
    }
    for await (const chunk of chunks()) {
      if (chunk.length > blob.size - at) {
        throw new WeightError("INTEGRITY", `${hub.id.repository}: ${file}: the server sends more than the Hub lists`);
      }
      for (let done = 0; done < chunk.length; ) {
        done += (await handle.write(chunk, done, chunk.length - done, at + done)).bytesWritten;
      }
      at += chunk.length;
      report(at);
    }
  } finally {
    end();
  }
}

/** Whether a file has its blob's hash: SHA-256 for large files (Git LFS), git's SHA-1 of `blob SIZE\0…` for the others. */
async function isIntact(path: string, { oid, size }: Blob, signal: AbortSignal | undefined): Promise<boolean> {
  const hash = createHash(oid.length === 64 ? "sha256" : "sha1");
  if (oid.length === 40) hash.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20, signal }))
    hash.update(chunk as Uint8Array);
  return hash.digest("hex") === oid;
}

// --- the cache -----------------------------------------------------------------------------------------------------

/** Gives a finished file its name, unless another process was faster: somebody may be reading that one already. */
async function publish(from: string, to: string): Promise<void> {
  try {
    await link(from, to); // unlike rename, never replaces
  } catch (error) {
    if (systemCode(error) !== "EEXIST") return rename(from, to); // a file system without hard links
  }
  await rm(from);
}

/** Makes `snapshots/COMMIT/FILE` point to its blob; where there are no links, a new blob is moved there and an old one copied. */
async function point(pointer: string, blob: string, isNew: boolean, symlinks: boolean): Promise<void> {
  await mkdir(dirname(pointer), { recursive: true });
  if (symlinks) {
    try {
      const target = relative(dirname(pointer), blob);
      try {
        return await symlink(target, pointer);
      } catch (error) {
        if (systemCode(error) !== "EEXIST") throw error;
        if (await isFile(pointer)) return; // another process was faster; a commit's file has one content only
        await rm(pointer); // a link to a blob that somebody has deleted
        return await symlink(target, pointer);
      }
    } catch (error) {
      if (!["EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL"].includes(String(systemCode(error))))
        throw error;
    }
  }
  if (isNew) return publish(blob, pointer);
  const copy = `${pointer}.${randomBytes(4).toString("hex")}.tmp`;
  await copyFile(blob, copy);
  await rename(copy, pointer);
}

/** Whether a snapshot, a model's or a processor's, can be used without the Hub. Which other files the commit has is not known then. */
async function isWhole(snapshot: string): Promise<boolean> {
  const has = async (...files: string[]) =>
    (await Promise.all(files.map((file) => isFile(join(snapshot, file))))).some((found) => found);
  if ((await has("config.json")) && (await has("model.safetensors", "model.safetensors.index.json"))) return true;
  const pixels = ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"];
  return (await has("tokenizer.json")) && (await has(...pixels));
}

/** Writes a small file all at once, with the folders above it. */
async function replaceFile(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomBytes(4).toString("hex")}.tmp`;
  await writeFile(temporary, text);
  await rename(temporary, path);
}

/** Whether a regular file is there, through any links. */
async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ?? false;
}

function systemCode(error: unknown): unknown {
  return error instanceof Error && "syscall" in error && "code" in error ? error.code : undefined;
}

/** What the file system refuses, in words. */
async function inCache<T>(cache: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined || error instanceof EngineError) throw error;
    throw new WeightError("IO", `the Hub's cache at ${cache} cannot be written: the system reports ${code}`, {
      hint: code === "ENOSPC" ? "the disk is full; HF_HOME names another place" : "HF_HOME names another place",
      cause: error,
    });
  }
}
