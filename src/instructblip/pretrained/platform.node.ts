/** The platform in Node: the file system, models of the Hugging Face Hub, and images through sharp. */
import { resolveObjectURL } from "node:buffer";
import { stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { InputError, WeightError } from "../../tensor/errors.ts";
import { urlName, urlPlace } from "../../tensor/files/fetch_limited.ts";
import { FileSource, NodeFolder } from "../../tensor/files/source.node.ts";
import { HttpFolder } from "../../tensor/files/source.ts";
import { NodeWritableFolder } from "../../tensor/files/writable_folder.node.ts";
import { bounded } from "../../tensor/shown.ts";
import { decodeImage } from "../processing/image.node.ts";
import type { DecodeOptions, RgbImage } from "../processing/image.ts";
import { bytesOfDataUrl, checkImageBytes, fetchImage, imageName, isUrl } from "../processing/image_source.ts";
import { HubFolder } from "./hub/folder.node.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";
import { atRevision, hubSettings, parseHubId, parseHubUrl } from "./hub/hub.ts";
import type { Platform } from "./platform.ts";

/** Some sites refuse requests without a User-Agent. */
const HEADERS = { "user-agent": "instructblip-webgpu" };
/** Longest path or Hub id. */
const MAX_PATH = 4096;

export const nodePlatform: Platform = {
  /** A folder if it exists, else `owner/name[@revision]` of the Hub; or a URL: of a file, the Hub or any server. */
  async openFolder(where, options = {}) {
    if (options.cache !== undefined) {
      throw new InputError("UNSUPPORTED_OPTION", "from_pretrained: cache is for browsers", {
        hint: "in Node models of the Hub are always kept, in cache_dir",
      });
    }
    const path = folderPath(where);
    if (path === undefined) {
      const endpoint = options.endpoint ?? hubSettings(process.env).endpoint;
      const id = URL.canParse(where) ? parseHubUrl(where, endpoint) : undefined;
      return id ? HubFolder.open(atRevision(id, options.revision), options) : openHttpFolder(where, options);
    }
    const found = path.length > MAX_PATH ? undefined : await stat(path).catch(() => undefined);
    if (found?.isDirectory()) return new NodeFolder(path);
    const id = found || path.length > MAX_PATH ? undefined : parseHubId(path);
    if (id) return HubFolder.open(atRevision(id, options.revision), options);
    throw new WeightError(
      "NOT_FOUND",
      `${bounded(where, 200) || '""'}: ${found ? "this is a file, not a folder" : "no such folder"}`,
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
    return readNamedImage(image, { ...options, name });
  },
};

/** The path, or undefined for a URL of a server. @throws InputError FOLDER_SOURCE for other URLs */
function folderPath(where: string): string | undefined {
  const [, scheme] = /^\s*([a-z][a-z0-9+.-]{1,20}):/i.exec(where) ?? [];
  if (scheme === undefined) return where; // as is C:\folder
  if (/^https?$/i.test(scheme)) return undefined;
  try {
    if (/^file$/i.test(scheme)) return fileURLToPath(where);
  } catch (cause) {
    throw new InputError("FOLDER_SOURCE", `${bounded(where, 200)}: this URL names no file of this machine`, { cause });
  }
  throw new InputError("FOLDER_SOURCE", `a ${scheme}: URL is no checkpoint folder`, {
    hint: "give a path, a model of the Hugging Face Hub (owner/name), or an http, https or file URL",
  });
}

/** A folder on any server, read by byte ranges and not cached. */
function openHttpFolder(where: string, options: OpenFolderOptions): HttpFolder {
  for (const name of ["revision", "token", "cache_dir", "local_files_only", "endpoint"] as const) {
    if (!options[name]) continue;
    throw new InputError("UNSUPPORTED_OPTION", `${urlName(where)}: ${name} is about the Hub, and this URL is not`, {
      hint: name === "token" ? "HttpFolder takes headers for a server of its own" : undefined,
    });
  }
  return new HttpFolder(where, { signal: options.signal });
}

/**
 * Reads and decodes an image by its path or by its URL: http, https, file, data or blob.
 *
 * @param options.base the base of relative paths. Default: the current folder
 * @param options.name the name of an image that has none, for messages
 * @param options.signal aborts a download
 * @throws InputError, of {@link fetchImage} too; WeightError NOT_FOUND, NOT_REGULAR_FILE, IO; the signal's reason
 */
export async function readNamedImage(
  image: string | URL,
  { base = "", name = "image", signal, ...options }: DecodeOptions & NamedImageOptions = {},
): Promise<RgbImage> {
  if (typeof image === "string" && !isUrl(image)) {
    if (image.length > MAX_PATH) {
      throw new InputError("IMAGE_SOURCE", `${name}: a path of ${image.length} characters`, {
        hint: "if these are the bytes of a file in base64, write data:image/png;base64, in front of them",
      });
    }
    return readImageFile(resolve(base, image), imageName(image), options);
  }
  const url = String(image);
  switch (/^[a-z0-9+.-]*:/i.exec(url)?.[0].toLowerCase()) {
    case "http:":
    case "https:":
      return decodeImage(await fetchImage(url, { headers: HEADERS, signal }), urlPlace(url), options);
    case "file:":
      return readImageFile(pathOfUrl(url), imageName(url), options);
    case "data:":
      return decodeImage(bytesOfDataUrl(url, name), name, options);
    case "blob:": {
      const blob = resolveObjectURL(url);
      if (!blob) throw new InputError("IMAGE_NOT_FOUND", `${name}: its blob: URL is unknown or has been revoked`);
      checkImageBytes(blob.size, name);
      return decodeImage(new Uint8Array(await blob.arrayBuffer()), name, options);
    }
    default:
      throw new InputError(
        "IMAGE_SOURCE",
        `${name}: images are not read from ${url.slice(0, Math.min(20, url.indexOf(":")))}: URLs`,
        {
          hint: "http:, https:, file: and data: are known; fetch others, and give the bytes",
        },
      );
  }
}

interface NamedImageOptions {
  base?: string;
  name?: string;
  signal?: AbortSignal;
}

/** @throws InputError IMAGE_SOURCE */
function pathOfUrl(url: string): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw new InputError("IMAGE_SOURCE", `${imageName(url)}: the file: URL is of no file on this machine`, {
      hint: "file:///folder/image.png has three slashes, and no slash is written as %2F",
      cause,
    });
  }
}

/** Reads and decodes an image file; messages show `name`. @throws InputError; WeightError NOT_FOUND, NOT_REGULAR_FILE, IO */
async function readImageFile(path: string, name: string, options?: DecodeOptions): Promise<RgbImage> {
  if (path.includes("\0")) throw new InputError("IMAGE_SOURCE", `${name}: a path has no zero bytes`);
  const source = await FileSource.open(path, name);
  try {
    checkImageBytes(source.size, name);
    const bytes = new Uint8Array(source.size);
    await source.read(0, bytes);
    return await decodeImage(bytes, name, options);
  } finally {
    await source.close();
  }
}
