/** The platform in Node: the file system, models of the Hugging Face Hub, and pictures through sharp. */
import { stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InputError, WeightError } from "../tensor/errors.ts";
import { formatBytes } from "../tensor/memory.ts";
import { FileSource, NodeFolder } from "../tensor/source.node.ts";
import { NodeWritableFolder } from "../tensor/writable_folder.node.ts";
import { HubFolder } from "./hub.node.ts";
import { parseHubId } from "./hub.ts";
import { decodeImage } from "./image.node.ts";
import type { RgbImage } from "./image_processor.ts";
import type { DecodeOptions, Platform } from "./platform.ts";

/** Larger than any photograph's file, small enough to hold. */
const MAX_IMAGE_BYTES = 256 * 2 ** 20;

export const nodePlatform: Platform = {
  /** A folder if there is one of that name, else `owner/name[@revision]` of the Hub. */
  async openFolder(path, options) {
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory()) return new NodeFolder(path);
    const id = found ? undefined : parseHubId(path);
    if (id) return HubFolder.open(id, options);
    throw new WeightError("NOT_FOUND", `${path}: ${found ? "is not a folder" : "no such folder"}`, {
      hint: "give the folder that holds config.json and model.safetensors, or a model of the Hugging Face Hub: owner/name",
    });
  },

  createFolder: (path) => NodeWritableFolder.create(path),

  /** For true `instructblip-webgpu` in the user's cache folder, beside Hugging Face's. */
  async cacheFolder(where) {
    const home = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
    const path = where === true ? join(home, "instructblip-webgpu") : where;
    return { write: await NodeWritableFolder.create(path), read: new NodeFolder(path) };
  },

  async readImage(image, name, options) {
    if (image instanceof Uint8Array) return decodeImage(image, name, options);
    const isUrl = image instanceof URL || /^[a-z][a-z0-9+.-]+:\/\//i.test(image);
    if (isUrl && new URL(image).protocol !== "file:") {
      throw new InputError("IMAGE_SOURCE", `${name}: a picture must be a file, got a URL`, {
        hint: "fetch it, and give the bytes",
      });
    }
    return readImageFile(isUrl ? fileURLToPath(image) : (image as string), String(image), options);
  },
};

/** Reads and decodes a picture file; messages say `name`. @throws InputError; WeightError NOT_FOUND, NOT_REGULAR_FILE, IO */
export async function readImageFile(path: string, name = path, options?: DecodeOptions): Promise<RgbImage> {
  const source = await FileSource.open(path, name);
  try {
    if (source.size > MAX_IMAGE_BYTES) {
      throw new InputError(
        "IMAGE_TOO_LARGE",
        `${name}: ${formatBytes(source.size)}; the limit is ${formatBytes(MAX_IMAGE_BYTES)}`,
      );
    }
    const bytes = new Uint8Array(source.size);
    await source.read(0, bytes);
    return await decodeImage(bytes, name, options);
  } finally {
    await source.close();
  }
}
