/** Decodes messages of Arrow by flechette, compressed ones too: each buffer is an LZ4 frame or Zstandard, behind its size. */
import {
  type Codec,
  CompressionType,
  type ExtractionOptions,
  getCompressionCodec,
  setCompressionCodec,
  type Table,
  tableFromIPC,
} from "@uwdata/flechette";
import { decompress as decodeZstd } from "fzstd";
import { decodeLz4Frame } from "./lz4_frame.ts";

/** Largest size of a batch's buffers together. */
export const MOST_BODY = 2 ** 31 - 1;
/** How much larger what comes out can be: a byte of LZ4's lengths is 255, four bytes of Zstandard are a block of 128 KiB. */
const CODECS = [
  { type: CompressionType.LZ4_FRAME, most: 255, decode: decodeLz4Frame },
  { type: CompressionType.ZSTD, most: 2 ** 15, decode: zstd },
] as const;
/** The most that a compressed body can be larger as it is. */
export const MOST_RATIO = Math.max(...CODECS.map(({ most }) => most));

/**
 * Decodes messages that begin with a schema.
 *
 * @returns the table, and the bytes of buffers that were decompressed
 * @throws Error
 */
export function decodeTable(messages: Uint8Array[], options?: ExtractionOptions): { table: Table; bytes: number } {
  let bytes = 0;
  const codecOf = ({ most, decode }: (typeof CODECS)[number]): Codec => ({
    decode(buffer) {
      // flechette leaves out the size, which is in front.
      const size = Number(new DataView(buffer.buffer, buffer.byteOffset - 8, 8).getBigInt64(0, true));
      bytes += size;
      if (!(size >= 0 && size <= most * buffer.length && bytes <= MOST_BODY)) {
        throw new Error("a compressed buffer is damaged, or too large");
      }
      return decode(buffer, size);
    },
    encode: () => {
      throw new Error("nothing is written");
    },
  });
  // flechette's codecs are those of the whole process: it has ours during this call only.
  const before = CODECS.map(({ type }) => getCompressionCodec(type));
  for (const codec of CODECS) setCompressionCodec(codec.type, codecOf(codec));
  try {
    return { table: tableFromIPC(messages, options), bytes };
  } finally {
    for (const [i, { type }] of CODECS.entries()) setCompressionCodec(type, before[i] as Codec);
  }
}

function zstd(input: Uint8Array, size: number): Uint8Array {
  const told = contentSize(input);
  if (told !== undefined && told !== size) throw new Error("a compressed buffer has another size");
  // fzstd compares an output array with 1, and so makes a text of it, which is slow, and too long for large ones. Its own array
  // begins at byte 12, where no view of i64 can; a copy does not.
  const output = told === undefined ? decodeZstd(input, new Uint8Array(size)) : decodeZstd(input).slice();
  if (output.length !== size) throw new Error("a compressed buffer has another size");
  return output;
}

/** The bytes of the first Zstandard frame's content, if its header tells them (RFC 8878, 3.1.1.1). */
function contentSize(frame: Uint8Array): number | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.byteLength < 18 || view.getUint32(0, true) !== 0xfd2fb528) return undefined;
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3]!;
  const at = 5 + (isSingleSegment ? 0 : 1) + dictionary;
  switch (descriptor >> 6) {
    case 0:
      return isSingleSegment ? view.getUint8(at) : undefined;
    case 1:
      return view.getUint16(at, true) + 256;
    case 2:
      return view.getUint32(at, true);
    default:
      return Number(view.getBigUint64(at, true));
  }
}
