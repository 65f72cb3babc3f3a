/// <reference lib="dom" preserve="true" />
/**
 * A folder at a URL whose files are kept in OPFS. A file is downloaded whole when it is first opened, resumed where a former
 * download ended. A kept file is checked against the server at each visit by its validators, ETag or Last-Modified, unless its URL
 * never changes its meaning; a server that cannot be reached leaves it as it is.
 */
import { EngineError, WeightError } from "../../../tensor/errors.ts";
import { fetchLimited, type LimitedResponse, pause } from "../../../tensor/files/fetch_limited.ts";
import { HandleFolder, isOverQuota } from "../../../tensor/files/handle_folder.ts";
import {
  BlobSource,
  type ByteSource,
  badStatus,
  checkFileName,
  type Folder,
  HttpFolder,
  type HttpOptions,
  isWebPage,
  MAX_TEXT_BYTES,
  previewOf,
  readText,
} from "../../../tensor/files/source.ts";
import { bounded } from "../../../tensor/shown.ts";
import type { DownloadProgress } from "../hub/hub.ts";
import { PIECE_BYTES, Pieces } from "./pieces.ts";
import {
  bytesOf,
  NotingFolder,
  partsOf,
  type Reduced,
  ReducedSource,
  removeParts,
  union,
  writeParts,
} from "./reduced_file.ts";

/** What tells a version of a file from another. */
interface Validators {
  readonly size: number;
  readonly etag: string | null;
  readonly last_modified: string | null;
}

/** state.json of a kept file. */
interface FileState extends Validators {
  readonly format: 1;
  readonly file: string;
  readonly pieceBytes: number;
  /** The parts that are kept where the file is not. */
  readonly reduced?: Reduced | undefined;
}

/** folder.json of a folder. */
interface FolderState {
  readonly format: 1;
  readonly url: string;
  /** Files that were asked for, and that the server does not have. */
  readonly absent: readonly string[];
  /** Files of the weight cache that its matrices are quantized in. */
  readonly quantized?: readonly string[] | undefined;
}

/** A file of the cache. */
export interface KeptFile {
  readonly name: string;
  readonly size: number;
  /** Bytes that are kept; fewer than `size` if the download has not ended, or if the file is reduced. */
  readonly keptBytes: number;
  /** Its quantized matrices are kept instead of it, and of the file only what is needed besides. */
  readonly isReduced: boolean;
}

export interface CachedFolderOptions extends HttpOptions {
  on_download?: ((progress: DownloadProgress) => void) | undefined;
  /** The files at this URL never change, as those of a commit: kept ones are not checked. Default false. */
  immutable?: boolean | undefined;
  /** No requests. Default false. */
  local_files_only?: boolean | undefined;
  /** Bytes of a piece in OPFS. Default 64 MiB. */
  pieceBytes?: number | undefined;
}

const [FOLDER, STATE] = ["folder.json", "state.json"] as const;
/** Attempts without progress, in a row, after which a download is given up. */
const ATTEMPTS = 5;
/** Codes after which the same request may succeed. */
const PASSING = ["IO", "HTTP_SLOW", "HTTP_TIMEOUT"];

/** The file cannot be kept; it is read from the server. */
class NotKept extends Error {}

export class CachedFolder implements Folder {
  readonly name: string;
  readonly warnings: string[] = [];
  readonly #url: string;
  readonly #store: FileSystemDirectoryHandle;
  readonly #options: CachedFolderOptions;
  readonly #server: HttpFolder;
  #absent: Set<string>;
  /** Files that are kept whole, as far as they were opened. */
  readonly #whole = new Set<string>();

  private constructor(url: string, store: FileSystemDirectoryHandle, options: CachedFolderOptions, absent: string[]) {
    this.#url = url;
    this.#store = store;
    // A browser's own cache would keep every byte once more, and answer for a server that is gone.
    const around: typeof fetch = options.fetch ?? ((input, init) => fetch(input, { ...init, cache: "no-store" }));
    this.#options = { ...options, fetch: around };
    this.#server = new HttpFolder(url, this.#options);
    this.name = this.#server.name;
    this.#absent = new Set(absent);
  }

  /** @param store the folder of OPFS for this URL */
  static async open(
    url: string,
    store: FileSystemDirectoryHandle,
    options: CachedFolderOptions = {},
  ): Promise<CachedFolder> {
    const state = await readState<FolderState>(store, FOLDER);
    return new CachedFolder(url, store, options, [...(state?.absent ?? [])]);
  }

  async has(file: string): Promise<boolean> {
    checkFileName(file);
    if (await this.#isKept(file)) return true;
    const { local_files_only, immutable } = this.#options;
    if (local_files_only || (immutable && this.#absent.has(file))) return false;
    try {
      const found = await this.#server.has(file);
      await this.#note(file, !found);
      return found;
    } catch (error) {
      if (isUnreachable(error) && this.#absent.has(file)) return false;
      throw error;
    }
  }

  async text(file: string, maxBytes = MAX_TEXT_BYTES): Promise<string> {
    return readText(await this.open(file), maxBytes);
  }

  /**
   * Downloads the file, unless it is kept. If it cannot be kept, that is a warning, and it is read from the server by ranges.
   *
   * @throws WeightError NOT_FOUND, HTTP_…, IO; the signal's reason
   */
  async open(file: string): Promise<ByteSource> {
    checkFileName(file);
    const work = async () => {
      try {
        return await this.#fetch(file);
      } catch (error) {
        if (!(error instanceof NotKept)) throw error;
        this.warnings.push(error.message);
        return this.#server.open(file);
      }
    };
    return this.#alone(file, work);
  }

  /** Another page of this origin may be downloading the same file. */
  #alone<T>(file: string, work: () => Promise<T>): Promise<T> {
    const { locks } = navigator;
    const { signal } = this.#options;
    return locks ? locks.request(`${this.#url} ${file}`, signal ? { signal } : {}, work) : work();
  }

  async quantizedAs(cacheFile: string, read?: (folder: Folder) => Promise<void>): Promise<void> {
    await this.#update(({ quantized = [] }) => ({ quantized: [...new Set([...quantized, cacheFile])].sort() }));
    if (!read || this.#whole.size === 0) return;
    const folder = new NotingFolder(this);
    await read(folder);
    for (const [file, ranges] of folder.noted) {
      if (this.#whole.has(file)) await this.#alone(file, () => this.#reduce(file, ranges));
    }
  }

  /** Keeps parts of a file that is kept whole, besides those that were kept before. */
  async #reduce(file: string, needed: Reduced["ranges"]): Promise<void> {
    const folder = await this.#folderOf(file, false);
    const state = folder && (await readState<FileState>(folder, STATE));
    if (!folder || !state) return;
    const pieces = await Pieces.open(folder, state.pieceBytes);
    const ranges = union([...needed, ...(state.reduced?.ranges ?? [])]);
    if (pieces.size !== state.size || bytesOf(ranges) === state.size) return;
    const source = new BlobSource(file, await pieces.blob());
    const reduced = await writeParts(folder, ranges, source, state.reduced);
    await writeState(folder, STATE, { ...state, reduced } satisfies FileState);
    await pieces.clear();
    await removeParts(folder, reduced);
    this.#whole.delete(file);
  }

  /** Reads what is not kept by ranges, and keeps nothing. */
  preview(): Folder | undefined {
    if (this.#options.local_files_only) return undefined;
    return previewOf(this, async (file) => ((await this.#isKept(file)) ? undefined : this.#server.open(file)));
  }

  async #fetch(file: string): Promise<ByteSource> {
    const { immutable, local_files_only } = this.#options;
    const folder = await this.#folderOf(file, false);
    const state = folder && (await readState<FileState>(folder, STATE));
    const kept = folder && state && (await this.#kept(folder, state));
    if (kept && (immutable || local_files_only)) return kept;
    if (local_files_only) {
      throw new WeightError("NOT_FOUND", `${this.name}: ${file} is not in the browser's cache`, {
        hint: "local_files_only forbids a download; leave it out",
      });
    }
    let now: Validators;
    try {
      now = await this.#ask(file);
    } catch (error) {
      if (kept && isUnreachable(error)) return kept;
      throw error;
    }
    if (kept && isSame(state!, now)) return kept;
    try {
      return await this.#download(file, now, state && isSame(state, now) ? state : undefined);
    } catch (error) {
      if (!isOverQuota(error)) throw error;
      await this.#store.removeEntry(folderName(file), { recursive: true }).catch(() => undefined);
      throw new NotKept(noRoomFor(file, now.size));
    }
  }

  /** What is kept of a file, if it is enough to read it all: the file, or parts with which the rest can be downloaded. */
  async #kept(folder: FileSystemDirectoryHandle, state: FileState): Promise<ByteSource | undefined> {
    const { file, size } = state;
    const blob = await (await Pieces.open(folder, state.pieceBytes)).blob();
    const version = state.etag ?? state.last_modified!;
    if (blob.size === size) {
      this.#whole.add(file);
      return new BlobSource(file, blob, version);
    }
    const parts = state.reduced && (await partsOf(folder, state.reduced));
    if (!parts) return undefined;
    return new ReducedSource({ name: file, size, version }, parts, state.reduced!.ranges, () => this.#complete(state));
  }

  /** Downloads a file of which parts are kept: it is needed whole again. */
  async #complete(state: FileState): Promise<ByteSource> {
    const { file } = state;
    if (this.#options.local_files_only) {
      throw new WeightError("NOT_FOUND", `${this.name}: ${file} is in the browser's cache as quantized weights alone`, {
        hint: "load the model with the dtype that it is kept in, or leave local_files_only out",
      });
    }
    return this.#alone(file, async () => {
      try {
        return await this.#download(file, state, state);
      } catch (error) {
        if (!isOverQuota(error) && !(error instanceof NotKept)) throw error;
        this.warnings.push(error instanceof NotKept ? error.message : noRoomFor(file, state.size));
        return this.#server.open(file);
      }
    });
  }

  /** The validators of the file on the server, by a request for its first byte. @throws NotKept if it has none */
  async #ask(file: string): Promise<Validators> {
    const request = await this.#request(file, "bytes=0-0");
    request.end();
    const validators = validatorsOf(request.response);
    if (validators) return validators;
    throw new NotKept(`${file} is not kept in this browser: the server tells neither its size nor its version`);
  }

  async #request(file: string, range: string): Promise<LimitedResponse> {
    const url = `${this.#url}/${file.split("/").map(encodeURIComponent).join("/")}`;
    const { headers } = this.#options;
    const request = await fetchLimited(url, { ...this.#options, headers: { ...headers, Range: range } });
    const { response } = request;
    const isEmpty = response.status === 416 && /\/0$/.test(response.headers.get("content-range") ?? "");
    if ((response.ok && !isWebPage(response)) || isEmpty) return request;
    request.end();
    throw badStatus(response, file);
  }

  /** @param begun the state of a former download of the same version */
  async #download(file: string, now: Validators, begun: FileState | undefined): Promise<ByteSource> {
    const { signal, on_download, retryDelayMs = 250, pieceBytes = PIECE_BYTES } = this.#options;
    if (!begun) await this.#checkSpace(file, now.size);
    const folder = (await this.#folderOf(file, true))!;
    const state = begun ?? { ...now, format: 1, file, pieceBytes };
    const pieces = await Pieces.open(folder, state.pieceBytes);
    if (!begun) {
      await pieces.clear();
      await removeParts(folder);
      await writeState(folder, STATE, state);
      await this.#note(file, false);
    } else if (pieces.size > state.size) await pieces.clear();
    if (begun) await this.#checkSpace(file, state.size - pieces.size);
    const report = () => on_download?.({ file, loadedBytes: pieces.size, totalBytes: state.size });
    report();
    let most = pieces.size;
    for (let failures = 0; pieces.size < state.size; ) {
      let cause: unknown;
      try {
        await this.#receive(file, state, pieces, report);
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof EngineError && PASSING.includes(error.code))) throw error;
        cause = error;
      }
      if (pieces.size === state.size) break;
      failures = pieces.size > most ? 0 : failures + 1;
      most = Math.max(most, pieces.size);
      if (failures === ATTEMPTS) {
        throw new WeightError("IO", `${file}: the connection broke ${ATTEMPTS} times`, {
          hint: `${pieces.size} of ${state.size} bytes are kept; the next visit resumes there`,
          cause,
        });
      }
      await pause(retryDelayMs * 2 ** Math.max(0, failures - 1), signal);
    }
    const blob = await pieces.blob();
    if (blob.size !== state.size) throw new WeightError("IO", `${file}: ${blob.size} of ${state.size} bytes were kept`);
    this.#whole.add(file);
    return new BlobSource(file, blob, state.etag ?? state.last_modified!);
  }

  /** One request for what is missing. What arrives is kept, however it ends. */
  async #receive(file: string, state: FileState, pieces: Pieces, report: () => void): Promise<void> {
    const request = await this.#request(file, `bytes=${pieces.size}-`);
    const { response, chunks, end } = request;
    try {
      const now = validatorsOf(response);
      if (!now || !isSame(state, now)) {
        throw new WeightError("FILE_CHANGED", `${file}: the file on the server changed while it was downloaded`, {
          hint: "load it again",
        });
      }
      const begin = response.status === 206 ? rangeOf(response)?.begin : 0;
      if (begin !== pieces.size) await pieces.clear(); // a server that ignores ranges sends the whole file again
      if (begin !== pieces.size)
        throw new WeightError("IO", `${file}: the server sent another range than was asked for`);
      for await (const chunk of chunks()) {
        if (chunk.length > state.size - pieces.size) {
          throw new WeightError("FILE_CHANGED", `${file}: the server sent more bytes than it had announced`);
        }
        await pieces.write(chunk);
        report();
      }
    } finally {
      end();
      await pieces.close();
    }
  }

  /** @throws NotKept if the browser says that it has no room */
  async #checkSpace(file: string, bytes: number): Promise<void> {
    const { quota, usage } = (await navigator.storage?.estimate?.().catch(() => undefined)) ?? {};
    if (quota === undefined || usage === undefined || quota - usage >= bytes) return;
    const room = sizeText(Math.max(0, quota - usage));
    throw new NotKept(
      `${file} is not kept in this browser: it takes ${sizeText(bytes)} more, and this page has ${room}`,
    );
  }

  async #isKept(file: string): Promise<boolean> {
    const folder = await this.#folderOf(file, false);
    const state = folder && (await readState<FileState>(folder, STATE));
    if (state === undefined) return false;
    const isWhole = (await Pieces.open(folder!, state.pieceBytes)).size === state.size;
    return isWhole || (state.reduced !== undefined && (await partsOf(folder!, state.reduced)) !== undefined);
  }

  #folderOf(file: string, create: boolean): Promise<FileSystemDirectoryHandle | undefined> {
    return folderIn(this.#store, folderName(file), create);
  }

  /** Remembers whether the server lacks a file, for visits without it. */
  async #note(file: string, isAbsent: boolean): Promise<void> {
    await this.#update(({ absent }) => {
      this.#absent = new Set([...absent, ...this.#absent]);
      if (isAbsent) this.#absent.add(file);
      else this.#absent.delete(file);
      return { absent: [...this.#absent].sort() };
    });
  }

  /** Changes folder.json, if there is a change. */
  async #update(change: (state: FolderState) => Partial<FolderState>): Promise<void> {
    const before = await readState<FolderState>(this.#store, FOLDER);
    const state: FolderState = { format: 1, url: this.#url, absent: [], ...before };
    const after = { ...state, ...change(state) };
    if (!before || JSON.stringify(after) !== JSON.stringify(before)) await writeState(this.#store, FOLDER, after);
  }
}

/** `kind` alone does not tell TypeScript which of the two it is. */
export function isFolder(entry: FileSystemHandle): entry is FileSystemDirectoryHandle {
  return entry.kind === "directory";
}

/** The URL and the files of a folder of the cache; undefined if it is none. */
export async function keptFiles(
  store: FileSystemDirectoryHandle,
): Promise<
  { readonly url: string; readonly files: readonly KeptFile[]; readonly quantized: readonly string[] } | undefined
> {
  const folder = await readState<FolderState>(store, FOLDER);
  if (!folder) return undefined;
  const files: KeptFile[] = [];
  for await (const entry of store.values()) {
    if (!isFolder(entry)) continue;
    const state = await readState<FileState>(entry, STATE);
    if (!state) continue;
    const { size: whole } = await Pieces.open(entry, state.pieceBytes);
    const parts = state.reduced && (await partsOf(entry, state.reduced));
    const isReduced = parts !== undefined && whole < state.size;
    files.push({ name: state.file, size: state.size, keptBytes: whole + (parts?.size ?? 0), isReduced });
  }
  const { url, quantized = [] } = folder;
  return { url, files: files.sort((a, b) => (a.name < b.name ? -1 : 1)), quantized };
}

function validatorsOf(response: Response): Validators | undefined {
  const header = (name: string) => response.headers.get(name);
  const isWhole = response.status === 200 && header("content-encoding") === null;
  const size = rangeOf(response)?.size ?? (isWhole ? Number(header("content-length") ?? Number.NaN) : Number.NaN);
  const [etag, last_modified] = [header("etag"), header("last-modified")];
  return Number.isSafeInteger(size) && (etag ?? last_modified) !== null ? { size, etag, last_modified } : undefined;
}

/** Begin and file size of a Content-Range; begin undefined for an empty file. */
function rangeOf(response: Response): { readonly begin: number | undefined; readonly size: number } | undefined {
  const [, begin, size] = /^bytes (?:(\d+)-\d+|\*)\/(\d+)$/.exec(response.headers.get("content-range") ?? "") ?? [];
  return size === undefined
    ? undefined
    : { begin: begin === undefined ? undefined : Number(begin), size: Number(size) };
}

function isSame(a: Validators, b: Validators): boolean {
  if (a.size !== b.size) return false;
  if (a.etag !== null && b.etag !== null) return a.etag === b.etag;
  return a.last_modified !== null && a.last_modified === b.last_modified;
}

/** Neither there nor refused: the network or the server is gone. */
export function isUnreachable(error: unknown): boolean {
  return error instanceof EngineError && PASSING.includes(error.code);
}

/** A file's folder: its name as one name, which no state file has. */
function folderName(file: string): string {
  return `file-${encodeURIComponent(file)}`;
}

export async function folderIn(
  parent: FileSystemDirectoryHandle,
  name: string,
  create: boolean,
): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    return await parent.getDirectoryHandle(name, { create });
  } catch (error) {
    if (!create && (error as Error).name === "NotFoundError") return undefined;
    throw error;
  }
}

/** A state file; undefined if it is absent, damaged or of another version. */
export async function readState<T extends { readonly format: 1 }>(
  folder: FileSystemDirectoryHandle,
  name: string,
): Promise<T | undefined> {
  const files = new HandleFolder(folder);
  if (!(await files.has(name))) return undefined;
  try {
    const state = JSON.parse(await files.text(name)) as T | null;
    return state?.format === 1 ? state : undefined;
  } catch {
    return undefined;
  }
}

export async function writeState(folder: FileSystemDirectoryHandle, name: string, state: object): Promise<void> {
  await new HandleFolder(folder).writeText(name, JSON.stringify(state));
}

function noRoomFor(file: string, bytes: number): string {
  return `${file} is not kept in this browser, which gives this page no more space for its ${sizeText(bytes)}`;
}

/** `1.5 GB` */
export function sizeText(bytes: number): string {
  return bounded(bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`, 20);
}
