/**
 * Reads the header of an image file before any decoder does: format by magic bytes, size, and for JPEG the coding. It keeps
 * malicious headers from the decoders (a 300-byte PNG may claim 400 million pixels), and decodes nothing.
 * Sources: PNG (W3C), ITU-T T.81 annex B, the WebP container specification, GIF89a; image_tiff.ts, image_bmp.ts and
 * image_avif.ts name theirs.
 */
import { InputError } from "../../tensor/errors.ts";
import { avifEndsEarly, readAvifSize } from "./image_avif.ts";
import { readBmpLayout } from "./image_bmp.ts";
import { readTiffHeader } from "./image_tiff.ts";

export type ImageFormat = "png" | "jpeg" | "webp" | "gif" | "tiff" | "bmp" | "avif";

export interface ImageHeader {
  format: ImageFormat;
  /** In pixels, as Pillow has it: EXIF orientation is not applied, but a TIFF's is. */
  width: number;
  height: number;
  /** Whether samples are other than bytes of grey or RGB for Pillow. */
  samples?: "grey16" | "cmyk" | undefined;
}

/** Most pixels. Pillow raises DecompressionBombError here: twice its MAX_IMAGE_PIXELS. As RGB this is 512 MiB. */
export const MAX_PIXELS = 2 * 89_478_485;

/**
 * Reads an image's header.
 *
 * @throws InputError IMAGE_TRUNCATED, IMAGE_FORMAT (none of {@link ImageFormat}), UNSUPPORTED_JPEG, UNSUPPORTED_TIFF,
 *   UNSUPPORTED_BMP, IMAGE_CORRUPT (no size), IMAGE_TOO_LARGE (over {@link MAX_PIXELS})
 */
export function readImageHeader(bytes: Uint8Array, name: string): ImageHeader {
  const header = parse(bytes, name);
  const { width, height } = header;
  if (!(width > 0 && height > 0 && width < 2 ** 31 && height < 2 ** 31)) {
    throw new InputError("IMAGE_CORRUPT", `${name}: the header says ${width} x ${height} pixels`);
  }
  if (width * height > MAX_PIXELS) {
    throw new InputError("IMAGE_TOO_LARGE", `${name}: ${width} x ${height} pixels, the limit is ${MAX_PIXELS}`);
  }
  return header;
}

function parse(bytes: Uint8Array, name: string): ImageHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = String.fromCharCode(...bytes.subarray(0, 16));
  const truncated = () => new InputError("IMAGE_TRUNCATED", `${name}: the file ends inside its header`);
  const need = (length: number) => {
    if (bytes.length < length) throw truncated();
  };
  if (bytes.length === 0) throw new InputError("IMAGE_TRUNCATED", `${name}: the file is empty`);

  if (magic.startsWith("\x89PNG\r\n\x1a\n")) {
    need(33);
    if (magic.slice(12) !== "IHDR") throw new InputError("IMAGE_CORRUPT", `${name}: the PNG does not begin with IHDR`);
    const samples = bytes[24] === 16 && bytes[25] === 0 ? "grey16" : undefined;
    return { format: "png", width: view.getUint32(16), height: view.getUint32(20), samples };
  }
  if (magic.startsWith("\xff\xd8\xff")) return parseJpeg(bytes, view, name, truncated);
  if (magic.startsWith("GIF87a") || magic.startsWith("GIF89a")) {
    need(13);
    return { format: "gif", width: view.getUint16(6, true), height: view.getUint16(8, true) };
  }
  if (magic.startsWith("RIFF") && magic.slice(8, 12) === "WEBP") {
    need(30);
    need(8 + view.getUint32(4, true)); // the decoder does not distinguish a truncated file from a damaged one
    const at24 = (offset: number) => view.getUint16(offset, true) + view.getUint8(offset + 2) * 65536;
    switch (magic.slice(12)) {
      case "VP8X":
        return { format: "webp", width: at24(24) + 1, height: at24(27) + 1 };
      case "VP8L": {
        const bits = view.getUint32(21, true);
        return { format: "webp", width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
      }
      case "VP8 ":
        return { format: "webp", width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
      default:
        throw new InputError("IMAGE_CORRUPT", `${name}: the WebP does not begin with an image`);
    }
  }
  if (magic.startsWith("II*\0") || magic.startsWith("MM\0*")) return { format: "tiff", ...readTiffHeader(bytes, name) };
  // Text may begin with BM; read as a header, its size field is then too large.
  if (/^BM(.{0,12}$|.{12}..\0\0)/s.test(String.fromCharCode(...bytes.subarray(0, 18)))) {
    const { width, height } = readBmpLayout(bytes, name);
    return { format: "bmp", width, height };
  }
  if (/^....ftypavi[fs]/s.test(magic)) return { format: "avif", ...readAvifSize(bytes, name) };
  if (bytes.length < 4 || ["\x89PNG\r\n\x1a\n", "RIFF"].some((start) => start.startsWith(magic))) throw truncated();
  const { what, hint } = otherFormat(bytes);
  throw new InputError("IMAGE_FORMAT", `${name}: ${what}, must be PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF`, { hint });
}

/** Iterates over the segments up to the start of the scan. Each step advances, so it ends with the file. */
function parseJpeg(bytes: Uint8Array, view: DataView, name: string, truncated: () => InputError): ImageHeader {
  let frame: ImageHeader | undefined;
  for (let at = 2; ; ) {
    while (bytes[at] === 0xff && bytes[at + 1] === 0xff) at++; // fill bytes
    if (at + 4 > bytes.length) throw truncated();
    const marker = view.getUint8(at + 1);
    if (bytes[at] !== 0xff || marker === 0xd9) {
      throw new InputError("IMAGE_CORRUPT", `${name}: no marker where the JPEG must have one`);
    }
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += 2; // these have no length
      continue;
    }
    const length = view.getUint16(at + 2);
    if (marker === 0xda) {
      if (!frame) throw new InputError("IMAGE_CORRUPT", `${name}: the JPEG has no frame header`);
      return frame;
    }
    if (at + 2 + length > bytes.length) throw truncated();
    // 0xC0 … 0xCF are frames, except the tables 0xC4 and 0xCC and the extension 0xC8.
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      if (length < 8) throw new InputError("IMAGE_CORRUPT", `${name}: the JPEG has a damaged frame header`);
      const precision = view.getUint8(at + 4);
      if (marker > 0xc2 || precision !== 8) {
        const what = marker > 0xc2 ? "is lossless, hierarchical or arithmetic-coded" : `has ${precision} bits`;
        throw new InputError("UNSUPPORTED_JPEG", `${name}: the JPEG ${what}; must be Huffman-coded with 8 bits`);
      }
      frame ??= {
        format: "jpeg",
        width: view.getUint16(at + 7),
        height: view.getUint16(at + 5),
        samples: bytes[at + 9] === 4 ? "cmyk" : undefined, // or YCCK, which decoders convert to CMYK
      };
    }
    at += 2 + length;
  }
}

/** Whether a file that could not be decoded is truncated, not damaged. */
export function endsEarly(bytes: Uint8Array, format: ImageFormat): boolean {
  switch (format) {
    case "png": {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      let at = 8;
      while (at + 12 <= bytes.length && view.getUint32(at + 4) !== 0x49454e44) at += 12 + view.getUint32(at); // IEND
      return at + 12 > bytes.length;
    }
    case "jpeg": {
      let end = bytes.length - 2;
      while (end >= 0 && !(bytes[end] === 0xff && bytes[end + 1] === 0xd9)) end--;
      return end < jpegScan(bytes); // an earlier one would be a thumbnail's
    }
    case "gif":
      return bytes.lastIndexOf(0x3b) < bytes.length - 8; // its last byte, padding apart
    case "avif":
      return avifEndsEarly(bytes);
    case "webp":
      return false; // readImageHeader has compared the sizes
    case "bmp":
    case "tiff":
      return false; // decodeBmp compares the sizes; the parts of a TIFF may be anywhere
  }
}

/** Bytes of a GIF's palette, by its flags byte. */
function paletteBytes(packed: number): number {
  return packed & 0x80 ? 3 << ((packed & 7) + 1) : 0;
}

/** Offset of the first frame's descriptor, and of the byte after the last control extension before it, if any. */
function firstGifFrame(bytes: Uint8Array): { frame: number; control: number | undefined } {
  let control: number | undefined;
  let at = 13 + paletteBytes(bytes[10]!);
  while (bytes[at] === 0x21) {
    if (bytes[at + 1] === 0xf9 && bytes[at + 2] === 4) control = at + 3;
    for (at += 2; bytes[at]; ) at += bytes[at]! + 1; // sub-blocks, up to an empty one
    at++;
  }
  return { frame: at, control };
}

/**
 * The same GIF without a transparent colour in its first frame: Pillow gives such pixels their palette colour, other
 * decoders black. The header has been read; later damage is left to the decoder.
 */
export function opaqueGif(bytes: Uint8Array): Uint8Array {
  const { control } = firstGifFrame(bytes);
  if (control === undefined) return bytes;
  const opaque = bytes.slice();
  opaque[control]! &= 0xfe;
  return opaque;
}

/**
 * Fills the area around a smaller first frame, as Pillow does: with the palette's transparent colour if there is one, else
 * its first. Other decoders leave it black.
 *
 * @param bytes of the original file
 * @param rgb u8[H, W, 3], changed
 */
export function paintAroundGifFrame(bytes: Uint8Array, rgb: Uint8Array, width: number, height: number): void {
  const { frame, control } = firstGifFrame(bytes);
  const at16 = (at: number) => bytes[at]! + 256 * bytes[at + 1]!;
  const [left, top] = [at16(frame + 1), at16(frame + 3)];
  const [right, bottom] = [left + at16(frame + 5), top + at16(frame + 7)];
  if (left === 0 && top === 0 && right >= width && bottom >= height) return;
  const hasOwn = (bytes[frame + 9]! & 0x80) !== 0;
  if (!hasOwn && !(bytes[10]! & 0x80)) return; // no palette: grey, whose first colour is black
  const palette = hasOwn ? frame + 10 : 13;
  const transparent = control !== undefined && bytes[control]! & 1 ? bytes[control + 3]! : 0;
  const colour = bytes.subarray(palette + 3 * transparent, palette + 3 * transparent + 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 3) {
      if (x < left || x >= right || y < top || y >= bottom) rgb.set(colour, to);
    }
  }
}

const SAVE_AS = "save it as PNG or JPEG";
/** Unsupported files: their first bytes, a name, and a hint. */
const OTHER_FORMATS: readonly (readonly [begins: RegExp, what: string, hint: string])[] = [
  [/^version https:\/\/git-lfs/, "a Git LFS pointer, not the image itself", "run `git lfs pull`, or download the file"],
  [/^<svg[\s>]/i, "an SVG drawing", SAVE_AS],
  [
    /^<(!doctype html|html|head|body|title|meta|script)\b/i,
    "a web page, not an image",
    "give the address of the image itself, not of the page it is on",
  ],
  [/^(<|$)/, "an XML file", SAVE_AS],
  [/^[[{]/, "JSON, not an image", "a server may have answered with an error"],
  [/^%PDF/, "a PDF file", SAVE_AS],
  [/^%!PS/, "a PostScript file", SAVE_AS],
  [/^(II\+\0|MM\0\+)/, "a BigTIFF file", SAVE_AS],
  [/^....ftyp(hei|hev|mif1|msf1)/s, "a HEIC file", SAVE_AS],
  [/^....ftyp/s, "an MP4 or QuickTime file", "take its frames out, and give these"],
  [/^(\xff\n|\0\0\0.JXL )/s, "a JPEG XL file", SAVE_AS],
  [/^\0\0\0.jP/s, "a JPEG 2000 file", SAVE_AS],
  [/^\0\0.\0[^\0]/s, "an ICO file", SAVE_AS],
  [/^\0\0.\0\0\0/s, "a TGA file", SAVE_AS],
  [/^8BPS/, "a Photoshop file", SAVE_AS],
  [/^P[1-7]\s/, "a PNM file", SAVE_AS],
  [/^PK[^ -~]/, "an archive", "unpack it, and give the image in it"],
];

/** Names a format that is recognised but not supported. */
function otherFormat(bytes: Uint8Array): { what: string; hint?: string } {
  let start = String.fromCharCode(...bytes.subarray(0, 512)).replace(/^\xef\xbb\xbf/, "");
  // Whitespace, comments and declarations before the first element of an HTML page or SVG.
  if (/^\s*</.test(start)) start = start.replace(/<!--.*?(-->|$)|<(\?|!doctype svg)[^>]*>/gis, "").trimStart();
  else start = start.replace(/^\s+(?=[[{])/, "");
  const found = OTHER_FORMATS.find(([begins]) => begins.test(start));
  return found ? { what: found[1], hint: found[2] } : { what: "not an image file this program knows" };
}

/**
 * A JPEG, PNG or WebP without its EXIF, for decoders that always apply the orientation (browsers). The header has been read;
 * later damage is left to the decoder. Other formats are returned unchanged.
 */
export function withoutExif(bytes: Uint8Array, format: ImageFormat): Uint8Array {
  const parts: [start: number, end: number][] = [];
  if (format === "jpeg") {
    jpegScan(bytes, (marker, at, next) => {
      if (marker === 0xe1 && textAt(bytes, at + 4, 4) === "Exif") parts.push([at, next]);
    });
  } else if (format === "png") {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 8; at + 12 <= bytes.length; ) {
      const next = at + 12 + view.getUint32(at);
      if (textAt(bytes, at + 4, 4) === "eXIf" && next <= bytes.length) parts.push([at, next]);
      at = next;
    }
  } else if (format === "webp") {
    return withoutWebpExif(bytes);
  }
  if (parts.length === 0) return bytes;
  const kept = new Uint8Array(bytes.length - parts.reduce((sum, [start, end]) => sum + end - start, 0));
  let from = 0;
  let to = 0;
  parts.push([bytes.length, bytes.length]); // the rest after the last one is kept
  for (const [start, end] of parts) {
    kept.set(bytes.subarray(from, start), to);
    to += start - from;
    from = end;
  }
  return kept;
}

/** The chunk is renamed to an unknown name, and its flag in the header cleared. */
function withoutWebpExif(bytes: Uint8Array): Uint8Array {
  if (textAt(bytes, 12, 4) !== "VP8X") return bytes;
  const changed = bytes.slice();
  changed[20]! &= ~8;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 12; at + 8 <= bytes.length; ) {
    if (textAt(bytes, at, 4) === "EXIF") changed.set([0x78, 0x78, 0x78, 0x78], at);
    const size = view.getUint32(at + 4, true);
    at += 8 + size + (size % 2);
  }
  return changed;
}

function textAt(bytes: Uint8Array, at: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

/** Visits the segments of a JPEG whose header has been read; returns the offset of its first scan. */
function jpegScan(bytes: Uint8Array, visit?: (marker: number, at: number, next: number) => void): number {
  let at = 2;
  while (bytes[at + 1] !== 0xda) {
    const marker = bytes[at + 1]!;
    const bare = marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    const next = at + (marker === 0xff ? 1 : bare ? 2 : 2 + bytes[at + 2]! * 256 + bytes[at + 3]!);
    visit?.(marker, at, next);
    at = next;
  }
  return at;
}

/**
 * A PNG of 16-bit grey as one of 8-bit grey with alpha, for decoders that return bytes: the upper byte of a pixel becomes
 * its grey, the lower one its alpha; filters and interlacing remain valid. The header has been read.
 */
export function grey16AsPairs(png: Uint8Array): Uint8Array {
  const pairs = png.slice();
  pairs[24] = 8;
  pairs[25] = 4;
  new DataView(pairs.buffer).setUint32(29, crc32(pairs.subarray(12, 29)));
  return pairs;
}

/** Pillow's conversion of 16-bit grey: values over 255 are white. */
export function clippedGrey(value: number): number {
  return value < 255 ? value : 255;
}

/** The PNG specification's, annex D. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
