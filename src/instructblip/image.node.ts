/**
 * Decodes pictures in Node with sharp (libvips), to the bytes Pillow's `Image.open(f).convert("RGB")` gives: ICC profiles,
 * gamma and EXIF orientation ignored, alpha dropped without compositing, first frame only. Decoding only: resizing is
 * image_processor.ts. Two known differences from Pillow: 16-bit grey is scaled (`>> 8`), where Pillow clips at 255, and a
 * GIF whose first frame does not fill its screen is black around it, where Pillow takes the palette's first colour.
 */
import sharp from "sharp";
import { InputError } from "../tensor/errors.ts";
import { endsEarly, MAX_PIXELS, opaqueGif, readImageHeader } from "./image_format.ts";
import type { RgbImage } from "./image_processor.ts";
import type { DecodeOptions } from "./platform.ts";

/**
 * Decodes PNG, JPEG, WebP or the first frame of a GIF to u8[H, W, 3].
 *
 * @param name for messages
 * @throws InputError IMAGE_TRUNCATED, IMAGE_FORMAT, UNSUPPORTED_JPEG, IMAGE_TOO_LARGE, IMAGE_CORRUPT
 */
export async function decodeImage(bytes: Uint8Array, name: string, options: DecodeOptions = {}): Promise<RgbImage> {
  const header = readImageHeader(bytes, name);
  const cmyk = header.components === 4;
  // failOn "error": Pillow refuses truncated files and bad checksums too, but lives with libjpeg's warnings.
  const input = header.format === "gif" ? opaqueGif(bytes) : bytes;
  let pipeline = sharp(input, { failOn: "error", limitInputPixels: MAX_PIXELS, ignoreIcc: true, pages: 1 });
  if (options.exif_transpose) pipeline = pipeline.autoOrient();
  pipeline = cmyk
    ? pipeline.pipelineColourspace("cmyk").toColourspace("cmyk")
    : pipeline.toColourspace("srgb").removeAlpha();
  const { data, info } = await pipeline
    .raw({ depth: "uchar" })
    .toBuffer({ resolveWithObject: true })
    .catch(() => {
      // sharp's messages name files of its own and change with its version: they are not passed on.
      const format = header.format.toUpperCase();
      if (endsEarly(bytes, header.format)) {
        throw new InputError("IMAGE_TRUNCATED", `${name}: the ${format} ends before its picture does`);
      }
      throw new InputError("IMAGE_CORRUPT", `${name}: the ${format} is damaged and cannot be decoded`);
    });
  const { width, height, channels } = info;
  const pixels = width * height;
  const turned = options.exif_transpose === true && width === header.height && height === header.width;
  if (data.length !== pixels * channels || (!turned && (width !== header.width || height !== header.height))) {
    throw new InputError("IMAGE_CORRUPT", `${name}: the picture is not of the size its header says`);
  }
  if (cmyk) return { width, height, data: cmykToRgb(data, pixels) };
  if (channels === 1) return { width, height, data: greyToRgb(data, pixels) };
  return { width, height, data: new Uint8Array(data.buffer, data.byteOffset, data.length) };
}

/** Pillow's CMYK to RGB (Convert.c, cmyk2rgb). Pillow and libvips both take the inks of a JPEG as inverted, as Adobe does. */
function cmykToRgb(data: Uint8Array, pixels: number): Uint8Array {
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const light = 255 - data[4 * i + 3];
    for (let c = 0; c < 3; c++) {
      const product = data[4 * i + c] * light + 128;
      rgb[3 * i + c] = light - (((product >> 8) + product) >> 8);
    }
  }
  return rgb;
}

function greyToRgb(data: Uint8Array, pixels: number): Uint8Array {
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) rgb.fill(data[i], 3 * i, 3 * i + 3);
  return rgb;
}
