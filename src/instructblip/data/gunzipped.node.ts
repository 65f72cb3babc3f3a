/**
 * What is in a gzip file, as a source: it is decompressed to a temporary file, as gzip can be read from its beginning only and
 * images are read when they are asked about.
 */
import { createWriteStream } from "node:fs";
import { type FileHandle, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { constants, createGunzip, gunzipSync } from "node:zlib";
import { InputError } from "../../tensor/errors.ts";
import type { FileSource } from "../../tensor/files/source.node.ts";
import { type ByteSource, checkRange } from "../../tensor/files/source.ts";
import { badFile } from "./row.ts";

/** Bytes that are read at a time. */
const CHUNK = 2 ** 20;

/** Whether bytes begin as gzip. */
export const isGzip = (head: Uint8Array) => head[0] === 0x1f && head[1] === 0x8b;

/** The first bytes of what is in a gzip file, by the first of its own; none if it is damaged there. */
export function headOfGzip(head: Uint8Array): Uint8Array {
  try {
    return gunzipSync(head, { finishFlush: constants.Z_SYNC_FLUSH });
  } catch {
    return new Uint8Array();
  }
}

export class GunzippedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** Of the gzip file. */
  readonly version: string;
  readonly #handle: FileHandle;

  private constructor({ name, version }: FileSource, size: number, handle: FileHandle) {
    [this.name, this.size, this.version] = [name, size, version];
    this.#handle = handle;
  }

  /** @throws InputError BAD_DATA_FILE for a damaged file, IO if there is no room for it; what the source throws */
  static async open(source: FileSource): Promise<GunzippedSource> {
    const folder = await mkdtemp(join(tmpdir(), "instructblip-"));
    let handle: FileHandle | undefined;
    try {
      const file = join(folder, "data");
      await pipeline(chunksOf(source), createGunzip(), createWriteStream(file, { flags: "wx", mode: 0o600 }));
      handle = await open(file);
      const { size } = await handle.stat();
      return new GunzippedSource(source, size, handle);
    } catch (cause) {
      await handle?.close();
      const { code } = cause as { code?: unknown };
      if (typeof code === "string" && code.startsWith("Z_")) throw badFile(source.name, "a gzip file", cause);
      if (typeof code !== "string" || !("syscall" in (cause as object))) throw cause;
      throw new InputError("IO", `${source.name}: it cannot be decompressed to ${folder}: the system reports ${code}`, {
        hint: "TMPDIR names another place",
        cause,
      });
    } finally {
      // The open file stays until it is closed, where the system is not Windows: nothing is left if the process is killed.
      await rm(folder, { recursive: true, force: true }).catch(() => undefined);
    }
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    for (let done = 0; done < into.length; ) {
      const { bytesRead } = await this.#handle.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0) throw new InputError("IO", `${this.name}: its temporary file ended early`);
      done += bytesRead;
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function* chunksOf(source: FileSource): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < source.size; at += CHUNK) {
    const chunk = new Uint8Array(Math.min(CHUNK, source.size - at));
    await source.read(at, chunk);
    yield chunk;
  }
}
