/** Images from a page: `<img>`, `<video>`, canvases, ImageBitmap, VideoFrame. */
import { InputError } from "../../tensor/errors.ts";
import { decodeImage } from "./image.browser.ts";
import type { DecodeOptions, RgbImage } from "./image.ts";
import { bitmapOf, rgbOf } from "./image_bitmap.ts";
import { bytesOfDataUrl } from "./image_source.ts";

/** A browser's class by its name; `never` without DOM types, as in Node. */
export type Page<Name extends string> = typeof globalThis extends Record<Name, { prototype: infer T }> ? T : never;

/** An image source of a page. */
export type Drawable =
  | Page<"HTMLImageElement">
  | Page<"HTMLVideoElement">
  | Page<"HTMLCanvasElement">
  | Page<"OffscreenCanvas">
  | Page<"ImageBitmap">
  | Page<"VideoFrame">;

/** Their names in messages, by class name, and why one may have no pixels. */
const DRAWABLES: Readonly<Record<string, readonly [what: string, without: string]>> = {
  HTMLImageElement: ["the <img>", "cannot be loaded, or has nothing to load"],
  HTMLVideoElement: ["the <video>", "has no frame yet; wait for its loadeddata event"],
  HTMLCanvasElement: ["the canvas", "has no pixels: its width or height is 0"],
  OffscreenCanvas: ["the canvas", "has no pixels: its width or height is 0"],
  ImageBitmap: ["the ImageBitmap", "is closed"],
  VideoFrame: ["the VideoFrame", "is closed"],
};

/** The class name of an object, also of another window. */
export function classOf(value: unknown): string {
  return Object.prototype.toString.call(value).slice(8, -1);
}

export function isDrawable(value: unknown): value is Drawable {
  return Object.hasOwn(DRAWABLES, classOf(value));
}

/**
 * Reads the current pixels: later drawing is not seen. An `<img>` that is loading is awaited. Its file is decoded, with the
 * EXIF orientation only if requested; if the file cannot be read again, the pixels are those that the browser shows, which
 * are upright.
 *
 * @param name for messages
 * @throws InputError BAD_PIXELS, IMAGE_SOURCE (cross-origin without permission), IMAGE_TOO_LARGE
 */
export async function readDrawable(source: Drawable, name: string, options?: DecodeOptions): Promise<RgbImage> {
  const kind = classOf(source);
  const [what, without] = DRAWABLES[kind]!;
  const image = kind === "HTMLImageElement" ? (source as HTMLImageElement) : undefined;
  const shown = image && !image.complete ? image.decode().then(() => bitmapOf(source)) : bitmapOf(source);
  const bitmap = await shown.catch((cause: unknown) => {
    throw new InputError("BAD_PIXELS", `${name}: ${what} ${without}`, { cause });
  });
  try {
    return (await readAgain(image?.currentSrc, name, options)) ?? rgbOf(bitmap, name);
  } catch (cause) {
    if (cause instanceof InputError) throw cause;
    throw new InputError(
      "IMAGE_SOURCE",
      `${name}: ${what} shows an image of another site, whose pixels are not given`,
      {
        hint: 'set crossOrigin = "anonymous" before its src, if that site allows it',
        cause,
      },
    );
  } finally {
    bitmap.close();
  }
}

/** The decoded file of an `<img>`, usually from the browser's cache; undefined if it cannot be fetched, or is an SVG. */
async function readAgain(
  url: string | undefined,
  name: string,
  options?: DecodeOptions,
): Promise<RgbImage | undefined> {
  if (!url) return undefined;
  try {
    if (/^data:/i.test(url)) return await decodeImage(bytesOfDataUrl(url, name), name, options);
    const response = await fetch(url, { cache: "force-cache" });
    return response.ok ? await decodeImage(new Uint8Array(await response.arrayBuffer()), name, options) : undefined;
  } catch {
    return undefined;
  }
}
