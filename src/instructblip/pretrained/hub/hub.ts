/**
 * The Hugging Face Hub's conventions: names, environment variables and refusals. Pure: without files or network, which
 * folder.node.ts accesses.
 */
import { InputError, WeightError } from "../../../tensor/errors.ts";
import { quote, shown } from "../../../tensor/shown.ts";

/** A repository at a revision, given as `owner/name` or `owner/name@revision`. */
export interface HubId {
  /** `owner/name` */
  readonly repository: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** Whether the revision is the default. */
  readonly isDefault?: boolean;
}

/** Progress of one file. */
export interface DownloadProgress {
  readonly file: string;
  /** Bytes on disk, those of an earlier run included. */
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

export interface OpenFolderOptions {
  /** Called while a file of the Hugging Face Hub is downloaded. */
  on_download?: ((progress: DownloadProgress) => void) | undefined;
  /** Aborts a download. */
  signal?: AbortSignal | undefined;
  /** A branch, a tag or a commit of a model of the Hub. Default "main". A local folder ignores it, as in HF. */
  revision?: string | undefined;
  /** The Hub's access token; false: none is sent. Default, and for true: HF_TOKEN, or what `hf auth login` stored (Node). */
  token?: string | boolean | undefined;
  /** The cache folder of the Hub (Node). Default: HF_HUB_CACHE, else `hub` in HF_HOME. */
  cache_dir?: string | undefined;
  /** Uses cached files only; in a browser with `cache`. Default false. */
  local_files_only?: boolean | undefined;
  /**
   * "opfs" keeps the files of a URL or of a model of the Hub in the browser's origin private file system, see OpfsCache: a
   * download is resumed, and later visits load what is kept (browsers). Default: files are read from the server, and not kept.
   */
  cache?: "opfs" | undefined;
  /** The Hub's server, such as a mirror. Default: HF_ENDPOINT (Node), else https://huggingface.co. */
  endpoint?: string | undefined;
}

/** The Hub's URL, unless HF_ENDPOINT is set. */
export const HUB_URL = "https://huggingface.co";

/** A full commit hash, which never changes its meaning. */
export const COMMIT = /^[0-9a-f]{40}$/;

/**
 * `owner/name[@revision]`, or undefined for a path. The rules are those of `validate_repo_id` of huggingface_hub, without
 * bare names, which cannot be distinguished from a folder.
 */
export function parseHubId(text: string): HubId | undefined {
  const [, repository, given] = /^([^/@]+\/[^/@]+?)(?:@(.*))?$/.exec(text) ?? [];
  if (repository === undefined) return undefined;
  const revision = given ?? "main";
  const named = repository.split("/").every((part) => /^\w([\w.-]{0,94}\w)?$/.test(part));
  if (!named || /--|\.\.|\.git$/.test(repository)) return undefined;
  // A revision becomes a file's name below refs/.
  if (!/^\w([\w./-]*\w)?$/.test(revision) || /\.\.|\/\/|\/\.|\.lock$/.test(revision)) return undefined;
  return { repository, revision, ...(given === undefined && { isDefault: true }) };
}

/**
 * An id at the revision of the option `revision`. @throws InputError HUB_ID for two different revisions, or an invalid one
 */
export function atRevision(id: HubId, revision: string | undefined): HubId {
  if (revision === undefined) return id;
  const asked = parseHubId(`${id.repository}@${revision}`);
  if (!asked) {
    throw new InputError("HUB_ID", `revision: ${quote(revision)} cannot be one`, {
      hint: "it is a branch, a tag or a commit",
    });
  }
  if (id.isDefault || asked.revision === id.revision) return asked;
  throw new InputError("HUB_ID", `two different revisions are given: ${quote(id.revision)} and ${quote(revision)}`, {
    hint: "give one of them",
  });
}

const HUB_HOSTS = ["huggingface.co", "www.huggingface.co", "hf.co"];
/** Other kinds of repositories on the Hub. */
const NOT_MODELS = ["datasets", "spaces", "buckets", "collections", "papers", "docs", "blog", "api"];

/**
 * The model of a URL of the Hub (its page, tree or file); undefined for a URL of another server.
 *
 * @param endpoint of HF_ENDPOINT, whose URLs count as the Hub's
 * @throws InputError HUB_URL for a URL of the Hub that is not of a model
 */
export function parseHubUrl(text: string, endpoint = HUB_URL): HubId | undefined {
  const url = new URL(text);
  const base = new URL(`${endpoint}/`);
  const isMirror = url.origin === base.origin && url.pathname.startsWith(base.pathname);
  if (!isMirror && !HUB_HOSTS.includes(url.host)) return undefined;
  const path = url.pathname.slice(isMirror ? base.pathname.length : 1).replace(/\/+$/, "");
  const [owner = "", name, view, ...rest] = path.split("/").map(decoded);
  let revision: string | undefined;
  if (view !== undefined && ["tree", "blob", "resolve", "raw", "commit"].includes(view)) {
    // refs/pr/1 has slashes; those of other revisions are encoded in URLs.
    revision = rest.splice(0, rest[0] === "refs" ? 3 : 1).join("/");
  } else if (view !== undefined) rest.unshift(view);
  const file = rest.join("/");
  const id =
    NOT_MODELS.includes(owner) || name === undefined
      ? undefined
      : parseHubId(`${owner}/${name}${revision ? `@${revision}` : ""}`);
  // A tab of the page or a file at the top is accepted; a subfolder is not.
  if (id && !file.includes("/") && (view !== "tree" || file === "")) return id;
  throw new InputError("HUB_URL", `${quote(text)} is on the Hub, but is not the page of a model`, {
    hint: id ? "a model's files are at the top of its repository" : `such a page is ${HUB_URL}/owner/name`,
  });
}

/** Decodes a segment of a URL's path; an invalid encoding is left, which is then no valid name. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** A repository's folder in the cache: `models--owner--name`. */
export function repositoryFolder(repository: string): string {
  return ["models", ...repository.split("/")].join("--");
}

/** The Hub's settings from the environment. Paths are as given; `undefined` means the platform's default. */
export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** HF_HUB_CACHE or its old name: the folder of `models--…`. */
  readonly cache: string | undefined;
  readonly home: string | undefined;
  /** XDG_CACHE_HOME, the parent folder of `huggingface` without HF_HOME. */
  readonly userCache: string | undefined;
  readonly token: string | undefined;
  readonly tokenPath: string | undefined;
  /** No requests to the Hub. */
  readonly offline: boolean;
  readonly symlinks: boolean;
}

/** Reads huggingface_hub's variables with its precedence (its constants.py); an empty one counts as absent. @throws InputError ENV */
export function hubSettings(env: Readonly<Record<string, string | undefined>>): HubSettings {
  const first = (...names: string[]) =>
    names.map((name) => env[name]).find((value) => value !== undefined && value !== "");
  const isTrue = (...names: string[]) => /^(1|on|yes|true)$/i.test(first(...names) ?? "");
  const endpoint = (first("HF_ENDPOINT") ?? HUB_URL).replace(/\/+$/, "");
  if (!URL.canParse(endpoint) || !/^https?:/.test(endpoint)) {
    throw new InputError("ENV", `HF_ENDPOINT: must be an http or https URL, got ${shown(endpoint)}`);
  }
  return {
    endpoint,
    cache: first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    home: first("HF_HOME"),
    userCache: first("XDG_CACHE_HOME"),
    token: first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    tokenPath: first("HF_TOKEN_PATH"),
    offline: isTrue("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    symlinks: !isTrue("HF_HUB_DISABLE_SYMLINKS"),
  };
}

/** A token without the newline of its file. @throws InputError ENV, without the token's text */
export function cleanToken(text: string, from: string): string | undefined {
  const token = text.trim();
  if (token === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new InputError("ENV", `${from}: this is no access token; it has spaces or other odd characters in it`);
}

/** The request that the Hub refused. */
export interface HubRequest extends HubId {
  readonly endpoint: string;
  /** Undefined for a request about the repository itself. */
  readonly file?: string;
  readonly hasToken: boolean;
}

/**
 * The error for a refusal. The Hub's `X-Error-Code` is more specific than the status: 401 without a token is also its
 * response for a repository that does not exist.
 *
 * @returns WeightError HUB_GATED, HUB_UNAUTHORIZED, HUB_FORBIDDEN, HUB_REPOSITORY_NOT_FOUND, HUB_REVISION_NOT_FOUND,
 * NOT_FOUND (a file), HUB_BUSY (the same request may succeed later), HUB_STATUS
 */
export function hubRefusal(status: number, errorCode: string | null, request: HubRequest): WeightError {
  const { repository, revision, endpoint, file, hasToken } = request;
  const page = `${endpoint}/${repository}`;
  const logIn = "set HF_TOKEN to a token of an account that may read it, or run `hf auth login`";
  const refusal = (code: string, message: string, hint?: string) =>
    new WeightError(code, `${repository}: ${message}`, { hint });
  if (errorCode === "GatedRepo") {
    const accept = `accept the conditions at ${page}`;
    return refusal(
      "HUB_GATED",
      "this model is given out only to those who have accepted its conditions",
      hasToken ? `${accept} with the account of your token, and try again` : `${accept}, then ${logIn}`,
    );
  }
  if (status === 401) {
    return hasToken
      ? refusal(
          "HUB_UNAUTHORIZED",
          "the Hub does not accept the token",
          "is it expired? HF_TOKEN wins over the file that `hf auth login` writes",
        )
      : refusal(
          "HUB_UNAUTHORIZED",
          "no such folder, and no model on the Hub that may be read without a token",
          `check the name; if it is private, ${logIn}`,
        );
  }
  if (status === 403) return refusal("HUB_FORBIDDEN", "the Hub does not let this account read it", `see ${page}`);
  if (status === 404 || status === 410) {
    if (errorCode === "RevisionNotFound") {
      return refusal("HUB_REVISION_NOT_FOUND", `the Hub has no revision "${revision}" of it`, `see ${page}/commits`);
    }
    if (file !== undefined && errorCode !== "RepoNotFound") {
      return refusal("NOT_FOUND", `no file "${file}" at revision ${revision}`, `see ${page}/tree/${revision}`);
    }
    return refusal(
      "HUB_REPOSITORY_NOT_FOUND",
      "no such folder, and no such model on the Hub",
      hasToken
        ? "check the name; a private model needs a token that may read it"
        : `check the name; if it is private, ${logIn}`,
    );
  }
  const isPassing = status === 408 || status === 429 || status >= 500;
  const answer = `the Hub answers ${status}${file === undefined ? "" : ` for "${file}"`}`;
  return isPassing ? refusal("HUB_BUSY", answer, "try again later") : refusal("HUB_STATUS", answer);
}
