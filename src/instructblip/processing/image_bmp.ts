/**
 * Windows bitmaps as Pillow reads them: 1, 4 and 8 bits with a palette, 16, 24 and 32 bits, alpha dropped. libvips has no
 * BMP reader, and with this one Node and browsers agree. Run-length encoding is refused.
 *
 * Sources: Microsoft's BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV5HEADER; masks, and conversion of 5 and
 * 6 bits: Pillow 12.3, BmpImagePlugin.py and Unpack.c.
 */
import { InputError } from "../../tensor/errors.ts";
import type { RgbImage } from "./image.ts";

/** The layout of the file. */
export interface BmpLayout {
  readonly width: number;
  readonly height: number;
  readonly bits: number;
  /** Whether rows are from top to bottom. */
  readonly topDown: boolean;
  /** Of the first row, in bytes. */
  readonly offset: number;
  /** Of a row, in bytes: whole words of 4. */
  readonly stride: number;
  /** Up to 8 bits: offset of blue, green and red of the first palette entry, and distance to the next. */
  readonly palette: { readonly offset: number; readonly step: number; readonly colors: number };
  /** From 16 bits: the masks of red, green and blue. */
  readonly masks: readonly [number, number, number];
}

const MASKS_555 = [0x7c00, 0x3e0, 0x1f] as const;
const MASKS_565 = [0xf800, 0x7e0, 0x1f] as const;
const MASKS_BGR = [0xff0000, 0xff00, 0xff] as const;

/**
 * Reads the headers. The caller checks the size.
 *
 * @throws InputError IMAGE_TRUNCATED, UNSUPPORTED_BMP
 */
export function readBmpLayout(bytes: Uint8Array, name: string): BmpLayout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const need = (length: number) => {
    if (bytes.length < length) throw new InputError("IMAGE_TRUNCATED", `${name}: the file ends inside its header`);
  };
  const refuse = (what: string) =>
    new InputError("UNSUPPORTED_BMP", `${name}: the BMP ${what}`, { hint: "save it as PNG" });
  need(26);
  const size = view.getUint32(14, true);
  const isCore = size === 12;
  if (!isCore && ![40, 52, 56, 64, 108, 124].includes(size)) throw refuse(`has a header of ${size} bytes`);
  need(14 + size);
  const bits = view.getUint16(isCore ? 24 : 28, true);
  const height = isCore ? view.getUint16(20, true) : view.getInt32(22, true);
  const width = isCore ? view.getUint16(18, true) : view.getInt32(18, true);
  const compression = isCore ? 0 : view.getUint32(30, true);
  if (![1, 4, 8, 16, 24, 32].includes(bits)) throw refuse(`has ${bits} bits a pixel`);
  if (compression === 1 || compression === 2) throw refuse("is run-length-coded");
  if (compression !== 0 && !(compression === 3 && bits > 8)) throw refuse(`has compression ${compression}`);

  let masks: BmpLayout["masks"] = bits === 16 ? MASKS_555 : MASKS_BGR;
  let end = 14 + size;
  if (compression === 3) {
    if (size === 40) end += 12; // the masks follow the header
    need(end);
    const given = [54, 58, 62].map((at) => view.getUint32(at, true));
    const alpha = size >= 56 ? view.getUint32(66, true) : 0;
    masks = knownMasks(bits, given, alpha) ?? refuseMasks();
  }
  function refuseMasks(): never {
    throw refuse("has its colours in an uncommon order");
  }
  const step = isCore ? 3 : 4;
  const colors = (isCore ? 0 : view.getUint32(46, true)) || 2 ** bits;
  if (bits <= 8) need(end + step * Math.min(colors, 2 ** bits));
  return {
    width,
    height: Math.abs(height),
    bits,
    topDown: height < 0,
    offset: view.getUint32(10, true),
    stride: Math.ceil((width * bits) / 32) * 4,
    palette: { offset: end, step, colors: Math.min(colors, 2 ** bits) },
    masks,
  };
}

/** Masks that Pillow supports, too. */
function knownMasks(bits: number, given: readonly number[], alpha: number): BmpLayout["masks"] | undefined {
  const is = (...masks: readonly number[]) => masks.every((mask, i) => mask === given[i]);
  if (bits === 16) return is(...MASKS_565) ? MASKS_565 : is(...MASKS_555) ? MASKS_555 : undefined;
  if (bits === 24) return is(...MASKS_BGR) ? MASKS_BGR : undefined;
  if (is(...MASKS_BGR) && (alpha === 0 || alpha === 0xff000000)) return MASKS_BGR;
  if (is(0, 0, 0) && alpha === 0) return MASKS_BGR;
  if (is(0xff, 0xff00, 0xff0000) && alpha === 0xff000000) return [0xff, 0xff00, 0xff0000];
  if (is(0xff000000, 0xff0000, 0xff00) && (alpha === 0 || alpha === 0xff)) return [0xff000000, 0xff0000, 0xff00];
  if (is(0xff000000, 0xff00, 0xff) && (alpha === 0 || alpha === 0xff0000)) return [0xff000000, 0xff00, 0xff];
  return undefined;
}

/**
 * Decodes a BMP whose size has been checked.
 *
 * @throws InputError IMAGE_TRUNCATED, UNSUPPORTED_BMP
 */
export function decodeBmp(bytes: Uint8Array, name: string): RgbImage {
  const layout = readBmpLayout(bytes, name);
  const { width, height, bits, topDown, offset, stride } = layout;
  // The last row may lack its padding.
  const end = offset + stride * (height - 1) + Math.ceil((width * bits) / 8);
  if (end > bytes.length) throw new InputError("IMAGE_TRUNCATED", `${name}: the BMP ends before its image does`);
  const data = new Uint8Array(width * height * 3);
  const read = bits <= 8 ? paletteReader(bytes, layout) : colourReader(bytes, layout);
  for (let y = 0; y < height; y++) {
    const row = offset + stride * (topDown ? y : height - 1 - y);
    for (let x = 0, to = y * width * 3; x < width; x++, to += 3) read(row, x, data, to);
  }
  return { width, height, data };
}

/** Writes the pixel `x` of the row that starts at byte `row` to `data[to … to + 2]`. */
type PixelReader = (row: number, x: number, data: Uint8Array, to: number) => void;

/** Colours beyond the palette are black. */
function paletteReader(bytes: Uint8Array, { bits, palette }: BmpLayout): PixelReader {
  const rgb = new Uint8Array(3 * 256);
  for (let i = 0; i < palette.colors; i++) {
    const at = palette.offset + palette.step * i;
    rgb.set(bytes.subarray(at, at + 3).toReversed(), 3 * i);
  }
  const perByte = 8 / bits;
  const mask = 2 ** bits - 1;
  return (row, x, data, to) => {
    const byte = bytes[row + Math.floor(x / perByte)]!;
    const from = 3 * ((byte >> (8 - bits - bits * (x % perByte))) & mask);
    data[to] = rgb[from]!;
    data[to + 1] = rgb[from + 1]!;
    data[to + 2] = rgb[from + 2]!;
  };
}

function colourReader(bytes: Uint8Array, { bits, masks }: BmpLayout): PixelReader {
  if (bits === 16) {
    const parts = masks.map((mask) => ({ shift: 31 - Math.clz32(mask & -mask), top: mask / (mask & -mask) }));
    return (row, x, data, to) => {
      const pixel = bytes[row + 2 * x]! | (bytes[row + 2 * x + 1]! << 8);
      for (const [c, { shift, top }] of parts.entries()) {
        data[to + c] = Math.trunc((((pixel >> shift) & top) * 255) / top);
      }
    };
  }
  const size = bits / 8;
  const byteOf = (mask: number) => (31 - Math.clz32(mask & -mask)) / 8;
  const [red, green, blue] = [byteOf(masks[0]), byteOf(masks[1]), byteOf(masks[2])];
  return (row, x, data, to) => {
    const from = row + size * x;
    data[to] = bytes[from + red]!;
    data[to + 1] = bytes[from + green]!;
    data[to + 2] = bytes[from + blue]!;
  };
}
