/**
 * Decodes pictures in a browser, to the bytes Pillow gives for opaque ones: no colour conversion. Two differences that the
 * 2D canvas forces: pictures with transparency come out premultiplied, and EXIF orientation is always applied.
 */
import { InputError } from "../tensor/errors.ts";
import { readImageHeader } from "./image_format.ts";
import type { RgbImage } from "./image_processor.ts";

/** Decodes PNG, JPEG, WebP or the first frame of a GIF to u8[H, W, 3]. @throws InputError as image_format.ts, IMAGE_CORRUPT */
export async function decodeImage(bytes: Uint8Array, name: string): Promise<RgbImage> {
  readImageHeader(bytes, name);
  const options: ImageBitmapOptions = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([bytes as BlobPart]), options).catch((cause: unknown) => {
    throw new InputError("IMAGE_CORRUPT", `${name}: cannot be decoded`, { cause });
  });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new InputError("IMAGE_CORRUPT", `${name}: this browser has no 2D canvas to read pixels from`);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) data.set(rgba.subarray(4 * i, 4 * i + 3), 3 * i);
  return { width, height, data };
}
