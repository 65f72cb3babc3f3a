/// <reference lib="dom" preserve="true" />
/**
 * A file that grows, as pieces in a folder of OPFS: `0`, `1`, …, all full but the last. A browser writes a file to its end or not
 * at all, so that after a crash the pieces that were full are there.
 */
import { ignoreMissing } from "../../../tensor/files/handle_folder.ts";

export const PIECE_BYTES = 64 * 2 ** 20;
/** Bytes that are written at once: each write is a message to another process. */
const WRITE_BYTES = 4 * 2 ** 20;

export class Pieces {
  /** Bytes that are written, those in the buffer included. */
  size = 0;
  readonly #folder: FileSystemDirectoryHandle;
  readonly #pieceBytes: number;
  readonly #buffer: Uint8Array<ArrayBuffer>;
  #buffered = 0;
  #stream: FileSystemWritableFileStream | undefined;

  private constructor(folder: FileSystemDirectoryHandle, pieceBytes: number) {
    this.#folder = folder;
    this.#pieceBytes = pieceBytes;
    this.#buffer = new Uint8Array(Math.min(WRITE_BYTES, pieceBytes));
  }

  static async open(folder: FileSystemDirectoryHandle, pieceBytes: number): Promise<Pieces> {
    const pieces = new Pieces(folder, pieceBytes);
    for (const { size } of await pieces.#files()) pieces.size += size;
    return pieces;
  }

  /** The pieces from the first, up to one that is not full. */
  async #files(): Promise<File[]> {
    const files: File[] = [];
    for (let last = this.#pieceBytes; last === this.#pieceBytes; ) {
      const file = await (await this.#folder.getFileHandle(`${files.length}`).catch(ignoreMissing))?.getFile();
      if (!file || file.size > this.#pieceBytes) break;
      files.push(file);
      last = file.size;
    }
    return files;
  }

  /** All bytes, none of them in memory. */
  async blob(): Promise<Blob> {
    return new Blob(await this.#files());
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const inPiece = this.size % this.#pieceBytes;
      const most = Math.min(bytes.length - done, this.#buffer.length - this.#buffered, this.#pieceBytes - inPiece);
      this.#stream ??= await this.#continue(inPiece);
      this.#buffer.set(bytes.subarray(done, done + most), this.#buffered);
      this.#buffered += most;
      this.size += most;
      done += most;
      if (this.#buffered === this.#buffer.length) await this.#flush();
      if (inPiece + most === this.#pieceBytes) await this.close();
    }
  }

  async #continue(at: number): Promise<FileSystemWritableFileStream> {
    const file = await this.#folder.getFileHandle(`${Math.floor(this.size / this.#pieceBytes)}`, { create: true });
    const stream = await file.createWritable({ keepExistingData: at > 0 });
    if (at > 0) await stream.seek(at);
    return stream;
  }

  async #flush(): Promise<void> {
    if (this.#buffered > 0) await this.#stream!.write(this.#buffer.slice(0, this.#buffered));
    this.#buffered = 0;
  }

  /** Keeps what is written; more can be written later. */
  async close(): Promise<void> {
    const stream = this.#stream;
    if (!stream) return;
    await this.#flush();
    this.#stream = undefined;
    await stream.close();
  }

  /** Deletes all, the last first: what an interrupted deletion leaves are the first pieces, and no later ones behind a gap. */
  async clear(): Promise<void> {
    await this.#stream?.abort().catch(() => undefined);
    this.#stream = undefined;
    this.#buffered = 0;
    this.size = 0;
    const names: string[] = [];
    for await (const { name } of this.#folder.values()) if (/^\d+$/.test(name)) names.push(name);
    for (const name of names.sort((a, b) => Number(b) - Number(a))) {
      await this.#folder.removeEntry(name).catch(ignoreMissing);
    }
  }
}
