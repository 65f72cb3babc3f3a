/**
 * What is in a gzip file, as a source: it is decompressed to a temporary file, as gzip can be read from its beginning only and
 * images are read when they are asked about.
 */
import { type FileHandle, mkdtemp, open, rm, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { constants, createGunzip } from "node:zlib";
import { formatBytes } from "../../tensor/device/memory.ts";
import { InputError } from "../../tensor/errors.ts";
import type { FileSource } from "../../tensor/files/source.node.ts";
import { type ByteSource, checkRange } from "../../tensor/files/source.ts";
import { systemReason } from "../../tensor/files/system_error.ts";
import { badFile } from "./row.ts";

/** Bytes that are read at a time. */
const CHUNK = 2 ** 20;

export const GZIP = "a gzip file";

/** Whether bytes begin as gzip. */
export const isGzip = (head: Uint8Array) => head[0] === 0x1f && head[1] === 0x8b;

/** Most bytes for one of the gzip file, beyond the first 16 MiB: gzip packs zeros by 1:1032, images and texts by 1:20 at most. */
const MOST_RATIO = 200;
const ALWAYS = 2 ** 24;
/** The share of the free room that may be taken. */
const MOST_ROOM = 0.9;

/** The first bytes of what is in a gzip file, by the first of its own. @throws the error of zlib if it is damaged there */
export function headOfGzip(head: Uint8Array, size: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    // The first chunk comes before what follows it is looked at, such as the checksum of a short file.
    const gunzip = createGunzip({ chunkSize: size, finishFlush: constants.Z_SYNC_FLUSH });
    const end = (bytes: Uint8Array) => {
      resolve(bytes);
      gunzip.destroy();
    };
    gunzip.once("data", end);
    gunzip.once("end", () => end(new Uint8Array()));
    gunzip.on("error", reject);
    gunzip.end(head);
  });
}

/** Most bytes that a gzip file of `size` bytes may decompress to, and why no more. */
function limitOf(size: number, free: number): { readonly bytes: number; readonly error: (name: string) => InputError } {
  const [packed, room] = [ALWAYS + MOST_RATIO * size, Math.floor(MOST_ROOM * free)];
  if (packed <= room) {
    const text = `it decompresses to more than ${formatBytes(packed)}, ${MOST_RATIO} times its size`;
    const hint = "decompress it first, if that is right";
    return { bytes: packed, error: (name) => new InputError("BAD_DATA_FILE", `${name}: ${text}`, { hint }) };
  }
  const text = `it decompresses to more than ${formatBytes(room)}, and ${tmpdir()} has ${formatBytes(free)} free`;
  const hint = "TMPDIR names another place";
  return { bytes: room, error: (name) => new InputError("IO", `${name}: ${text}`, { hint }) };
}

/** Bytes that are free where a folder is; Infinity where the system does not say. */
async function freeRoom(folder: string): Promise<number> {
  const found = await statfs(folder).catch(() => undefined);
  return found && found.blocks > 0 ? found.bavail * found.bsize : Number.POSITIVE_INFINITY;
}

export class GunzippedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** Of the gzip file. */
  readonly version: string;
  readonly #handle: FileHandle;
  readonly #folder: string;

  private constructor({ name, version }: FileSource, size: number, handle: FileHandle, folder: string) {
    [this.name, this.size, this.version] = [name, size, version];
    [this.#handle, this.#folder] = [handle, folder];
  }

  /**
   * @throws InputError BAD_DATA_FILE for a damaged file, and for one that decompresses to more than {@link MOST_RATIO} times its
   *   size; IO if there is no room for it; what the source throws
   */
  static async open(source: FileSource): Promise<GunzippedSource> {
    const folder = await mkdtemp(join(tmpdir(), "instructblip-"));
    let handle: FileHandle | undefined;
    try {
      const limit = limitOf(source.size, await freeRoom(folder));
      handle = await open(join(folder, "data"), "wx+", 0o600);
      // An open file stays until it is closed: nothing is left if the process is killed. On Windows close() removes it.
      await remove(folder);
      let size = 0;
      const into = handle;
      await pipeline(
        chunksOf(source),
        createGunzip({ chunkSize: CHUNK }),
        async (chunks: AsyncIterable<Uint8Array>) => {
          for await (const chunk of chunks) {
            size += chunk.length;
            if (size > limit.bytes) throw limit.error(source.name);
            await writeAll(into, chunk);
          }
        },
      );
      return new GunzippedSource(source, size, handle, folder);
    } catch (cause) {
      await handle?.close();
      await remove(folder);
      const { code } = cause as { code?: unknown };
      if (typeof code === "string" && code.startsWith("Z_")) throw badFile(source.name, GZIP, cause);
      if (typeof code !== "string" || !("syscall" in (cause as object))) throw cause;
      throw new InputError("IO", `${source.name}: it cannot be decompressed to ${folder}: ${systemReason(cause)}`, {
        hint: "TMPDIR names another place",
        cause,
      });
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
    await remove(this.#folder);
  }
}

const remove = (folder: string) => rm(folder, { recursive: true, force: true }).catch(() => undefined);

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done)).bytesWritten;
}

async function* chunksOf(source: FileSource): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < source.size; at += CHUNK) {
    const chunk = new Uint8Array(Math.min(CHUNK, source.size - at));
    await source.read(at, chunk);
    yield chunk;
  }
}
