/** The platform in Node: the file system, models of the Hugging Face Hub, and pictures through sharp. */
import { stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { InputError, WeightError } from "../tensor/errors.ts";
import { urlName } from "../tensor/fetch_limited.ts";
import { formatBytes } from "../tensor/memory.ts";
import { FileSource, NodeFolder } from "../tensor/source.node.ts";
import { HttpFolder } from "../tensor/source.ts";
import { NodeWritableFolder } from "../tensor/writable_folder.node.ts";
import { HubFolder } from "./hub.node.ts";
import { atRevision, hubSettings, parseHubId, parseHubUrl } from "./hub.ts";
import { decodeImage } from "./image.node.ts";
import type { RgbImage } from "./image_processor.ts";
import { type DecodeOptions, type OpenFolderOptions, type Platform, shownPlace } from "./platform.ts";

/** Longer than any path, or id of the Hub. */
const MAX_PATH = 4096;
/** Larger than any photograph's file, small enough to hold. */
const MAX_IMAGE_BYTES = 256 * 2 ** 20;

export const nodePlatform: Platform = {
  /** A folder if there is one of that name, else `owner/name[@revision]` of the Hub; or a URL: of a file, the Hub or any server. */
  async openFolder(where, options = {}) {
    const path = folderPath(where);
    if (path === undefined) {
      const id = URL.canParse(where) ? parseHubUrl(where, hubSettings(process.env).endpoint) : undefined;
      return id ? HubFolder.open(atRevision(id, options.revision), options) : openHttpFolder(where, options);
    }
    const found = path.length > MAX_PATH ? undefined : await stat(path).catch(() => undefined);
    if (found?.isDirectory()) return new NodeFolder(path);
    const id = found || path.length > MAX_PATH ? undefined : parseHubId(path);
    if (id) return HubFolder.open(atRevision(id, options.revision), options);
    throw new WeightError(
      "NOT_FOUND",
      `${shownPlace(where)}: ${found ? "this is a file, not a folder" : "no such folder"}`,
      {
        hint: "give the folder that holds config.json and model.safetensors, or a model of the Hugging Face Hub: owner/name",
      },
    );
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

/** The path that is meant, or undefined for what a server has. @throws InputError FOLDER_SOURCE for other URLs */
function folderPath(where: string): string | undefined {
  const [, scheme] = /^\s*([a-z][a-z0-9+.-]{1,20}):/i.exec(where) ?? [];
  if (scheme === undefined) return where; // as is C:\folder
  if (/^https?$/i.test(scheme)) return undefined;
  try {
    if (/^file$/i.test(scheme)) return fileURLToPath(where);
  } catch (cause) {
    throw new InputError("FOLDER_SOURCE", `${shownPlace(where)}: this URL names no file of this machine`, { cause });
  }
  throw new InputError("FOLDER_SOURCE", `a ${scheme}: URL is no checkpoint folder`, {
    hint: "give a path, a model of the Hugging Face Hub (owner/name), or an http, https or file URL",
  });
}

/** A folder on any server, read by ranges and kept nowhere. */
function openHttpFolder(where: string, options: OpenFolderOptions): HttpFolder {
  for (const name of ["revision", "token", "cache_dir", "local_files_only"] as const) {
    if (!options[name]) continue;
    throw new InputError("UNSUPPORTED_OPTION", `${urlName(where)}: ${name} is about the Hub, and this URL is not`, {
      hint: name === "token" ? "HttpFolder takes headers for a server of its own" : undefined,
    });
  }
  return new HttpFolder(where, { signal: options.signal });
}

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
