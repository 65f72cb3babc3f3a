/// <reference lib="dom" preserve="true" />
/** A folder of a browser's file system: one that the user picked (`showDirectoryPicker`), or the page's own (OPFS). */
import { WeightError } from "../errors.ts";
import { quote } from "../shown.ts";
import type { WritableFolder } from "./file_set.ts";
import {
  BlobSource,
  type ByteSink,
  type ByteSource,
  checkFileName,
  type Folder,
  MAX_TEXT_BYTES,
  readText,
} from "./source.ts";

export class HandleFolder implements Folder, WritableFolder {
  readonly name: string;
  readonly #handle: FileSystemDirectoryHandle;

  constructor(handle: FileSystemDirectoryHandle) {
    this.#handle = handle;
    this.name = handle.name;
  }

  async has(file: string): Promise<boolean> {
    return (await this.#find(file)) !== undefined;
  }

  async text(file: string, maxBytes = MAX_TEXT_BYTES): Promise<string> {
    return readText(await this.open(file), maxBytes);
  }

  /** The version is the time of change, in milliseconds. */
  async open(file: string): Promise<ByteSource> {
    const found = await this.#find(file);
    if (!found) throw new WeightError("NOT_FOUND", `${this.name}: no file ${quote(file)}`);
    const blob = await found.getFile();
    return new BlobSource(file, blob, `${blob.lastModified}`);
  }

  async writeText(file: string, text: string): Promise<void> {
    await this.write(file, (sink) => sink.write(new TextEncoder().encode(text)));
  }

  async write(file: string, fill: (sink: ByteSink) => Promise<void>): Promise<void> {
    const [folder, name] = await this.#placeOf(file, true);
    const stream = await (await folder!.getFileHandle(name, { create: true }))
      .createWritable()
      .catch((cause: unknown) => throwIo(cause, file));
    try {
      // Node's buffers aside, bytes are of an ArrayBuffer.
      await fill({ write: (bytes) => stream.write(bytes as Uint8Array<ArrayBuffer>) });
      await stream.close(); // the file changes now, at once
    } catch (cause) {
      await stream.abort().catch(() => undefined);
      throwIo(cause, file);
    }
  }

  async list(): Promise<string[]> {
    const names: string[] = [];
    for await (const [name, { kind }] of this.#handle.entries()) if (kind === "file") names.push(name);
    return names.sort();
  }

  async delete(file: string): Promise<void> {
    const [folder, name] = await this.#placeOf(file, false);
    await folder?.removeEntry(name).catch(ignoreMissing);
  }

  async #find(file: string): Promise<FileSystemFileHandle | undefined> {
    const [folder, name] = await this.#placeOf(file, false);
    return folder?.getFileHandle(name).catch(ignoreMissing);
  }

  /** The folder of a file, undefined if absent, and its name there. */
  async #placeOf(file: string, create: boolean): Promise<[FileSystemDirectoryHandle | undefined, string]> {
    checkFileName(file);
    const parts = file.split("/");
    let folder: FileSystemDirectoryHandle | undefined = this.#handle;
    for (const part of parts.slice(0, -1))
      folder = await folder?.getDirectoryHandle(part, { create }).catch(ignoreMissing);
    return [folder, parts.at(-1)!];
  }
}

/** A handler: undefined for what is not there, or is of the other kind; other errors are rethrown. */
export function ignoreMissing(error: unknown): undefined {
  const name = error instanceof Error || error instanceof DOMException ? error.name : "";
  if (name !== "NotFoundError" && name !== "TypeMismatchError") throw error;
}

/** The browser gives this page no more space. */
export function isOverQuota(error: unknown): boolean {
  return (error as Error | undefined)?.name === "QuotaExceededError";
}

function throwIo(cause: unknown, file: string): never {
  if (!(cause instanceof DOMException)) throw cause;
  const why = isOverQuota(cause) ? "the browser gives this page no more space" : `the browser reports ${cause.name}`;
  throw new WeightError("IO", `${file}: cannot be written: ${why}`, { cause });
}
