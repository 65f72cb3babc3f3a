/** The platform in a browser: checkpoint folders over HTTP ranges, pictures through the browser's own decoders. */
import { InputError } from "../tensor/errors.ts";
import { type Folder, HttpFolder } from "../tensor/source.ts";
import { decodeImage } from "./image.browser.ts";
import type { RgbImage } from "./image_processor.ts";
import type { DecodeOptions } from "./platform.ts";

export async function openFolder(url: string): Promise<Folder> {
  return new HttpFolder(new URL(url, globalThis.location?.href).href);
}

export async function createFolder(path: string): Promise<never> {
  throw new InputError("NO_FILES", `${path}: a browser has no folders to write to by name`, {
    hint: "give a WritableFolder",
  });
}

export async function cacheFolder(): Promise<never> {
  throw new InputError("NO_FILES", "cache: a browser has no folders to write to by name");
}

export async function readImage(
  image: string | URL | Uint8Array,
  name: string,
  options?: DecodeOptions,
): Promise<RgbImage> {
  if (image instanceof Uint8Array) return decodeImage(image, name, options);
  const response = await fetch(image).catch((cause: unknown) => {
    throw new InputError("IMAGE_NOT_FOUND", `${image}: cannot be fetched`, { cause });
  });
  if (!response.ok) throw new InputError("IMAGE_NOT_FOUND", `${image}: HTTP status ${response.status}`);
  return decodeImage(new Uint8Array(await response.arrayBuffer()), String(image), options);
}
