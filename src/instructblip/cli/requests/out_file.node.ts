/**
 * `--out`: a file to which one process appends lines, which a later run resumes (`--resume`), and which is never overwritten;
 * and a check that other files can be written.
 */
import { constants } from "node:fs";
import { access, type FileHandle, open, rm, stat } from "node:fs/promises";
import { dirname, extname, resolve } from "node:path";
import { EngineError, InputError } from "../../../tensor/errors.ts";
import { writeFileAtomic } from "../../../tensor/files/source.node.ts";
import { systemReason } from "../../../tensor/files/system_error.ts";
import type { Run } from "../session.node.ts";
import { say } from "../terminal.node.ts";
import { type LockOptions, OutLock } from "./out_lock.node.ts";
import { splitLines } from "./requests.ts";

/** Bytes that are read at a time in search of the end of the last whole line. */
const CHUNK = 2 ** 16;

// So as not to wait for the reader of a pipe; Windows has no such flag.
const FLAGS = constants.O_APPEND | constants.O_CREAT | constants.O_RDWR | (constants.O_NONBLOCK ?? 0);

export class OutFile {
  readonly #name: string;
  readonly #lock: OutLock | undefined;
  #handle: FileHandle;
  #leftOut: ReadonlySet<number> = new Set();

  private constructor(name: string, handle: FileHandle, lock: OutLock | undefined) {
    this.#name = name;
    this.#handle = handle;
    this.#lock = lock;
  }

  /**
   * Opens or creates a file, and locks it. With `resume`, its lines are passed to `onLine` first; an incomplete last line is
   * removed.
   * @param times of the lock, for tests
   * @throws InputError OUT_EXISTS (it is not empty, and no `resume`), OUT_LOCKED, NOT_REGULAR_FILE, OUT, IO, BAD_UTF8
   */
  static async open(
    name: string,
    resume: boolean,
    onLine: (text: string) => void,
    { terminal, signal }: Pick<Run, "terminal" | "signal">,
    times?: LockOptions["times"],
  ): Promise<OutFile> {
    let handle: FileHandle | undefined;
    let lock: OutLock | undefined;
    if (NOT_JSON.includes(extname(name).toLowerCase())) {
      throw new InputError("OUT", `--out ${name}: what is written are lines of JSON; the name should end in .jsonl`);
    }
    try {
      handle = await openRegular(name);
      // While this process waits for the lock, its owner may replace the file or remove it: only what is opened then is OUT.
      await handle.close();
      handle = undefined;
      lock = await OutLock.take(name, `--out ${name}`, { signal, say: (message) => say(terminal, message), times });
      handle = await openRegular(name);
      const found = await handle.stat();
      if (found.nlink > 1) {
        const others = "the file has other names (hard links), which have locks of their own";
        say(terminal, `warning: --out ${name}: ${others}: let no other process write it by them`);
      }
      if (found.size > 0 && !resume) {
        const hint = "--resume continues it; remove it to start again";
        throw new InputError("OUT_EXISTS", `--out ${name}: the file is not empty`, { hint });
      }
      const end = await endOfLines(handle, found.size);
      await readLines(handle, end, name, onLine);
      // Last, so that a file of another format is not changed.
      if (end < found.size) await handle.truncate(end);
      return new OutFile(name, handle, lock);
    } catch (cause) {
      await handle?.close();
      await lock?.release();
      throw ioError(cause, name);
    }
  }

  /** Lines, counted from 1, that are removed when the next is written: those of requests that are asked again. */
  leaveOut(lines: readonly number[]): void {
    this.#leftOut = new Set(lines);
  }

  /** Appends whole lines; they are written when the promise resolves. @throws InputError IO, OUT_LOCKED (taken over) */
  async write(text: string): Promise<void> {
    try {
      await this.#lock?.check();
      if (this.#leftOut.size > 0) await this.#rewrite(text);
      else await this.#handle.appendFile(text);
    } catch (cause) {
      throw ioError(cause, this.#name);
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
    await this.#lock?.release();
  }

  /** Closes and removes the file. */
  async remove(): Promise<void> {
    await this.#handle.close();
    await rm(this.#name);
    await this.#lock?.release();
  }

  /** The file without some of its lines, and with `text`: all at once, so that a killed process loses no line. */
  async #rewrite(text: string): Promise<void> {
    const { size } = await this.#handle.stat();
    await writeFileAtomic(this.#name, async (sink) => {
      for await (const { number, bytes } of splitLines(chunksOf(this.#handle, size), Number.POSITIVE_INFINITY)) {
        if (this.#leftOut.has(number)) continue;
        await sink.write(bytes!);
        await sink.write(NEWLINE);
      }
      await sink.write(new TextEncoder().encode(text));
    }).catch((cause: Error) => {
      const hint =
        "what is asked again is left out of a new file beside it: the folder must be writable, and have room";
      throw new InputError("IO", `--out ${this.#name}: it cannot be written anew: ${cause.message}`, { cause, hint });
    });
    this.#leftOut = new Set();
    await this.#handle.close(); // of the old file
    this.#handle = await open(this.#name, FLAGS);
  }
}

const NEWLINE = Uint8Array.of(10);

/** Opens or creates a file. @throws InputError NOT_REGULAR_FILE */
async function openRegular(name: string): Promise<FileHandle> {
  const handle = await open(name, FLAGS, 0o666);
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new InputError("NOT_REGULAR_FILE", `--out ${name}: not a regular file`);
}

/** The offset behind the last newline. */
async function endOfLines(handle: FileHandle, size: number): Promise<number> {
  const chunk = new Uint8Array(CHUNK);
  for (let end = size; end > 0; ) {
    const start = Math.max(0, end - CHUNK);
    const { bytesRead } = await handle.read(chunk, 0, end - start, start);
    const at = chunk.subarray(0, bytesRead).lastIndexOf(10);
    if (at >= 0) return start + at + 1;
    end = start;
  }
  return 0;
}

async function* chunksOf(handle: FileHandle, end: number): AsyncGenerator<Uint8Array> {
  const chunk = new Uint8Array(CHUNK);
  for (let at = 0; at < end; ) {
    const { bytesRead } = await handle.read(chunk, 0, Math.min(CHUNK, end - at), at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}

async function readLines(handle: FileHandle, end: number, name: string, onLine: (text: string) => void): Promise<void> {
  for await (const { number, bytes } of splitLines(chunksOf(handle, end), Number.POSITIVE_INFINITY)) {
    try {
      onLine(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch (cause) {
      if (!(cause instanceof TypeError)) throw cause;
      throw new InputError("BAD_UTF8", `--out ${name}: line ${number} is not valid UTF-8`);
    }
  }
}

function ioError(cause: unknown, name: string): Error {
  if (cause instanceof EngineError || !(cause instanceof Error)) return cause as Error;
  const { code } = cause as NodeJS.ErrnoException;
  if (code === undefined) return cause;
  const isMissing = code === "ENOENT";
  const reason = isMissing ? "there is no such folder" : systemReason(cause);
  return new InputError("IO", `--out ${name}: ${reason}`, { cause, hint: isMissing ? "make it first" : undefined });
}

/**
 * Checks early that the files of options can be written, and that no two are one. `-`, for stdout, is for --json alone.
 * @throws InputError OUT
 */
export async function checkOuts(files: Readonly<Record<string, string | undefined>>): Promise<void> {
  const options = new Map<string, string>();
  for (const [option, path] of Object.entries(files)) {
    if (path === undefined || (path === "-" && option === "--json")) continue;
    if (path === "-") throw new InputError("OUT", `${option} -: only --json writes to stdout; give a file name`);
    checkExtension(path, option);
    await checkOut(path, option);
    const other = options.get(resolve(path));
    if (other) throw new InputError("OUT", `${option} ${path}: ${other} writes this file too`);
    options.set(resolve(path), option);
  }
}

/** Extensions of the formats that options write. */
const EXTENSIONS: Readonly<Record<string, readonly string[]>> = {
  "--svg": [".svg"],
  "--png": [".png"],
  "--html": [".html", ".htm"],
};
/** Of formats that are neither JSON nor lines of it. */
const NOT_JSON = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".pdf", ".svg", ".html", ".htm", ".safetensors"];

/** Refuses a name that says another format; one without an extension says none. @throws InputError OUT */
export function checkExtension(path: string, option: string, own = EXTENSIONS[option]): void {
  const extension = extname(path).toLowerCase();
  if (extension === "" || own?.includes(extension)) return;
  if (own) throw new InputError("OUT", `${option} ${path}: the name must end in ${own.join(" or ")}`);
  if (option === "--out" || !NOT_JSON.includes(extension)) return; // an --out has any of several formats
  throw new InputError("OUT", `${option} ${path}: what is written is JSON, not ${extension}`);
}

/** Checks early that the file of an `option` can be written. @throws InputError OUT */
export async function checkOut(path: string, option = "--out"): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw new InputError("OUT", `${option} ${path}: this is a folder; give a file name`);
  if (found && !found.isFile()) {
    return access(path, constants.W_OK).catch(() => {
      throw new InputError("OUT", `${option} ${path}: no permission to write to it`);
    });
  }
  const folder = dirname(path);
  if (!(await stat(folder).catch(() => undefined))?.isDirectory()) {
    throw new InputError("OUT", `${option} ${path}: there is no folder ${folder}`);
  }
  await access(folder, constants.W_OK).catch(() => {
    throw new InputError("OUT", `${option} ${path}: no permission to write into ${folder}`);
  });
}

/** Writes the file of an option, whole or not at all, but to a device or a pipe. @throws InputError IO */
export async function writeOut(option: string, file: string, content: string | Uint8Array): Promise<void> {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  await writeFileAtomic(file, (sink) => sink.write(bytes)).catch((cause: Error) => {
    throw new InputError("IO", `${option} ${cause.message}`, { cause });
  });
}
