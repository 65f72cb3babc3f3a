/** The platform in a browser: checkpoint folders over HTTP ranges, images through the browser's own decoders. */
import type { CacheFolder } from "../../modules/weight_cache.ts";
import { InputError, WeightError } from "../../tensor/errors.ts";
import { fetchLimited, urlName, urlPlace } from "../../tensor/files/fetch_limited.ts";
import { decodeUtf8, type Folder, HttpFolder, type HttpOptions } from "../../tensor/files/source.ts";
import { bounded, quote } from "../../tensor/shown.ts";
import { decodeImage } from "../processing/image.browser.ts";
import type { DecodeOptions, RgbImage } from "../processing/image.ts";
import { bytesOfDataUrl, fetchImage } from "../processing/image_source.ts";
import type { HubId, OpenFolderOptions } from "./hub/hub.ts";
import { atRevision, COMMIT, cleanToken, hubRefusal, hubSettings, parseHubId, parseHubUrl } from "./hub/hub.ts";
import type { CachedFolderOptions } from "./opfs/cached_folder.ts";
import { OpfsCache } from "./opfs/opfs_cache.ts";

/**
 * A model of the Hub by its id, `owner/name[@revision]`, or by its page's URL; a folder by its URL, which may be relative to the
 * page: `./models/name`.
 */
export async function openFolder(where: string, options: OpenFolderOptions = {}): Promise<Folder> {
  if (options.cache_dir !== undefined) {
    throw new InputError("UNSUPPORTED_OPTION", "from_pretrained: cache_dir is not for browsers", {
      hint: 'cache: "opfs" keeps the files',
    });
  }
  if (options.local_files_only && options.cache === undefined) {
    throw new InputError("UNSUPPORTED_OPTION", 'from_pretrained: local_files_only needs cache: "opfs" in a browser');
  }
  const { endpoint } = hubSettings(options.endpoint === undefined ? {} : { HF_ENDPOINT: options.endpoint });
  const base = globalThis.location?.href;
  const id = parseHubId(where);
  if (!id && !URL.canParse(where, base)) {
    throw new InputError("FOLDER_SOURCE", `${bounded(where, 200)}: this is neither a URL nor a model of the Hub`, {
      hint: "give the URL of a folder, or owner/name",
    });
  }
  const asked = id ?? parseHubUrl(new URL(where, base).href, endpoint);
  if (asked) return openHub(atRevision(asked, options.revision), endpoint, options);
  const url = new URL(where, base).href;
  for (const name of ["revision", "token", "endpoint"] as const) {
    if (!options[name]) continue;
    throw new InputError("UNSUPPORTED_OPTION", `${urlName(url)}: ${name} is about the Hub, and this URL is not`, {
      hint: "the URL of a model's page is https://huggingface.co/owner/name",
    });
  }
  return openUrl(url, options, await cacheOf(options));
}

/** The cache, if the options ask for one; a warning if there is none here. */
async function cacheOf({ cache }: OpenFolderOptions): Promise<OpfsCache | string | undefined> {
  if (cache === undefined) return undefined;
  try {
    return await OpfsCache.open();
  } catch (error) {
    if (error instanceof WeightError) return `files are not kept: ${error.message}`;
    throw error;
  }
}

async function openUrl(
  url: string,
  { signal, on_download, local_files_only }: OpenFolderOptions,
  cache: OpfsCache | string | undefined,
  more: Pick<CachedFolderOptions, "headers" | "files" | "immutable"> = {},
): Promise<Folder> {
  const { immutable, ...http } = more;
  if (cache instanceof OpfsCache)
    return cache.folder(url, { ...http, immutable, signal, on_download, local_files_only });
  return new HttpFolder(url, { ...http, signal }, cache === undefined ? [] : [cache]);
}

/**
 * A model of the Hub at the commit that its revision has now; if the Hub cannot be reached, that of the last visit, if its files
 * are kept.
 */
async function openHub(id: HubId, endpoint: string, options: OpenFolderOptions): Promise<Folder> {
  const { token, signal } = options;
  const key = typeof token === "string" ? cleanToken(token, "token") : undefined;
  if (token === true) {
    throw new InputError("TOKEN", "token: true stands for a stored token, and a browser has none", {
      hint: "give the token itself",
    });
  }
  const headers: Record<string, string> = key === undefined ? {} : { Authorization: `Bearer ${key}` };
  const cache = await cacheOf(options);
  const { repository, revision } = id;
  const name = `${endpoint}/${repository}@${revision}`;
  const kept = cache instanceof OpfsCache ? await cache.commitOf(name) : undefined;
  let commit = COMMIT.test(revision) ? revision : kept;
  let files: readonly string[] | undefined;
  if (commit === undefined || !(COMMIT.test(revision) || options.local_files_only)) {
    try {
      ({ commit, files } = await factsOf(id, endpoint, { headers, signal }));
      if (cache instanceof OpfsCache) await cache.setCommit(name, commit);
    } catch (error) {
      if (commit === undefined || !(error instanceof WeightError && error.code === "HUB_UNREACHABLE")) throw error;
    }
  }
  return openUrl(`${endpoint}/${repository}/resolve/${commit}`, options, cache, {
    ...{ headers, immutable: true },
    ...(files && { files }),
  });
}

/** Most bytes of the Hub's answer about a model: its list of files is in it. */
const MOST_FACTS = 16 * 2 ** 20;

/** A model at a commit. */
interface HubFacts {
  readonly commit: string;
  /** Undefined if the Hub does not list them. */
  readonly files: readonly string[] | undefined;
}

/** @throws WeightError HUB_… */
async function factsOf(id: HubId, endpoint: string, options: HttpOptions): Promise<HubFacts> {
  const { repository, revision } = id;
  const url = `${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}`;
  const { response, bytes, end } = await fetchLimited(url, {
    ...options,
    maxBytes: MOST_FACTS,
    error: (code, message, more) =>
      code === "IO"
        ? new WeightError("HUB_UNREACHABLE", `${repository}: the Hub cannot be reached`, {
            hint: `is there a network? ${new URL(endpoint).host} was asked`,
            ...more,
          })
        : new WeightError(code, `${repository}: ${message}`, more),
  });
  try {
    if (!response.ok) {
      const asked = { ...id, endpoint, hasToken: options.headers?.Authorization !== undefined };
      throw hubRefusal(response.status, response.headers.get("x-error-code"), asked);
    }
    const { sha, siblings } = parseObject(decodeUtf8(await bytes(), repository));
    if (typeof sha === "string" && COMMIT.test(sha)) {
      const names = Array.isArray(siblings)
        ? siblings.map((one) => (one as { rfilename?: unknown } | null)?.rfilename)
        : [];
      const files = names.filter((file) => typeof file === "string");
      return { commit: sha, files: files.length > 0 ? files : undefined };
    }
    throw new WeightError("HUB_STATUS", `${repository}: the answer to a question about it is not the Hub's`, {
      hint: "is endpoint a server of the Hub's protocol?",
    });
  } finally {
    end();
  }
}

/** The object in a JSON text; an empty one for anything else. */
function parseObject(text: string): { readonly sha?: unknown; readonly siblings?: unknown } {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

export async function createFolder(path: string): Promise<never> {
  throw new InputError("NO_FILES", `${path}: a browser has no folders to write to by name`, {
    hint: "give a WritableFolder",
  });
}

/** For true that of the page's origin. */
export async function cacheFolder(where: true | string): Promise<CacheFolder> {
  if (where === true) return (await OpfsCache.open()).quantized();
  throw new InputError("NO_FILES", "weight_cache: a browser has no folders to write to by name", { hint: "give true" });
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
  return decodeImage(await fetchImage(url), urlPlace(url), options);
}
