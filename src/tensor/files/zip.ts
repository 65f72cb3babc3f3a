/**
 * The entries of a zip archive that are stored as they are, by their place in the file, so that they can be read by range. Reads the
 * central directory, of zip64 too, and the local headers of the entries that are asked for; no data. Checksums are not compared, as
 * data is never read as a whole.
 *
 * Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3. No library: those for zip give contents, and none the place of them.
 */
import { quote } from "../shown.ts";
import { type ByteSource, decodeUtf8, readScattered } from "./source.ts";
import type { Refuse } from "./tensor_file.ts";

/** An entry of the central directory. */
export interface ZipEntry {
  readonly name: string;
  /** Of the local header, which the data follows. */
  readonly header: number;
  /** In bytes. */
  readonly size: number;
  /** Why the data cannot be read by range, if so. */
  readonly packed: "compressed" | "encrypted" | undefined;
}

/** Byte offsets of an entry's data. */
export interface Place {
  readonly begin: number;
  readonly end: number;
}

export interface ZipDirectory {
  readonly entries: ReadonlyMap<string, ZipEntry>;
  /** Where the data of all entries ends. */
  readonly end: number;
}

const END = 0x06054b50;
const END_BYTES = 22;
const MAX_COMMENT = 0xffff;
const LOCATOR64 = 0x07064b50;
const LOCATOR64_BYTES = 20;
const END64 = 0x06064b50;
const END64_BYTES = 56;
const ENTRY = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL = 0x04034b50;
const LOCAL_BYTES = 30;
/** Stands for a value that is in a zip64 field. */
const [IN_64, IN_64_SHORT] = [0xffff_ffff, 0xffff];

/** Reads the central directory. @throws what `refuse` throws: TRUNCATED, BAD_ZIP, HEADER_TOO_LARGE; the source's own */
export async function readZipDirectory(
  source: ByteSource,
  limits: { maxBytes: number; maxEntries: number },
  refuse: Refuse,
): Promise<ZipDirectory> {
  const bad = (message: string): never => refuse("BAD_ZIP", `a damaged zip archive: ${message}`);
  const tail = new Uint8Array(Math.min(source.size, END_BYTES + MAX_COMMENT + LOCATOR64_BYTES));
  await source.read(source.size - tail.length, tail);
  const view = new DataView(tail.buffer);
  let at = tail.length - END_BYTES;
  const isEnd = (at: number) =>
    view.getUint32(at, true) === END && view.getUint16(at + 20, true) === tail.length - END_BYTES - at;
  while (at >= 0 && !isEnd(at)) at--;
  if (at < 0) return refuse("TRUNCATED", "the zip archive has no end record", "incomplete download?");
  let [count, size, begin] = [
    view.getUint16(at + 10, true),
    view.getUint32(at + 12, true),
    view.getUint32(at + 16, true),
  ];
  let end = source.size - tail.length + at;
  if (view.getUint16(at + 4, true) !== 0 && view.getUint16(at + 4, true) !== IN_64_SHORT)
    bad("it is one of several parts");

  const locator = at - LOCATOR64_BYTES;
  if (locator >= 0 && view.getUint32(locator, true) === LOCATOR64) {
    end = safe(view.getBigUint64(locator + 8, true), bad);
    if (end + END64_BYTES > source.size) bad("the zip64 end record lies beyond the file");
    const bytes = new Uint8Array(END64_BYTES);
    await source.read(end, bytes);
    const record = new DataView(bytes.buffer);
    if (record.getUint32(0, true) !== END64) bad("there is no zip64 end record where it should be");
    count = safe(record.getBigUint64(32, true), bad);
    size = safe(record.getBigUint64(40, true), bad);
    begin = safe(record.getBigUint64(48, true), bad);
  } else if (count === IN_64_SHORT || size === IN_64 || begin === IN_64) {
    bad("the zip64 end record is missing");
  }
  if (begin + size !== end) bad("the central directory does not end at its end record");
  if (count > limits.maxEntries || size > limits.maxBytes) {
    refuse(
      "HEADER_TOO_LARGE",
      `a zip archive of ${count} entries in ${size} bytes; the limits are ${limits.maxEntries} and ${limits.maxBytes}`,
    );
  }
  const directory = new Uint8Array(size);
  await source.read(begin, directory);
  return { entries: parseDirectory(directory, count, source.name, bad), end: begin };
}

function parseDirectory(bytes: Uint8Array, count: number, file: string, bad: (message: string) => never) {
  const view = new DataView(bytes.buffer);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + ENTRY_BYTES > bytes.length || view.getUint32(at, true) !== ENTRY) bad(`entry ${i} of ${count} is damaged`);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => view.getUint16(at + field, true)) as [
      number,
      number,
      number,
    ];
    const extra = at + ENTRY_BYTES + nameLength;
    const next = extra + extraLength + commentLength;
    if (next > bytes.length) bad(`entry ${i} of ${count} is damaged`);
    const name = decodeUtf8(bytes.subarray(at + ENTRY_BYTES, extra), `${file}, entry ${i}`);
    const wide = zip64(view, extra, extra + extraLength);
    /** A field of 4 bytes, or of 8 in the zip64 field. They are there in this order, each only if it is needed. */
    const read = (field: number) => {
      const value = view.getUint32(at + field, true);
      if (value !== IN_64) return value;
      return safe(wide.next() ?? bad(`entry ${i} lacks its zip64 field`), bad);
    };
    const [unpacked, packed, header] = [read(24), read(20), read(42)];
    const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
    if (method === 0 && unpacked !== packed) bad(`${quote(name)} has two sizes`);
    if (entries.has(name)) bad(`two entries have the name ${quote(name)}`);
    const kind = flags & 1 ? "encrypted" : method !== 0 ? "compressed" : undefined;
    entries.set(name, { name, header, size: unpacked, packed: kind });
    at = next;
  }
  if (at !== bytes.length) bad("there is more in the central directory than its entries");
  return entries;
}

/** The numbers of the zip64 extended information in an extra field, in order. */
function zip64(view: DataView, begin: number, end: number): { next(): bigint | undefined } {
  let [at, last] = [end, end];
  for (let field = begin; field + 4 <= end; ) {
    const length = view.getUint16(field + 2, true);
    if (view.getUint16(field, true) === 1) {
      [at, last] = [field + 4, Math.min(end, field + 4 + length)];
      break;
    }
    field += 4 + length;
  }
  return {
    next() {
      if (at + 8 > last) return undefined;
      at += 8;
      return view.getBigUint64(at - 8, true);
    },
  };
}

/**
 * Finds the data of entries by their local headers, of which several are read at once.
 *
 * @returns places, in the order of `entries`
 * @throws what `refuse` throws: BAD_ZIP, ZIP_PACKED; the source's own
 */
export async function locateEntries(
  source: ByteSource,
  { end }: ZipDirectory,
  entries: readonly ZipEntry[],
  refuse: Refuse,
): Promise<Place[]> {
  for (const { name, header, packed } of entries) {
    if (packed) {
      refuse(
        "ZIP_PACKED",
        `${quote(name)} is ${packed} in the zip archive`,
        "PyTorch does not do so: unpack it, and zip it with -0",
      );
    }
    if (header + LOCAL_BYTES > end) refuse("BAD_ZIP", `a damaged zip archive: ${quote(name)} lies beyond its data`);
  }
  const places: Place[] = new Array(entries.length);
  const wanted = entries.map(({ header }) => ({ begin: header, length: LOCAL_BYTES }));
  await readScattered(source, wanted, (i, bytes) => {
    const { name, header, size } = entries[i]!;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const begin = header + LOCAL_BYTES + view.getUint16(26, true) + view.getUint16(28, true);
    if (view.getUint32(0, true) !== LOCAL || begin + size > end) {
      refuse("BAD_ZIP", `a damaged zip archive: ${quote(name)} is not where its directory says`);
    }
    places[i] = { begin, end: begin + size };
  });
  return places;
}

function safe(value: bigint, bad: (message: string) => never): number {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : bad(`a number above 2^53`);
}
