/** The page's end: the library's names, whose work is done in a worker. */

import { TextIteratorStreamer as LocalStreamer, type Streamer } from "../instructblip/generation/streamer.ts";
import { parseHubId } from "../instructblip/pretrained/hub/hub.ts";
import { isDrawable, readDrawable } from "../instructblip/processing/image_drawable.ts";
import type { Caps } from "../tensor/device/caps.ts";
import type { DeviceOptions } from "../tensor/device/open_device.ts";
import { DeviceError, InputError } from "../tensor/errors.ts";
import { errorOf, type Failure } from "../tensor/failure.ts";
import { shown } from "../tensor/shown.ts";
import type { Calls, FromWorker, LibraryCalls, ListenerNews, Place, Remote, ToWorker } from "./messages.ts";
import type {
  RemoteFrom,
  RemoteModel,
  RemoteModelOptions,
  RemoteProcessor,
  RemoteProcessorOptions,
  RemoteTokenizer,
  TextStream,
} from "./remote_types.ts";

/** The part of a Worker that is used; a MessagePort has it too. */
export interface WorkerLike {
  postMessage(message: unknown): void;
  addEventListener(kind: "message" | "error" | "messageerror", listener: (event: Event) => void): void;
  /** Starts the delivery of a port's messages. */
  start?(): void;
  terminate?(): void;
}

/** What a page hears of a call, and stops it with. */
export interface CallOptions<News> {
  tell?: ((news: News) => void) | undefined;
  signal?: AbortSignal | undefined;
}

interface Waiting {
  readonly tell: (news: never) => void;
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
  readonly signal: AbortSignal | undefined;
  /** Stops listening to the signal. */
  readonly release: () => void;
}

/** Numbers in the worker of objects of the page. */
const remotes = new WeakMap<object, Remote>();

const remoteOf = (value: unknown): Remote | undefined =>
  typeof value === "object" || typeof value === "function" ? remotes.get(value as object) : undefined;

/**
 * An async iterable of the answer's text pieces, as the library's own: the worker decodes. Leaving the loop early stops
 * generate().
 */
export class TextIteratorStreamer implements TextStream {
  readonly tokenizer: RemoteTokenizer;
  readonly options: { readonly skip_prompt?: boolean; readonly skip_special_tokens?: boolean };
  readonly #pieces = new LocalStreamer({ decodeStream: () => ({ push: (id) => this.#texts[id]!, finish: () => "" }) });
  /** Pieces by number, as the ids of a decoder. */
  readonly #texts: string[] = [];

  constructor(tokenizer: RemoteTokenizer, options: { skip_prompt?: boolean; skip_special_tokens?: boolean } = {}) {
    if (!remoteOf(tokenizer?.processor)) {
      const hint = "that of a processor of the same worker: processor.tokenizer";
      throw new InputError("BAD_INPUT", `TextIteratorStreamer needs a tokenizer, got ${shown(tokenizer)}`, { hint });
    }
    this.tokenizer = tokenizer;
    this.options = options;
  }

  /** Whether the reader has stopped. */
  get cancelled(): boolean {
    return this.#pieces.cancelled;
  }

  text(piece: string): void {
    this.#pieces.put([[this.#texts.push(piece) - 1]]);
  }

  end(error?: unknown): void {
    this.#pieces.end(error);
  }

  [Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    return this.#pieces[Symbol.asyncIterator]();
  }
}

/** A worker, and the calls that wait for it. */
export class WorkerClient<C extends Calls = Record<never, never>> {
  /** Called when the GPU device is lost: models of the worker are gone; one loaded now gets a new device. */
  onlost: ((error: Error) => void) | undefined;
  readonly #worker: WorkerLike;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;
  #gone: DeviceError | undefined;

  constructor(worker: WorkerLike) {
    this.#worker = worker;
    worker.addEventListener("message", (event) => this.#receive((event as MessageEvent<FromWorker>).data));
    worker.addEventListener("error", (event) => {
      const { message } = event as ErrorEvent;
      this.#end(`the worker has ended: ${message || "its script cannot be loaded"}`);
    });
    worker.addEventListener("messageerror", () => this.#end("the worker has sent what cannot be read"));
    worker.start?.();
  }

  readonly AutoProcessor = {
    /** @throws as the library's; DeviceError WORKER_GONE */
    from_pretrained: async (from: RemoteFrom, options: RemoteProcessorOptions = {}): Promise<RemoteProcessor> => {
      const { given, listeners, tell, signal } = split("from_pretrained", options);
      const asked = { from: placeOf(from), options: given, listeners };
      const { remote, facts } = await this.#ask("load_processor", asked, { tell, signal });
      const processor = async (input: object) => {
        return this.#ask("process", { processor: { remote }, given: [await postable(input)] });
      };
      const batch_decode = (rows: unknown, decoding?: object) =>
        this.#ask("decode", { processor: { remote }, given: [rows, decoding] });
      const made = Object.assign(processor, facts, {
        batch_decode,
        decode: async (ids: unknown, decoding?: object) => (await batch_decode([ids], decoding))[0]!,
        dispose: async () => void (await this.#ask("dispose", { remote })),
      }) as unknown as RemoteProcessor & { tokenizer: RemoteTokenizer };
      remotes.set(made, { remote });
      made.tokenizer = { processor: made };
      remotes.set(made.tokenizer, { remote });
      return made;
    },
  };

  readonly AutoModelForImageTextToText = {
    /** @throws as the library's; InputError UNSUPPORTED_OPTION for `device`; DeviceError WORKER_GONE */
    from_pretrained: async (from: RemoteFrom, options: RemoteModelOptions = {}): Promise<RemoteModel> => {
      if ((options as { device?: unknown }).device) {
        throw new InputError("UNSUPPORTED_OPTION", "from_pretrained: a worker's models are on the worker's own device");
      }
      const { given, listeners, tell, signal } = split("from_pretrained", options);
      const asked = { from: placeOf(from), options: given, listeners };
      const { remote, facts } = await this.#ask("load_model", asked, { tell, signal });
      const made = {
        ...facts,
        generate: (...all: object[]) => this.#generate("generate", { remote }, all),
        rank_answers: (...all: object[]) => this.#generate("rank_answers", { remote }, all),
        dispose: async () => void (await this.#ask("dispose", { remote })),
      } as unknown as RemoteModel;
      remotes.set(made, { remote });
      return made;
    },
  };

  /** Opens the worker's device, unless it is open; models are loaded onto it. @returns its capabilities */
  async openDevice(options: Omit<DeviceOptions, "adapter"> = {}): Promise<Caps> {
    return (await this.#ask("openDevice", options)) as Caps;
  }

  /**
   * A call of the application's own; see answerCalls(). Models and processors may be given where they are properties.
   *
   * @throws what the handler throws, of the same class and code
   */
  call<N extends keyof C & string>(
    name: N,
    asked: C[N]["asked"],
    options: CallOptions<C[N]["news"]> = {},
  ): Promise<C[N]["result"]> {
    return this.#post(name, withRemotes(asked), options as CallOptions<unknown>).answer;
  }

  /** Ends the worker and frees what it holds. Calls that wait reject with WORKER_GONE. */
  terminate(): void {
    this.#worker.terminate?.();
    this.#end("the worker was ended");
  }

  async #generate(name: "generate" | "rank_answers", model: Remote, all: readonly object[]): Promise<unknown> {
    const { streamer, ...options } = Object.assign({}, ...all) as { streamer?: Streamer | TextIteratorStreamer | null };
    const { given, listeners, tell, signal } = split(name, options);
    const isText = streamer instanceof TextIteratorStreamer;
    const { tokenizer, options: decoding } = isText ? streamer : { tokenizer: undefined, options: {} };
    const processor = remoteOf(tokenizer);
    const stream = processor ? { processor, options: decoding } : streamer ? ("ids" as const) : undefined;
    let call: { readonly id: number; readonly answer: Promise<unknown> } | undefined;
    const stop = () => {
      if (streamer?.cancelled && call) this.#worker.postMessage({ id: call.id, cancel: true } satisfies ToWorker);
    };
    const hear = (news: ListenerNews) => {
      const [kind, value] = news as [string, never];
      if (kind === "text") (streamer as TextIteratorStreamer).text(value);
      else if (kind === "put") (streamer as Streamer).put(value);
      else if (kind === "best") (streamer as Streamer).best?.(value);
      else tell(news);
      stop();
    };
    try {
      const asked = { model, given: withRemotes(given) as Record<string, unknown>, listeners, stream };
      call = this.#post(name, asked, { tell: hear as (news: unknown) => void, signal });
      const answer = await call.answer;
      streamer?.end();
      return answer;
    } catch (error) {
      streamer?.end(error);
      throw error;
    }
  }

  #ask<N extends keyof LibraryCalls>(
    name: N,
    asked: LibraryCalls[N]["asked"],
    options: CallOptions<LibraryCalls[N]["news"]> = {},
  ): Promise<LibraryCalls[N]["result"]> {
    const { answer } = this.#post(name, asked, options as CallOptions<unknown>);
    return answer as Promise<LibraryCalls[N]["result"]>;
  }

  #post(
    name: string,
    asked: unknown,
    { tell = () => {}, signal }: CallOptions<unknown>,
  ): { readonly id: number; readonly answer: Promise<never> } {
    const id = this.#next++;
    const answer = new Promise<never>((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#gone) throw this.#gone;
      post(this.#worker, { id, name, asked });
      const abort = () => this.#worker.postMessage({ id, abort: true } satisfies ToWorker);
      const release = () => signal?.removeEventListener("abort", abort);
      this.#waiting.set(id, { tell, resolve, reject, signal, release });
      signal?.addEventListener("abort", abort);
    });
    return { id, answer };
  }

  #receive(message: FromWorker): void {
    if ("lost" in message) {
      this.onlost?.(errorOf(message.lost));
      return;
    }
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return;
    if ("news" in message) {
      try {
        waiting.tell(message.news as never);
      } catch (error) {
        // A listener of the page's has failed: the call fails, as it would without a worker.
        this.#settled(message.id, waiting);
        this.#worker.postMessage({ id: message.id, abort: true } satisfies ToWorker);
        waiting.reject(error);
      }
      return;
    }
    this.#settled(message.id, waiting);
    if ("failure" in message) waiting.reject(rejectionOf(message.failure, waiting.signal));
    else waiting.resolve(message.result as never);
  }

  #settled(id: number, { release }: Waiting): void {
    this.#waiting.delete(id);
    release();
  }

  #end(message: string): void {
    this.#gone ??= new DeviceError("WORKER_GONE", message, { hint: "start another worker, and load the model there" });
    for (const [id, waiting] of this.#waiting) {
      this.#settled(id, waiting);
      waiting.reject(this.#gone);
    }
  }
}

/** Connects to a worker whose script calls answerCalls(). */
export function connect<C extends Calls = Record<never, never>>(worker: WorkerLike): WorkerClient<C> {
  return new WorkerClient<C>(worker);
}

function rejectionOf(failure: Failure, signal: AbortSignal | undefined): unknown {
  return failure.aborted && signal?.aborted ? signal.reason : errorOf(failure);
}

/** @throws InputError WORKER_CLONE, which names what cannot be posted */
function post(worker: WorkerLike, message: ToWorker): void {
  try {
    worker.postMessage(message);
  } catch (cause) {
    const where = ("asked" in message && unpostable(message.asked)) || "an argument";
    throw new InputError("WORKER_CLONE", `${where} cannot be posted to a worker`, {
      hint: "functions and objects with methods stay where they are; give numbers, texts, blobs and arrays",
      cause,
    });
  }
}

/** The path of the first value that cannot be posted. */
function unpostable(value: unknown, path = ""): string | undefined {
  const isPlain = value !== null && typeof value === "object";
  if (isPlain && (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype)) {
    for (const [key, below] of Object.entries(value)) {
      const found = unpostable(below, path === "" ? key : `${path}.${key}`);
      if (found) return found.replace(/^(options|given)\./, "");
    }
    return undefined;
  }
  try {
    structuredClone(value);
    return undefined;
  } catch {
    return path;
  }
}

/** Objects of the worker by their numbers, where they are properties. */
function withRemotes(asked: unknown): unknown {
  if (asked === null || typeof asked !== "object" || Object.getPrototypeOf(asked) !== Object.prototype) return asked;
  return Object.fromEntries(Object.entries(asked).map(([name, value]) => [name, remoteOf(value) ?? value]));
}

/** The options of a call: what is posted, the names of listeners, which stay here, and the signal. */
function split(name: string, options: object) {
  const { signal, ...all } = options as { readonly signal?: AbortSignal | null } & Record<string, unknown>;
  const listeners: Record<string, (...given: unknown[]) => void> = {};
  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(all)) {
    if (typeof value === "function" && key.startsWith("on_")) listeners[key] = value as () => void;
    else if (typeof value === "function" && !remoteOf(value)) {
      throw new InputError("WORKER_CLONE", `${name}: ${key} cannot be posted to a worker: it is a function`);
    } else given[key] = value;
  }
  const tell = ([key, ...rest]: ListenerNews) => listeners[key]?.(...rest);
  return { given, listeners: Object.keys(listeners), tell, signal: signal ?? undefined };
}

/** A place as it can be posted; URLs are relative to the page, not to the worker's script. */
function placeOf(from: RemoteFrom): Place {
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

/** A processor's input with images that can be posted: those of a page's elements are read here. */
async function postable(input: object): Promise<object> {
  const { images, ...rest } = input as { readonly images?: unknown };
  if (images === undefined) return rest;
  const one = async (image: unknown): Promise<unknown> => {
    if (Array.isArray(image)) return Promise.all(image.map(one));
    if (isDrawable(image)) return readDrawable(image, "image");
    const base = globalThis.document?.baseURI;
    if (image instanceof URL) return image.href;
    return typeof image === "string" && URL.canParse(image, base) ? new URL(image, base).href : image;
  };
  return { ...rest, images: await one(images) };
}
