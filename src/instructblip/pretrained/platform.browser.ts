/** The platform in a browser: checkpoint folders over HTTP ranges, images through the browser's own decoders. */
import { InputError } from "../../tensor/errors.ts";
import { urlName } from "../../tensor/files/fetch_limited.ts";
import { type Folder, HttpFolder } from "../../tensor/files/source.ts";
import { bounded, quote } from "../../tensor/shown.ts";
import { decodeImage } from "../processing/image.browser.ts";
import type { DecodeOptions, RgbImage } from "../processing/image.ts";
import { bytesOfDataUrl, fetchImage, imageName } from "../processing/image_source.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";
import { atRevision, cleanToken, HUB_URL, parseHubUrl } from "./hub/hub.ts";

/** A folder by its URL; a model of the Hub by its page's URL. */
export async function openFolder(where: string, options: OpenFolderOptions = {}): Promise<Folder> {
  const { revision, token, cache_dir, local_files_only, signal } = options;
  const base = globalThis.location?.href;
  if (!URL.canParse(where, base)) {
    throw new InputError("FOLDER_SOURCE", `${bounded(where, 200)}: this is no URL`, { hint: "give that of a folder" });
  }
  if (cache_dir !== undefined || local_files_only) {
    const name = local_files_only ? "local_files_only" : "cache_dir";
    throw new InputError(
      "UNSUPPORTED_OPTION",
      `from_pretrained: ${name} is not for browsers, which keep what they fetch`,
    );
  }
  const url = new URL(where, base).href;
  const asked = parseHubUrl(url);
  if (asked) {
    const { repository, revision: at } = atRevision(asked, revision);
    const key = typeof token === "string" ? cleanToken(token, "token") : undefined;
    if (token === true) {
      throw new InputError("TOKEN", "token: true stands for a stored token, and a browser has none", {
        hint: "give the token itself",
      });
    }
    return new HttpFolder(`${HUB_URL}/${repository}/resolve/${encodeURIComponent(at)}`, {
      signal,
      ...(key !== undefined && { headers: { Authorization: `Bearer ${key}` } }),
    });
  }
  for (const [name, value] of Object.entries({ revision, token })) {
    if (!value) continue;
    throw new InputError("UNSUPPORTED_OPTION", `${urlName(url)}: ${name} is about the Hub, and this URL is not`, {
      hint: "the URL of a model's page is https://huggingface.co/owner/name",
    });
  }
  return new HttpFolder(url, { signal });
}

export async function createFolder(path: string): Promise<never> {
  throw new InputError("NO_FILES", `${path}: a browser has no folders to write to by name`, {
    hint: "give a WritableFolder",
  });
}

export async function cacheFolder(): Promise<never> {
  throw new InputError("NO_FILES", "weight_cache: a browser has no folders to write to by name");
}

export async function readImage(
  image: string | URL | Uint8Array,
  name: string,
  options?: DecodeOptions,
): Promise<RgbImage> {
  if (image instanceof Uint8Array) return decodeImage(image, name, options);
  const given = String(image);
  if (/^data:/i.test(given)) return decodeImage(bytesOfDataUrl(given, name), name, options);
  const base = globalThis.location?.href;
  if (!URL.canParse(given, base)) {
    throw new InputError("IMAGE_SOURCE", `${name}: ${quote(given)} is no URL`);
  }
  const url = new URL(given, base);
  if (url.protocol === "blob:") {
    const response = await fetch(url).catch((cause: unknown) => {
      throw new InputError("IMAGE_NOT_FOUND", `${name}: its blob: URL is unknown or has been revoked`, { cause });
    });
    return decodeImage(new Uint8Array(await response.arrayBuffer()), name, options);
  }
  if (!/^https?:$/.test(url.protocol)) {
    throw new InputError("IMAGE_SOURCE", `${name}: images are not read from ${quote(url.protocol)} URLs`, {
      hint: "a page opens http:, https:, data: and blob: URLs; a file on disk comes from an <input type=file>",
    });
  }
  return decodeImage(await fetchImage(url), imageName(url), options);
}
