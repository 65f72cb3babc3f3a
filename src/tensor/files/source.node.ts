/**
 * Files and folders of Node's file system as sources of weights, and atomic writes. Only regular files are opened. Symbolic links
 * are followed, because the Hugging Face cache consists of them.
 */
import { createHash, randomUUID } from "node:crypto";
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, open, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { WeightError } from "../errors.ts";
import { Checkpoint } from "./checkpoint.ts";
import { type TensorEntry, writeSafetensors } from "./safetensors_writer.ts";
import {
  type ByteSink,
  type ByteSource,
  checkFileName,
  checkRange,
  type Folder,
  MAX_TEXT_BYTES,
  readText,
} from "./source.ts";
import { systemReason } from "./system_error.ts";

/** One read(2) takes an int32 length. */
const MAX_READ = 2 ** 30;

/** A regular file. A read fails if the file has been changed or replaced since it was opened. */
export class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** mtime and ctime, in nanoseconds, and inode: a copy may keep the mtime. */
  readonly version: string;
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #opened: BigIntStats;

  private constructor(name: string, path: string, handle: FileHandle, opened: BigIntStats) {
    this.name = name;
    this.#path = path;
    this.#handle = handle;
    this.#opened = opened;
    this.size = Number(opened.size);
    this.version = [opened.mtimeNs, opened.ctimeNs, opened.ino].join("-");
  }

  /** @throws WeightError NOT_FOUND, NOT_REGULAR_FILE (a directory, FIFO or device), IO */
  static async open(path: string, name = basename(path)): Promise<FileSource> {
    let handle: FileHandle | undefined;
    try {
      // stat before open: opening some devices has side effects, and opening a FIFO waits for a writer …
      if (!(await stat(path)).isFile()) throw notRegular(name);
      // … and if it became a FIFO in between, O_NONBLOCK (absent on Windows) does not wait.
      handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
      const opened = await handle.stat({ bigint: true });
      if (!opened.isFile()) throw notRegular(name);
      return new FileSource(name, resolve(path), handle, opened);
    } catch (cause) {
      await handle?.close();
      throw ioError(cause, name);
    }
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    let done = 0;
    try {
      while (done < into.length) {
        const length = Math.min(into.length - done, MAX_READ);
        const { bytesRead } = await this.#handle.read(into, done, length, offset + done);
        if (bytesRead === 0) break; // the file became shorter: thrown below
        done += bytesRead;
      }
    } catch (cause) {
      throw ioError(cause, this.name);
    }
    // After the read, so that a change before or during it is detected. By path, so that a file renamed over this one is detected
    // too: the handle still reads the old one.
    const now = await stat(this.#path, { bigint: true }).catch(() => undefined);
    const opened = this.#opened;
    const same = now?.size === opened.size && now.mtimeNs === opened.mtimeNs && now.ino === opened.ino;
    if (!same || now.dev !== opened.dev) {
      throw new WeightError("FILE_CHANGED", `${this.name}: the file was changed while it was being read`);
    }
    if (done < into.length) throw new WeightError("IO", `${this.name}: the file ended early`);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** A folder of the file system. */
export class NodeFolder implements Folder {
  readonly name: string;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
    this.name = basename(resolve(path));
  }

  /** Whether the name exists; `open` checks that it is a regular file. */
  async has(file: string): Promise<boolean> {
    try {
      await stat(this.#pathOf(file));
      return true;
    } catch (cause) {
      const error = ioError(cause, file);
      if (error instanceof WeightError && error.code === "NOT_FOUND") return false;
      throw error;
    }
  }

  async text(file: string, maxBytes = MAX_TEXT_BYTES): Promise<string> {
    const source = await this.open(file);
    try {
      return await readText(source, maxBytes);
    } finally {
      await source.close();
    }
  }

  async open(file: string): Promise<FileSource> {
    return FileSource.open(this.#pathOf(file), file);
  }

  #pathOf(file: string): string {
    checkFileName(file);
    return join(this.#path, file);
  }
}

/** Opens a checkpoint folder, or one .safetensors file. @throws WeightError as {@link Checkpoint.open} */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const found = await stat(path).catch((cause: unknown) => {
    throw ioError(cause, basename(path));
  });
  return Checkpoint.open(found.isDirectory() ? new NodeFolder(path) : await FileSource.open(path));
}

/** Temporary files of this process's calls. */
const writing = new Set<string>();

/**
 * Writes a file atomically, through `fill`: readers see the old file or the complete new one, also after a crash. Temporary files
 * that a killed process has left are removed. If two processes write the same file at once, the one that began first fails.
 * A link keeps its place and gets a new target, a file keeps its mode, and a device or pipe is written to.
 *
 * @throws WeightError SAVE_CONFLICT, NOT_FOUND (no such folder), IO; whatever `fill` throws
 */
export async function writeFileAtomic(path: string, fill: (sink: ByteSink) => Promise<void>): Promise<void> {
  const old = await stat(path).catch(() => undefined);
  if (old && !old.isFile() && !old.isDirectory()) return writeThrough(path, fill);
  return replaceFile(old ? await realpath(path) : path, old?.mode, fill);
}

function sinkOf(file: FileHandle): ByteSink {
  return {
    async write(bytes) {
      for (let done = 0; done < bytes.length; ) {
        done += (await file.write(bytes, done, Math.min(bytes.length - done, MAX_READ))).bytesWritten;
      }
    },
  };
}

/** Writes to a device or a pipe. */
async function writeThrough(path: string, fill: (sink: ByteSink) => Promise<void>): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "w");
    await fill(sinkOf(handle));
  } catch (cause) {
    throw ioError(cause, basename(path));
  } finally {
    await handle?.close();
  }
}

/** @param mode of the old file, undefined if there is none */
async function replaceFile(
  path: string,
  mode: number | undefined,
  fill: (sink: ByteSink) => Promise<void>,
): Promise<void> {
  const name = basename(path);
  const folder = dirname(resolve(path));
  const stem = `.${name.length <= 100 ? name : `${name.slice(0, 50)}-${shortHash(name)}`}.`;
  const temporary = join(folder, `${stem}${randomUUID()}.tmp`);
  writing.add(temporary);
  let handle: FileHandle | undefined;
  try {
    for (const file of await readdir(folder)) {
      const isOurs = file.startsWith(stem) && UUID_TMP.test(file.slice(stem.length));
      if (isOurs && !writing.has(join(folder, file))) await rm(join(folder, file), { force: true });
    }
    const file = await open(temporary, "wx");
    handle = file;
    if (mode !== undefined) await file.chmod(mode & 0o7777);
    await fill(sinkOf(file));
    await file.sync();
    await file.close();
    handle = undefined;
    await rename(temporary, path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== "ENOENT") throw cause;
      throw new WeightError("SAVE_CONFLICT", `${name}: another process began to write it before this one ended`);
    });
  } catch (cause) {
    await handle?.close().catch(() => undefined);
    await rm(temporary, { force: true });
    throw ioError(cause, name);
  } finally {
    writing.delete(temporary);
  }
}

function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

const UUID_TMP = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}\.tmp$/;

/** Writes a .safetensors file atomically. @throws WeightError as {@link writeSafetensors}; IO */
export async function saveSafetensors(
  path: string,
  tensors: readonly TensorEntry[],
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeFileAtomic(path, (sink) => writeSafetensors(sink, tensors, metadata));
}

/** Compares a file with its published SHA-256 (64 hexadecimal digits). @throws WeightError INTEGRITY, IO, … */
export async function checkSha256(source: ByteSource, expected: string): Promise<void> {
  const hash = createHash("sha256");
  const buffer = new Uint8Array(Math.min(source.size, 4 * 2 ** 20));
  for (let offset = 0; offset < source.size; offset += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, source.size - offset));
    await source.read(offset, part);
    hash.update(part);
  }
  if (hash.digest("hex") !== expected.toLowerCase()) {
    throw new WeightError("INTEGRITY", `${source.name}: its SHA-256 is not the expected one`, {
      hint: "the file is damaged or not the one that was published; download it again",
    });
  }
}

function notRegular(name: string): WeightError {
  return new WeightError("NOT_REGULAR_FILE", `${name}: not a regular file`);
}

/** Converts a system error to a WeightError; other errors are returned unchanged. */
export function ioError(cause: unknown, name: string): Error {
  if (!(cause instanceof Error) || !("code" in cause)) return cause as Error;
  const { code } = cause;
  // Node's error for a name with a NUL.
  if (code === "ERR_INVALID_ARG_VALUE") return new WeightError("NOT_FOUND", `${name}: no such file`, { cause });
  if (!("syscall" in cause)) return cause;
  if (code === "ENOENT" || code === "ENOTDIR") return new WeightError("NOT_FOUND", `${name}: no such file`, { cause });
  return new WeightError("IO", `${name}: ${systemReason(cause)}`, { cause });
}
