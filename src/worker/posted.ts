/** What a page's arguments are in a message: the worker's objects as numbers, places and images as can be posted, listeners as names. */
import { parseHubId } from "../instructblip/pretrained/hub/hub.ts";
import { classOf, isDrawable, readDrawable } from "../instructblip/processing/image_drawable.ts";
import { InputError } from "../tensor/errors.ts";
import { shown } from "../tensor/shown.ts";
import type { ListenerNews, Place, Remote } from "./messages.ts";
import type { RemoteFrom } from "./remote_types.ts";

/** Numbers in the worker of objects of the page. */
const remotes = new WeakMap<object, Remote>();

/** Makes `object` stand for one of the worker. */
export function setRemote<T extends object>(object: T, remote: Remote): T {
  remotes.set(object, remote);
  return object;
}

export function remoteOf(value: unknown): Remote | undefined {
  return typeof value === "object" || typeof value === "function" ? remotes.get(value as object) : undefined;
}

export function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return classOf(value) === "Object" && [Object.prototype, null].includes(Object.getPrototypeOf(value));
}

/** Objects of the worker by their numbers, where they are the value or a property of it. */
export function withRemotes(value: unknown): unknown {
  const remote = remoteOf(value);
  if (remote || !isPlain(value)) return remote ?? value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, remoteOf(one) ?? one]));
}

/** The options of a call, taken apart. */
export interface Split {
  /** What is posted. */
  readonly given: Readonly<Record<string, unknown>>;
  /** Names of listeners, which stay in the page. */
  readonly listeners: readonly string[];
  /** Calls a listener. */
  tell(news: ListenerNews): void;
  readonly signal: AbortSignal | undefined;
}

/**
 * @param name of the call, for messages
 * @throws InputError WORKER_CLONE, which names what has methods and would arrive without them
 */
export function split(name: string, options: object): Split {
  const { signal, ...all } = options as { readonly signal?: AbortSignal | null } & Record<string, unknown>;
  const listeners: Record<string, (...given: unknown[]) => void> = {};
  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(all)) {
    const remote = remoteOf(value);
    if (remote) given[key] = remote;
    else if (typeof value === "function" && key.startsWith("on_")) listeners[key] = value as () => void;
    // Its fields are all that counts of it.
    else if (key === "generation_config" && classOf(value) === "Object") given[key] = { ...(value as object) };
    else {
      const found = withMethods(value, key);
      if (found) {
        throw new InputError(
          "WORKER_CLONE",
          `${name}: ${found.path} cannot be posted to a worker: it is ${found.what}`,
          {
            hint: HINT,
          },
        );
      }
      given[key] = value;
    }
  }
  const tell = ([key, ...rest]: ListenerNews) => listeners[key]?.(...rest);
  return { given, listeners: Object.keys(listeners), tell, signal: signal ?? undefined };
}

const HINT = "answerCalls({ name }) adds calls of your own, which run beside the model in the worker";

/** The first function or object of a class in `value`: a structured clone refuses the one, and the other loses its methods. */
function withMethods(value: unknown, path: string): { readonly path: string; readonly what: string } | undefined {
  if (typeof value === "function") return { path, what: "a function" };
  if (classOf(value) !== "Object" && !Array.isArray(value)) return undefined;
  if (!Array.isArray(value) && !isPlain(value)) return { path, what: "an object with methods" };
  for (const [key, below] of Object.entries(value as object)) {
    if (typeof below !== "object" && typeof below !== "function") continue;
    const found = withMethods(below, `${path}.${key}`);
    if (found) return found;
  }
  return undefined;
}

/** A place as it can be posted; URLs are relative to the page, not to the worker's script. @throws InputError BAD_INPUT */
export function placeOf(from: RemoteFrom): Place {
  const absolute = (url: string | URL) => {
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    return URL.canParse(url, base) ? new URL(url, base).href : String(url);
  };
  if (typeof from === "string") return parseHubId(from) ? from : absolute(from);
  if (from instanceof URL) return from.href;
  if (typeof from !== "object" || from === null) {
    throw new InputError("BAD_INPUT", `from_pretrained: a checkpoint is a Hub id, a URL or files, got ${shown(from)}`);
  }
  if ("url" in from) return { ...from, url: absolute(from.url) };
  if (!(Symbol.iterator in from)) return from;
  return {
    chosen: Array.from(from, (file) => {
      const path = file.webkitRelativePath || `/${file.name}`;
      return { path: path.slice(path.indexOf("/") + 1), file };
    }),
  };
}

/** Options of from_pretrained() with the places of adapters and of a base model as they can be posted. */
export function withPlaces(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { adapter, base_model, ...rest } = options as {
    adapter?: RemoteFrom | readonly RemoteFrom[];
    base_model?: RemoteFrom;
  };
  // A list of files is one adapter, a list of anything else several.
  const isMany = Array.isArray(adapter) && !(adapter.length > 0 && adapter.every((one) => one instanceof Blob));
  const places = isMany
    ? adapter.map(placeOf)
    : (adapter ?? undefined) === undefined
      ? []
      : [placeOf(adapter as RemoteFrom)];
  return {
    ...rest,
    ...(places.length > 0 && { adapter: places }),
    ...((base_model ?? undefined) !== undefined && { base_model: placeOf(base_model!) }),
  };
}

/** Images that can be posted: those of a page's elements are read here. */
export async function postableImages(image: unknown, exif_transpose: boolean): Promise<unknown> {
  if (Array.isArray(image)) return Promise.all(image.map((one) => postableImages(one, exif_transpose)));
  if (isDrawable(image)) return readDrawable(image, "image", { exif_transpose });
  if (classOf(image) === "Response") return (image as Response).blob();
  const base = globalThis.document?.baseURI;
  if (image instanceof URL) return image.href;
  return typeof image === "string" && URL.canParse(image, base) ? new URL(image, base).href : image;
}

/** An argument of a processor or a pipeline, whose images can be posted. */
export async function postableInput(input: unknown, exif_transpose: boolean): Promise<unknown> {
  if (!isPlain(input)) return input;
  const images = Object.entries(input).filter(([key, value]) => IMAGES.includes(key) && value !== undefined);
  const read = await Promise.all(
    images.map(async ([key, value]) => [key, await postableImages(value, exif_transpose)]),
  );
  return { ...input, ...Object.fromEntries(read) };
}

const IMAGES: readonly string[] = ["images", "image"];
