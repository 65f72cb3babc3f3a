/**
 * Sources of weights: random access to bytes, and folders of named files. Memory, Blob, HTTP ranges and a browser's file list are
 * here; Node's file system is in source.node.ts. Only the requested range of a file is in memory.
 */
import { EngineError, WeightError } from "../errors.ts";
import { quote } from "../shown.ts";
import { type FetchOptions, fetchLimited, type LimitedResponse, pause, urlName } from "./fetch_limited.ts";

/** Random access to a file of known size. */
export interface ByteSource {
  /** File name, for messages; never a full path. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** Changes when the file changes; absent if unknown. */
  readonly version?: string;
  /** Fills `into` with the bytes from `offset`. @throws WeightError IO, FILE_CHANGED and the source's own codes */
  read(offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** The files of a checkpoint or a processor. Names are relative, with `/`; see {@link checkFileName}. */
export interface Folder {
  readonly name: string;
  has(file: string): Promise<boolean>;
  /** The file as strict UTF-8. @throws WeightError FILE_TOO_LARGE over `maxBytes`, BAD_UTF8 */
  text(file: string, maxBytes?: number): Promise<string>;
  open(file: string): Promise<ByteSource>;
  /** The same files, without downloading whole what is not here: for their headers. Absent if opening does not download. */
  preview?(): Folder | undefined;
  /** Of a preview: whether a file that was opened is not here. */
  readonly isRemote?: boolean;
  /**
   * Tells a folder that keeps its files that their quantized matrices are now kept too, so that the files need not stay whole.
   *
   * @param file the name of that cache's file
   * @param read opens the weights of the folder it is given, and reads what is needed besides the quantized matrices; all else may
   *   go. Default: nothing goes
   */
  quantizedAs?(file: string, read?: (folder: Folder) => Promise<void>): Promise<void>;
  /** For the user, such as that files could not be cached. */
  readonly warnings?: readonly string[];
}

/**
 * A folder's preview: files that are here are opened as the folder does, others by `openRemote`, which gives undefined for those
 * that must be opened so too.
 */
export function previewOf(folder: Folder, openRemote: (file: string) => Promise<ByteSource | undefined>): Folder {
  let isRemote = false;
  return {
    name: folder.name,
    has: (file) => folder.has(file),
    text: (file, maxBytes) => folder.text(file, maxBytes), // small, and needed anyway
    open: async (file) => {
      const source = await openRemote(file);
      isRemote ||= source !== undefined;
      return source ?? folder.open(file);
    },
    get isRemote() {
      return isRemote;
    },
  };
}

/** Sequential output of bytes. The caller may reuse `bytes` when the promise has resolved. */
export interface ByteSink {
  write(bytes: Uint8Array): Promise<void>;
}

/** Above the largest tokenizer.json, and small enough for memory. */
export const MAX_TEXT_BYTES = 64 * 2 ** 20;

/**
 * Checks a file name from an untrusted file, such as a shard index: it must not leave the folder, on any platform.
 *
 * @throws WeightError BAD_SHARD_PATH
 */
export function checkFileName(file: string): void {
  const outside = file.split("/").some((part) => part === "" || part === "." || part === "..");
  // A colon is a URL, a Windows drive or an NTFS stream; a backslash is a separator on Windows.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are refused
  if (outside || file.length > 200 || /[\\:\x00-\x1f\x7f]/.test(file)) {
    throw new WeightError("BAD_SHARD_PATH", `${quote(file)} is not a plain file name inside the folder`);
  }
}

/** Reads a source as strict UTF-8. A byte order mark is kept, so that JSON parsers refuse it. */
export async function readText(source: ByteSource, maxBytes = MAX_TEXT_BYTES): Promise<string> {
  if (source.size > maxBytes) throw tooLarge(source.name, maxBytes);
  const bytes = new Uint8Array(source.size);
  await source.read(0, bytes);
  return decodeUtf8(bytes, source.name);
}

/** Decodes strict UTF-8: an invalid byte throws instead of becoming U+FFFD, and a byte order mark is kept. */
export function decodeUtf8(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new WeightError("BAD_UTF8", `${name}: the text is not valid UTF-8`);
  }
}

function tooLarge(name: string, maxBytes: number): WeightError {
  return new WeightError("FILE_TOO_LARGE", `${name}: larger than the limit of ${maxBytes} bytes`);
}

/** Checks that a read is within the size that the file had when it was opened. */
export function checkRange(source: ByteSource, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > source.size) {
    throw new WeightError("IO", `${source.name}: cannot read ${length} bytes at ${offset} of ${source.size}`);
  }
}

/** Most bytes between two ranges that are read at once, most bytes of such a read, and reads at a time. */
const [SCATTERED_GAP, SCATTERED_READ, SCATTERED_READS] = [2 ** 16, 2 ** 20, 8] as const;

/**
 * Reads many short ranges of a file: near ones by one read, several reads at a time.
 *
 * @param found called with the index of a range and its bytes, which are valid during the call
 */
export async function readScattered(
  source: ByteSource,
  ranges: readonly { readonly begin: number; readonly length: number }[],
  found: (index: number, bytes: Uint8Array) => void,
): Promise<void> {
  const order = ranges.map((_, i) => i).sort((a, b) => ranges[a]!.begin - ranges[b]!.begin);
  const endOf = (i: number) => ranges[i]!.begin + ranges[i]!.length;
  const groups: number[][] = [];
  let [first, last] = [0, 0]; // of the bytes of the last group
  for (const i of order) {
    const { begin } = ranges[i]!;
    const group = groups.at(-1);
    if (group && begin - last <= SCATTERED_GAP && endOf(i) - first <= SCATTERED_READ) {
      group.push(i);
      last = Math.max(last, endOf(i));
    } else {
      groups.push([i]);
      [first, last] = [begin, endOf(i)];
    }
  }
  let next = 0;
  const work = async () => {
    for (let group = groups[next++]; group; group = groups[next++]) {
      const begin = ranges[group[0]!]!.begin;
      const bytes = new Uint8Array(Math.max(...group.map(endOf)) - begin);
      await source.read(begin, bytes);
      for (const i of group) found(i, bytes.subarray(ranges[i]!.begin - begin, endOf(i) - begin));
    }
  };
  await Promise.all(Array.from({ length: Math.min(SCATTERED_READS, groups.length) }, work));
}

/** Bytes in memory. */
export class MemorySource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #bytes: Uint8Array;

  constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.#bytes = bytes;
    this.size = bytes.length;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  async close(): Promise<void> {}
}

/** Collects bytes in memory. */
export class MemorySink implements ByteSink {
  readonly #chunks: Uint8Array[] = [];
  #size = 0;

  async write(bytes: Uint8Array): Promise<void> {
    this.#chunks.push(bytes.slice());
    this.#size += bytes.length;
  }

  /** All bytes written so far. */
  bytes(): Uint8Array {
    const all = new Uint8Array(this.#size);
    let offset = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, offset);
      offset += chunk.length;
    }
    return all;
  }
}

/** A browser's File or Blob; each read loads its slice only. */
export class BlobSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly version?: string;
  readonly #blob: Blob;

  constructor(name: string, blob: Blob, version?: string) {
    this.name = name;
    this.#blob = blob;
    this.size = blob.size;
    if (version !== undefined) this.version = version;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    let bytes: ArrayBuffer;
    try {
      bytes = await this.#blob.slice(offset, offset + into.length).arrayBuffer();
    } catch (cause) {
      // A File cannot be read after its file on disk has changed (File API, snapshot state).
      throw new WeightError("FILE_CHANGED", `${this.name}: the file can no longer be read`, { cause });
    }
    if (bytes.byteLength !== into.length)
      throw new WeightError("FILE_CHANGED", `${this.name}: the file became shorter`);
    into.set(new Uint8Array(bytes));
  }

  async close(): Promise<void> {}
}

/** Options of {@link HttpSource} and {@link HttpFolder}. */
export interface HttpOptions extends Omit<FetchOptions, "method" | "error" | "maxBytes" | "timeoutMs"> {
  /** Delay before a broken read is resumed; doubles with each retry. Default 250. */
  retryDelayMs?: number;
  /** Of a folder, the names of its files, if they are known: others are not requested. */
  files?: readonly string[];
}

/** Requests of one read: a broken connection is resumed where it stopped. */
const HTTP_REQUESTS_PER_READ = 4;

/** A file at a URL, read by HTTP ranges. A server that ignores `Range` is an error; the file is never downloaded whole. */
export class HttpSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** The ETag, if it is strong. */
  readonly version?: string;
  readonly #url: string;
  readonly #options: HttpOptions;
  readonly #etag: string | null;

  private constructor(url: string, options: HttpOptions, size: number, etag: string | null) {
    this.name = urlName(url);
    this.#url = url;
    this.#options = options;
    this.size = size;
    this.#etag = etag;
    if (etag !== null) this.version = etag;
  }

  /**
   * Requests one byte, to get the size and to check that the server supports ranges.
   *
   * @throws WeightError NOT_FOUND (404, 410), HTTP_STATUS, HTTP_NO_RANGE and those of {@link fetchLimited}
   */
  static async open(url: string, options: HttpOptions = {}): Promise<HttpSource> {
    const { response, end } = await ranged(url, "bytes=0-0", options);
    end();
    // An empty file has no byte 0: 416 with its size (RFC 9110, 15.5.17).
    if (response.status === 416 && response.headers.get("content-range") === "bytes */0") {
      return new HttpSource(url, options, 0, null);
    }
    const { size } = rangeOf(response, urlName(url), 0);
    return new HttpSource(url, options, size, strongTag(response));
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    let done = 0;
    let cause: unknown;
    for (let requests = 0; done < into.length; requests++) {
      if (requests === HTTP_REQUESTS_PER_READ) {
        throw new WeightError("IO", `${this.name}: the connection broke ${requests} times during one read`, { cause });
      }
      const { retryDelayMs = 250, signal } = this.#options;
      if (requests > 0) await pause(retryDelayMs * 2 ** (requests - 1), signal);
      try {
        done += await this.#readOnce(offset + done, into.subarray(done));
      } catch (error) {
        if (!(error instanceof EngineError && error.code === "IO")) throw error;
        cause = error;
      }
    }
  }

  /** One request. @returns the bytes that arrived before its end, or before the connection broke */
  async #readOnce(offset: number, into: Uint8Array): Promise<number> {
    const range = `bytes=${offset}-${offset + into.length - 1}`;
    const request = await ranged(this.#url, range, this.#options);
    let done = 0;
    try {
      const { size } = rangeOf(request.response, this.name, offset);
      const tag = strongTag(request.response);
      if (size !== this.size || (tag !== null && this.#etag !== null && tag !== this.#etag)) {
        throw new WeightError("FILE_CHANGED", `${this.name}: the file on the server has changed`);
      }
      for await (const chunk of request.chunks()) {
        if (chunk.length > into.length - done) {
          throw new WeightError("HTTP_NO_RANGE", `${this.name}: the server sent more bytes than were asked for`);
        }
        into.set(chunk, done);
        done += chunk.length;
      }
    } catch (error) {
      // Bytes that arrived before the connection broke are kept.
      if (!(error instanceof EngineError && error.code === "IO") || done === 0) throw error;
    } finally {
      request.end();
    }
    return done;
  }

  async close(): Promise<void> {}
}

/** Requests a range of a file. */
function ranged(url: string, range: string, options: HttpOptions): Promise<LimitedResponse> {
  return fetchLimited(url, { ...options, headers: { ...options.headers, Range: range } });
}

/** Checks a 206 response: its range must start at `begin`. @returns the size of the file */
function rangeOf(response: Response, name: string, begin: number): { size: number } {
  if (isWebPage(response)) throw badStatus(response, name);
  if (response.status === 200) {
    throw new WeightError("HTTP_NO_RANGE", `${name}: the server ignores HTTP ranges`, {
      hint: "weights are read piece by piece; serve them with a server that answers 206 to a Range request",
    });
  }
  if (response.status !== 206) throw badStatus(response, name);
  const match = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
  const size = Number(match?.[2]);
  if (!match || Number(match[1]) !== begin || !Number.isSafeInteger(size)) {
    throw new WeightError(
      "HTTP_NO_RANGE",
      `${name}: the server answers a Range request without a usable Content-Range`,
      {
        hint: "across origins the server must also send Access-Control-Expose-Headers: Content-Range",
      },
    );
  }
  return { size };
}

/** The error for a response that is not the file. */
export function badStatus(response: Response, name: string): WeightError {
  if (response.ok) return new WeightError("NOT_FOUND", `${name}: the server answers with a web page instead`);
  const missing = response.status === 404 || response.status === 410;
  return new WeightError(missing ? "NOT_FOUND" : "HTTP_STATUS", `${name}: the server answers ${response.status}`);
}

/** Servers of single-page applications, such as Vite, answer 200 with the page if there is no such file. */
export function isWebPage(response: Response): boolean {
  return response.ok && /^text\/html\b/i.test(response.headers.get("content-type") ?? "");
}

/** The ETag, if it is strong; a weak one does not guarantee equal bytes. */
function strongTag(response: Response): string | null {
  const tag = response.headers.get("etag");
  return tag?.startsWith("W/") ? null : tag;
}

/** A folder at a URL, such as `https://host/model/resolve/main`. Weights need a server that supports ranges, text does not. */
export class HttpFolder implements Folder {
  readonly name: string;
  readonly warnings: readonly string[];
  readonly #base: string;
  readonly #options: HttpOptions;

  constructor(url: string, options: HttpOptions = {}, warnings: readonly string[] = []) {
    this.#base = url.replace(/\/+$/, "");
    this.name = urlName(this.#base);
    this.warnings = warnings;
    this.#options = options;
  }

  async has(file: string): Promise<boolean> {
    if (!this.#isListed(file)) return false;
    const { response, end } = await fetchLimited(this.#urlOf(file), { ...this.#options, method: "HEAD" });
    end();
    if (response.ok && !isWebPage(response)) return true;
    const error = badStatus(response, file);
    if (error.code === "NOT_FOUND") return false;
    throw error;
  }

  async text(file: string, maxBytes = MAX_TEXT_BYTES): Promise<string> {
    this.#expect(file);
    const { response, bytes, end } = await fetchLimited(this.#urlOf(file), { ...this.#options, maxBytes });
    try {
      if (!response.ok || isWebPage(response)) throw badStatus(response, file);
      return decodeUtf8(await bytes(), file);
    } finally {
      end();
    }
  }

  async open(file: string): Promise<ByteSource> {
    this.#expect(file);
    return HttpSource.open(this.#urlOf(file), this.#options);
  }

  #isListed(file: string): boolean {
    const { files } = this.#options;
    return files?.includes(file) ?? true;
  }

  #expect(file: string): void {
    if (!this.#isListed(file)) throw new WeightError("NOT_FOUND", `${this.name}: no file ${quote(file)}`);
  }

  #urlOf(file: string): string {
    checkFileName(file);
    return `${this.#base}/${file.split("/").map(encodeURIComponent).join("/")}`;
  }
}

/** Files that a user picked or dropped in a browser: one folder (`webkitdirectory`), or single files. */
export class FileListFolder implements Folder {
  readonly name: string;
  readonly #files = new Map<string, File>();

  constructor(files: Iterable<File>) {
    let top: string | undefined;
    for (const file of files) {
      // "folder/sub/file" for a picked folder, "" (absent in Node) for single files.
      const path = file.webkitRelativePath || file.name;
      const slash = file.webkitRelativePath ? path.indexOf("/") : -1;
      if (slash >= 0) top = path.slice(0, slash);
      this.#files.set(path.slice(slash + 1), file);
    }
    this.name = top ?? "the chosen files";
  }

  async has(file: string): Promise<boolean> {
    checkFileName(file);
    return this.#files.has(file);
  }

  async text(file: string, maxBytes = MAX_TEXT_BYTES): Promise<string> {
    return readText(await this.open(file), maxBytes);
  }

  async open(file: string): Promise<ByteSource> {
    checkFileName(file);
    const found = this.#files.get(file);
    if (!found) throw new WeightError("NOT_FOUND", `${this.name}: no file ${quote(file)}`);
    return new BlobSource(file, found);
  }
}
