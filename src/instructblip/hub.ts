/**
 * The Hugging Face Hub on paper: what its names look like, what its environment variables mean and what its refusals say.
 * Pure: no file and no network is touched here; hub.node.ts does that.
 */
import { InputError, WeightError } from "../tensor/errors.ts";
import { shown } from "../tensor/shown.ts";

/** A repository at a revision, given as `owner/name` or `owner/name@revision`. */
export interface HubId {
  /** `owner/name` */
  readonly repository: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
}

/** Where the Hub is, unless HF_ENDPOINT says otherwise. */
export const HUB_URL = "https://huggingface.co";

/** A commit by its whole name, which never comes to mean anything else. */
export const COMMIT = /^[0-9a-f]{40}$/;

/**
 * `owner/name[@revision]`, or undefined for what can only be a path. The rules are `validate_repo_id`'s of huggingface_hub,
 * less the bare names of its first models, which cannot be told from a folder.
 */
export function parseHubId(text: string): HubId | undefined {
  const match = /^([^/@]+\/[^/@]+?)(?:@(.*))?$/.exec(text);
  if (!match) return undefined;
  const [, repository, revision = "main"] = match;
  const named = repository.split("/").every((part) => /^\w([\w.-]{0,94}\w)?$/.test(part));
  if (!named || /--|\.\.|\.git$/.test(repository)) return undefined;
  // A revision becomes a file's name below refs/.
  if (!/^\w([\w./-]*\w)?$/.test(revision) || /\.\.|\/\/|\/\.|\.lock$/.test(revision)) return undefined;
  return { repository, revision };
}

/** Where the cache keeps a repository: `models--owner--name`. */
export function repositoryFolder(repository: string): string {
  return ["models", ...repository.split("/")].join("--");
}

/** What the environment says about the Hub. Paths are as given; `undefined` is for whoever knows the file system. */
export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** HF_HUB_CACHE or its old name: the folder of `models--…`. */
  readonly cache: string | undefined;
  readonly home: string | undefined;
  /** XDG_CACHE_HOME, which `huggingface` lies in if there is no HF_HOME. */
  readonly userCache: string | undefined;
  readonly token: string | undefined;
  readonly tokenPath: string | undefined;
  /** Nothing is asked of the Hub. */
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

/** A token without the newline of its file. @throws InputError ENV, without a word of what was in it */
export function cleanToken(text: string, from: string): string | undefined {
  const token = text.trim();
  if (token === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new InputError("ENV", `${from}: this is no access token; it has spaces or other odd characters in it`);
}

/** What was asked for when the Hub refused. */
export interface HubRequest extends HubId {
  readonly endpoint: string;
  /** Undefined where the repository itself was asked about. */
  readonly file?: string;
  readonly hasToken: boolean;
}

/**
 * A refusal in words. The Hub says more in `X-Error-Code` than in the status: 401 without a token is also its answer for
 * what does not exist.
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
