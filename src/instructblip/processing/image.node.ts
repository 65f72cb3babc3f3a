/**
 * Decodes images in Node with sharp (libvips), to the bytes Pillow's `Image.open(f).convert("RGB")` gives: ICC profiles,
 * gamma and EXIF orientation ignored (but a TIFF's, as in Pillow), alpha dropped without compositing, 16-bit grey clipped at
 * 255, first frame only. Decoding only: resizing is image_processor.ts.
 *
 * One known difference: lossy AVIF. Pillow's decoder interpolates subsampled colours and ours repeats them, so they differ
 * at edges; AVIF with full colours (4:4:4) differs by 1 at most.
 */
import sharp from "sharp";
import { InputError } from "../../tensor/errors.ts";
import type { DecodeOptions, RgbImage } from "./image.ts";
import { stillAvif } from "./image_avif.ts";
import { decodeBmp } from "./image_bmp.ts";
import {
  clippedGrey,
  endsEarly,
  type ImageHeader,
  MAX_PIXELS,
  opaqueGif,
  paintAroundGifFrame,
  readImageHeader,
} from "./image_format.ts";

/**
 * Decodes PNG, JPEG, WebP, TIFF, BMP or AVIF, or the first frame of a GIF, to u8[H, W, 3].
 *
 * @param name for messages
 * @throws InputError IMAGE_TRUNCATED, IMAGE_FORMAT, UNSUPPORTED_JPEG, UNSUPPORTED_TIFF, UNSUPPORTED_BMP, IMAGE_TOO_LARGE,
 *   IMAGE_CORRUPT
 */
export async function decodeImage(bytes: Uint8Array, name: string, options: DecodeOptions = {}): Promise<RgbImage> {
  const header = readImageHeader(bytes, name);
  const { format, samples } = header;
  if (format === "bmp") return decodeBmp(bytes, name);
  const upright = options.exif_transpose === true;
  // failOn "error": Pillow refuses truncated files and bad checksums too, but accepts libjpeg's warnings.
  const settings = { failOn: "error", limitInputPixels: MAX_PIXELS, ignoreIcc: true, pages: 1 } as const;
  let pipeline = sharp(readable(bytes, header, upright), settings);
  // An AVIF has its own orientation; its EXIF is ignored, as by Pillow.
  if (format === "tiff" || (upright && format !== "avif")) pipeline = pipeline.autoOrient();
  if (samples === "cmyk") pipeline = pipeline.pipelineColourspace("cmyk").toColourspace("cmyk");
  else if (samples === "grey16") pipeline = pipeline.toColourspace("grey16");
  else pipeline = pipeline.toColourspace("srgb").removeAlpha();
  const { data, info } = await pipeline
    .raw({ depth: samples === "grey16" ? "ushort" : "uchar" })
    .toBuffer({ resolveWithObject: true })
    .catch(() => {
      // sharp's messages contain internal paths and vary with its version: they are not passed on.
      if (endsEarly(bytes, format)) {
        throw new InputError("IMAGE_TRUNCATED", `${name}: the ${format.toUpperCase()} ends before its image does`);
      }
      throw new InputError("IMAGE_CORRUPT", `${name}: the ${format.toUpperCase()} is damaged and cannot be decoded`);
    });
  const { width, height, channels } = info;
  const pixels = width * height;
  const turned = upright && width === header.height && height === header.width;
  const sampleBytes = samples === "grey16" ? 2 : 1;
  const sized = turned || (width === header.width && height === header.height);
  if (data.length !== pixels * channels * sampleBytes || !sized) {
    throw new InputError("IMAGE_CORRUPT", `${name}: the image's size differs from that in its header`);
  }
  if (samples === "cmyk") return { width, height, data: cmykToRgb(data, pixels) };
  if (samples === "grey16") return { width, height, data: grey16ToRgb(data, channels, pixels) };
  const rgb = channels === 1 ? greyToRgb(data, pixels) : new Uint8Array(data.buffer, data.byteOffset, data.length);
  if (format === "gif") paintAroundGifFrame(bytes, rgb, width, height);
  return { width, height, data: rgb };
}

/** Rewrites a file so that libvips decodes it as Pillow does. */
function readable(bytes: Uint8Array, { format }: ImageHeader, upright: boolean): Uint8Array {
  if (format === "gif") return opaqueGif(bytes);
  return format === "avif" ? stillAvif(bytes, upright) : bytes;
}

/** Pillow's CMYK to RGB (Convert.c, cmyk2rgb). Pillow and libvips both take the inks of a JPEG as inverted, as Adobe does. */
function cmykToRgb(data: Uint8Array, pixels: number): Uint8Array {
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const light = 255 - data[4 * i + 3]!;
    for (let c = 0; c < 3; c++) {
      const product = data[4 * i + c]! * light + 128;
      rgb[3 * i + c] = light - (((product >> 8) + product) >> 8);
    }
  }
  return rgb;
}

function greyToRgb(data: Uint8Array, pixels: number): Uint8Array {
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) rgb.fill(data[i]!, 3 * i, 3 * i + 3);
  return rgb;
}

/** @param data u16[pixels, channels], the first of which is grey */
function grey16ToRgb(data: Buffer, channels: number, pixels: number): Uint8Array {
  const rgb = new Uint8Array(pixels * 3);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1; // in the processor's byte order
  for (let i = 0; i < pixels; i++) {
    rgb.fill(clippedGrey(view.getUint16(2 * channels * i, little)), 3 * i, 3 * i + 3);
  }
  return rgb;
}
