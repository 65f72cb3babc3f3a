/**
 * Decodes images in a browser to the bytes of image.node.ts: no colour conversion, alpha dropped without compositing, EXIF
 * orientation ignored unless asked for, 16-bit grey clipped at 255. In Chromium 147 all formats are decoded as by Pillow,
 * except CMYK and AVIF, which differ by 1 (AVIF with subsampled colours by more), and the EXIF orientation of WebP, which
 * Chromium does not apply. TIFF is not decoded.
 */
import { InputError } from "../../tensor/errors.ts";
import type { DecodeOptions, RgbImage } from "./image.ts";
import { stillAvif } from "./image_avif.ts";
import { bitmapOf, rgbaOf, rgbOf } from "./image_bitmap.ts";
import { decodeBmp } from "./image_bmp.ts";
import {
  clippedGrey,
  endsEarly,
  grey16AsPairs,
  type ImageHeader,
  opaqueGif,
  paintAroundGifFrame,
  readImageHeader,
  withoutExif,
} from "./image_format.ts";

/**
 * Decodes PNG, JPEG, WebP, BMP or AVIF, or the first frame of a GIF, to u8[H, W, 3].
 *
 * @param name for messages
 * @throws InputError IMAGE_TRUNCATED, IMAGE_FORMAT, UNSUPPORTED_JPEG, UNSUPPORTED_BMP, IMAGE_TOO_LARGE, IMAGE_CORRUPT
 */
export async function decodeImage(bytes: Uint8Array, name: string, options: DecodeOptions = {}): Promise<RgbImage> {
  const header = readImageHeader(bytes, name);
  const { format } = header;
  if (format === "bmp") return decodeBmp(bytes, name);
  if (format === "tiff") {
    throw new InputError("IMAGE_FORMAT", `${name}: a TIFF file, which browsers do not decode`, {
      hint: "save it as PNG",
    });
  }
  const input = readable(bytes, header, options.exif_transpose === true);
  const bitmap = await bitmapOf(new Blob([input as BlobPart])).catch(() => {
    const what = format.toUpperCase();
    if (endsEarly(bytes, format)) {
      throw new InputError("IMAGE_TRUNCATED", `${name}: the ${what} ends before its image does`);
    }
    throw new InputError("IMAGE_CORRUPT", `${name}: the ${what} is damaged and cannot be decoded`);
  });
  try {
    if (header.samples === "grey16") return grey16Of(bitmap, name);
    const image = rgbOf(bitmap, name);
    if (format === "gif") paintAroundGifFrame(bytes, image.data, image.width, image.height);
    return image;
  } finally {
    bitmap.close();
  }
}

/** Rewrites a file so that browsers decode it as Pillow does: they would apply its orientation. */
function readable(bytes: Uint8Array, { format, samples }: ImageHeader, upright: boolean): Uint8Array {
  if (format === "avif") return stillAvif(bytes, upright);
  const stored = upright ? bytes : withoutExif(bytes, format);
  if (format === "gif") return opaqueGif(stored);
  return samples === "grey16" ? grey16AsPairs(stored) : stored;
}

/** 16-bit grey, decoded as its upper byte three times and its lower byte as alpha. */
function grey16Of(bitmap: ImageBitmap, name: string): RgbImage {
  const { width, height } = bitmap;
  const rgba = rgbaOf(bitmap, name);
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    data.fill(clippedGrey(256 * rgba[4 * i]! + rgba[4 * i + 3]!), 3 * i, 3 * i + 3);
  }
  return { width, height, data };
}
