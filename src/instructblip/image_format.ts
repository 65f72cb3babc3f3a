/**
 * What a picture file says about itself before any decoder sees it: format by magic bytes, size, and for JPEG the coding.
 * It keeps hostile headers away from the decoders (a 300-byte PNG may promise 400 million pixels) and decodes nothing.
 * Sources: PNG (W3C), ITU-T T.81 annex B, the WebP container specification, GIF89a.
 */
import { InputError } from "../tensor/errors.ts";

export type ImageFormat = "png" | "jpeg" | "webp" | "gif";

export interface ImageHeader {
  format: ImageFormat;
  /** In pixels, as stored: EXIF orientation is not applied. */
  width: number;
  height: number;
  /** JPEG only: 1 grey, 3 colour, 4 CMYK or YCCK. */
  components?: number;
}

/** Where Pillow raises DecompressionBombError: twice its MAX_IMAGE_PIXELS. As RGB this is 512 MiB. */
export const MAX_PIXELS = 2 * 89_478_485;

/**
 * Reads a picture's header.
 *
 * @throws InputError IMAGE_TRUNCATED, IMAGE_FORMAT (not PNG, JPEG, WebP or GIF), UNSUPPORTED_JPEG, IMAGE_CORRUPT (no
 *   size), IMAGE_TOO_LARGE (over {@link MAX_PIXELS})
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
  if (bytes.length < 4) throw truncated();

  if (magic.startsWith("\x89PNG\r\n\x1a\n")) {
    need(33);
    if (magic.slice(12) !== "IHDR") throw new InputError("IMAGE_CORRUPT", `${name}: the PNG does not begin with IHDR`);
    return { format: "png", width: view.getUint32(16), height: view.getUint32(20) };
  }
  if (magic.startsWith("\xff\xd8\xff")) return parseJpeg(bytes, view, name, truncated);
  if (magic.startsWith("GIF87a") || magic.startsWith("GIF89a")) {
    need(13);
    return { format: "gif", width: view.getUint16(6, true), height: view.getUint16(8, true) };
  }
  if (magic.startsWith("RIFF") && magic.slice(8, 12) === "WEBP") {
    need(30);
    need(8 + view.getUint32(4, true)); // the decoder does not tell a short file from a damaged one
    const at24 = (offset: number) => view.getUint16(offset, true) + bytes[offset + 2] * 65536;
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
        throw new InputError("IMAGE_CORRUPT", `${name}: the WebP does not begin with a picture`);
    }
  }
  if (["\x89PNG\r\n\x1a\n", "GIF8", "RIFF"].some((start) => start.startsWith(magic))) throw truncated();
  throw new InputError("IMAGE_FORMAT", `${name}: ${otherFormat(magic)}, must be PNG, JPEG, WebP or GIF`);
}

/** Walks the segments up to the start of the scan; each step moves on, so the walk ends with the file. */
function parseJpeg(bytes: Uint8Array, view: DataView, name: string, truncated: () => InputError): ImageHeader {
  let frame: ImageHeader | undefined;
  for (let at = 2; ; ) {
    while (bytes[at] === 0xff && bytes[at + 1] === 0xff) at++; // fill bytes
    if (at + 4 > bytes.length) throw truncated();
    const marker = bytes[at + 1];
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
    // 0xC0 … 0xCF are frames, but for the tables 0xC4 and 0xCC and the extension 0xC8.
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      if (length < 8) throw new InputError("IMAGE_CORRUPT", `${name}: the JPEG has a damaged frame header`);
      const precision = bytes[at + 4];
      if (marker > 0xc2 || precision !== 8) {
        const what = marker > 0xc2 ? "is lossless, hierarchical or arithmetic-coded" : `has ${precision} bits`;
        throw new InputError("UNSUPPORTED_JPEG", `${name}: the JPEG ${what}; must be Huffman-coded with 8 bits`);
      }
      frame ??= {
        format: "jpeg",
        width: view.getUint16(at + 7),
        height: view.getUint16(at + 5),
        components: bytes[at + 9],
      };
    }
    at += 2 + length;
  }
}

/** Whether a file that could not be decoded lacks its end: cut short rather than damaged. */
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
      return bytes.lastIndexOf(0x3b) < bytes.length - 8; // its last byte, but for a little padding
    case "webp":
      return false; // readImageHeader has compared the sizes
  }
}

/**
 * The same GIF with no transparent colour in its first frame: Pillow gives such pixels the colour that the palette has for
 * them, other decoders black. The caller has read the header; damage further on is left for the decoder to find.
 */
export function opaqueGif(bytes: Uint8Array): Uint8Array {
  const table = (packed: number) => (packed & 0x80 ? 3 << ((packed & 7) + 1) : 0);
  let at = 13 + table(bytes[10]);
  while (bytes[at] === 0x21) {
    if (bytes[at + 1] === 0xf9 && bytes[at + 2] === 4) {
      const opaque = bytes.slice();
      opaque[at + 3] &= 0xfe;
      return opaque;
    }
    for (at += 2; bytes[at] > 0; ) at += bytes[at] + 1; // sub-blocks, up to an empty one
    at++;
  }
  return bytes;
}

/** Names a format that is recognised but not read. */
function otherFormat(magic: string): string {
  if (magic.startsWith("II*\0") || magic.startsWith("MM\0*")) return "a TIFF file";
  if (magic.startsWith("BM")) return "a BMP file";
  if (magic.startsWith("%PDF")) return "a PDF file";
  if (magic.startsWith("%!PS")) return "a PostScript file";
  if (magic.slice(4, 8) === "ftyp") return "a HEIC, AVIF or MP4 file";
  if (magic.startsWith("\0\0\0\x0cjP")) return "a JPEG 2000 file";
  if (magic.startsWith("\0\0\x01\0")) return "an ICO file";
  if (/^\s*<(\?xml|svg)/.test(magic)) return "an SVG or XML file";
  if (/^\s*<(!doctype|html)/i.test(magic)) return "an HTML page";
  return "not a picture file this program knows";
}

/**
 * A JPEG without its EXIF segments, for decoders that cannot be told to ignore the orientation (browsers apply it). The
 * caller has read the header, so the segments up to the scan are whole. Other formats come back as they are.
 */
export function withoutExif(bytes: Uint8Array, format: ImageFormat): Uint8Array {
  if (format !== "jpeg") return bytes;
  const kept: Uint8Array[] = [];
  let start = 0;
  jpegScan(bytes, (marker, at, next) => {
    if (marker === 0xe1 && String.fromCharCode(...bytes.subarray(at + 4, at + 8)) === "Exif") {
      kept.push(bytes.subarray(start, at));
      start = next;
    }
  });
  if (start === 0) return bytes;
  kept.push(bytes.subarray(start));
  const joined = new Uint8Array(kept.reduce((sum, part) => sum + part.length, 0));
  let to = 0;
  for (const part of kept) {
    joined.set(part, to);
    to += part.length;
  }
  return joined;
}

/** Visits the segments of a JPEG whose header has been read; returns where its first scan starts. */
function jpegScan(bytes: Uint8Array, visit?: (marker: number, at: number, next: number) => void): number {
  let at = 2;
  while (bytes[at + 1] !== 0xda) {
    const marker = bytes[at + 1];
    const bare = marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    const next = at + (marker === 0xff ? 1 : bare ? 2 : 2 + bytes[at + 2] * 256 + bytes[at + 3]);
    visit?.(marker, at, next);
    at = next;
  }
  return at;
}
