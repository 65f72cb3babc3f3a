/**
 * The header of a TIFF: its first image, and whether libvips reads its kind as Pillow does.
 *
 * Sources: TIFF 6.0 (Adobe, 1992); supported kinds: Pillow 12.3, TiffImagePlugin.py (OPEN_INFO).
 */
import { InputError } from "../../tensor/errors.ts";

export interface TiffHeader {
  /** In pixels, after the Orientation tag, which Pillow applies while loading. */
  readonly width: number;
  readonly height: number;
  /** Whether samples are other than bytes of grey or RGB. */
  readonly samples: "grey16" | "cmyk" | undefined;
}

const TAG = {
  width: 256,
  height: 257,
  bits: 258,
  compression: 259,
  photometric: 262,
  orientation: 274,
  samples: 277,
  sampleFormat: 339,
} as const;

/** Bytes of a value by its type, for the types of the tags below. */
const TYPE_SIZES: Readonly<Record<number, number>> = { 1: 1, 3: 2, 4: 4 };
/** Most values of a tag: more than the samples of a supported image. */
const MAX_VALUES = 8;

const COMPRESSIONS: Readonly<Record<number, string>> = {
  1: "none",
  2: "CCITT",
  3: "CCITT",
  4: "CCITT",
  5: "LZW",
  7: "JPEG",
  8: "deflate",
  32773: "PackBits",
  32946: "deflate",
};
const BILEVEL = "CCITT";

/** @throws InputError IMAGE_TRUNCATED, IMAGE_CORRUPT, UNSUPPORTED_TIFF */
export function readTiffHeader(bytes: Uint8Array, name: string): TiffHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = bytes[0] === 0x49;
  const need = (end: number) => {
    if (bytes.length < end) throw new InputError("IMAGE_TRUNCATED", `${name}: the TIFF ends inside its header`);
  };
  need(8);
  const at = view.getUint32(4, little);
  need(at + 2);
  const count = view.getUint16(at, little);
  need(at + 2 + 12 * count);
  const tags = new Map<number, number[]>();
  const wanted: readonly number[] = Object.values(TAG);
  for (let entry = at + 2; entry < at + 2 + 12 * count; entry += 12) {
    const tag = view.getUint16(entry, little);
    const size = TYPE_SIZES[view.getUint16(entry + 2, little)];
    const length = view.getUint32(entry + 4, little);
    if (!wanted.includes(tag) || !size || length === 0 || length > MAX_VALUES || tags.has(tag)) continue;
    const values = size * length <= 4 ? entry + 8 : view.getUint32(entry + 8, little);
    need(values + size * length);
    const read = (i: number) =>
      size === 1
        ? view.getUint8(values + i)
        : size === 2
          ? view.getUint16(values + 2 * i, little)
          : view.getUint32(values + 4 * i, little);
    tags.set(
      tag,
      Array.from({ length }, (_, i) => read(i)),
    );
  }
  const one = (tag: number, otherwise: number) => tags.get(tag)?.[0] ?? otherwise;
  const width = one(TAG.width, 0);
  const height = one(TAG.height, 0);
  const samples = samplesOf(tags, one, name);
  return one(TAG.orientation, 1) > 4 ? { width: height, height: width, samples } : { width, height, samples };
}

/** The kind of samples. @throws InputError UNSUPPORTED_TIFF if Pillow or libvips does not read them, or they differ */
function samplesOf(
  tags: ReadonlyMap<number, readonly number[]>,
  one: (tag: number, otherwise: number) => number,
  name: string,
): TiffHeader["samples"] {
  const refuse = (what: string) =>
    new InputError("UNSUPPORTED_TIFF", `${name}: the TIFF has ${what}`, { hint: "save it as PNG" });
  const code = one(TAG.compression, 1);
  const compression = COMPRESSIONS[code];
  if (compression === undefined) throw refuse(`compression ${code}`);
  const photometric = one(TAG.photometric, 0);
  const bits = tags.get(TAG.bits) ?? [1];
  const samples = one(TAG.samples, 1);
  const depth = one(TAG.bits, 1);
  const formats = tags.get(TAG.sampleFormat) ?? [1];
  const format = one(TAG.sampleFormat, 1);
  const what = `${samples} samples of ${depth} bits, format ${format}, photometric ${photometric}, ${compression}`;
  if (bits.some((n) => n !== depth) || formats.some((n) => n !== format)) throw refuse("samples of several kinds");
  const isBytes = format === 1 && depth === 8;
  const isWords = format === 1 && depth === 16;
  if (compression === BILEVEL && depth !== 1) throw refuse(what);
  switch (photometric) {
    case 0: // white is zero
    case 1:
      if (format === 1 && samples === 1 && [1, 2, 4, 8].includes(depth)) return undefined;
      if (photometric === 0) break;
      if (samples === 1 && isWords) return "grey16";
      if (samples === 1 && depth === 32 && (format === 2 || format === 3)) return undefined;
      if (samples === 2 && isBytes) return undefined;
      break;
    case 2: // red, green and blue
      if ((samples === 3 || samples === 4) && (isBytes || isWords)) return undefined;
      break;
    case 3: // a palette
      if (format === 1 && samples === 1 && [1, 2, 4, 8].includes(depth)) return undefined;
      break;
    case 5: // inks
      if (samples === 4 && isBytes) return "cmyk";
      break;
    case 6: // luma and chroma
      if (samples === 3 && isBytes && compression === "JPEG") return undefined;
      break;
  }
  throw refuse(what);
}
