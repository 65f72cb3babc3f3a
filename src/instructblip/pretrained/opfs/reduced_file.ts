/// <reference lib="dom" preserve="true" />
/**
 * A kept file of which parts are enough, because the rest is kept in another form, as quantized weights: the parts, one after the
 * other in one file of OPFS.
 */
import { WeightError } from "../../../tensor/errors.ts";
import { HandleFolder, ignoreMissing } from "../../../tensor/files/handle_folder.ts";
import { type ByteSource, checkRange, type Folder } from "../../../tensor/files/source.ts";

/** Parts of a file, in order, with gaps between them. */
export type Ranges = readonly (readonly [begin: number, end: number])[];

/** state.json's entry of the parts. */
export interface Reduced {
  /** The file that has them. */
  readonly file: string;
  readonly ranges: Ranges;
}

const COPY_BYTES = 4 * 2 ** 20;
/** Names of the file: one for those that are kept, one for those that are being written. */
const NAMES = ["parts-0", "parts-1"] as const;

export function bytesOf(ranges: Ranges): number {
  return ranges.reduce((sum, [begin, end]) => sum + end - begin, 0);
}

/** The union, in order. */
export function union(ranges: Ranges): Ranges {
  const found: [number, number][] = [];
  for (const [begin, end] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const last = found.at(-1);
    if (last && begin <= last[1]) last[1] = Math.max(last[1], end);
    else if (end > begin) found.push([begin, end]);
  }
  return found;
}

/** Copies parts of a file. The file before stays: which of the two counts is for the state to say. */
export async function writeParts(
  folder: FileSystemDirectoryHandle,
  ranges: Ranges,
  source: ByteSource,
  before: Reduced | undefined,
): Promise<Reduced> {
  const file = before?.file === NAMES[0] ? NAMES[1] : NAMES[0];
  await new HandleFolder(folder).write(file, async (sink) => {
    const buffer = new Uint8Array(Math.min(COPY_BYTES, bytesOf(ranges)));
    for (const [begin, end] of ranges) {
      for (let at = begin; at < end; at += buffer.length) {
        const bytes = buffer.subarray(0, Math.min(buffer.length, end - at));
        await source.read(at, bytes);
        await sink.write(bytes);
      }
    }
  });
  return { file, ranges };
}

/** The parts; undefined if they are not there as `reduced` says. */
export async function partsOf(folder: FileSystemDirectoryHandle, { file, ranges }: Reduced): Promise<Blob | undefined> {
  const found = await (await folder.getFileHandle(file).catch(ignoreMissing))?.getFile();
  return found?.size === bytesOf(ranges) ? found : undefined;
}

/** Deletes parts, but for `kept`. */
export async function removeParts(folder: FileSystemDirectoryHandle, kept?: Reduced): Promise<void> {
  for (const name of NAMES) if (name !== kept?.file) await folder.removeEntry(name).catch(ignoreMissing);
}

/** The file, of which parts are kept. */
export class ReducedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly version: string;
  readonly #parts: Blob;
  readonly #ranges: Ranges;
  readonly #whole: () => Promise<ByteSource>;
  #opened: Promise<ByteSource> | undefined;

  /** @param whole opens the whole file: for what is not among the parts */
  constructor(
    { name, size, version }: { readonly name: string; readonly size: number; readonly version: string },
    parts: Blob,
    ranges: Ranges,
    whole: () => Promise<ByteSource>,
  ) {
    this.name = name;
    this.size = size;
    this.version = version;
    this.#parts = parts;
    this.#ranges = ranges;
    this.#whole = whole;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    checkRange(this, offset, into.length);
    let before = 0;
    for (const [begin, end] of this.#ranges) {
      if (offset >= begin && offset + into.length <= end) {
        const at = before + offset - begin;
        let bytes: ArrayBuffer;
        try {
          bytes = await this.#parts.slice(at, at + into.length).arrayBuffer();
        } catch (cause) {
          throw new WeightError("FILE_CHANGED", `${this.name}: the file can no longer be read`, { cause });
        }
        into.set(new Uint8Array(bytes));
        return;
      }
      before += end - begin;
    }
    this.#opened ??= this.#whole();
    await (await this.#opened).read(offset, into);
  }

  async close(): Promise<void> {
    await (await this.#opened?.catch(() => undefined))?.close();
  }
}

/** A folder that notes which parts of its files are read, but for texts, which are read whole. */
export class NotingFolder implements Folder {
  readonly name: string;
  /** By file. */
  readonly noted = new Map<string, Ranges>();
  readonly #folder: Folder;

  constructor(folder: Folder) {
    this.name = folder.name;
    this.#folder = folder;
  }

  has(file: string): Promise<boolean> {
    return this.#folder.has(file);
  }

  text(file: string, maxBytes?: number): Promise<string> {
    return this.#folder.text(file, maxBytes);
  }

  async open(file: string): Promise<ByteSource> {
    const source = await this.#folder.open(file);
    const note = (offset: number, length: number) => {
      const noted = this.noted.get(file) ?? [];
      this.noted.set(file, union([...noted, [offset, offset + length]]));
    };
    note(0, 0);
    return {
      name: source.name,
      size: source.size,
      ...(source.version !== undefined && { version: source.version }),
      read: async (offset, into) => {
        note(offset, into.length);
        await source.read(offset, into);
      },
      close: () => source.close(),
    };
  }
}
