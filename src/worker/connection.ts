/** Calls of a worker by messages, for a page: each has a number, may tell news on the way, and can be aborted. */
import { DeviceError, InputError } from "../tensor/errors.ts";
import { errorOf, type Failure } from "../tensor/failure.ts";
import type { FromWorker, ToWorker } from "./messages.ts";

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

/** A call that was posted. */
export interface Posted<Result> {
  readonly answer: Promise<Result>;
  /** Says that the reader of its news has stopped: no error. */
  cancel(): void;
}

interface Waiting {
  readonly tell: (news: never) => void;
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
  readonly signal: AbortSignal | undefined;
  /** Stops listening to the signal. */
  readonly release: () => void;
}

export class Connection {
  /** Called when the worker's GPU device is lost. */
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

  /** The answer rejects with WORKER_CLONE, WORKER_GONE, the signal's reason, or what the worker throws, of the same class. */
  post<Result, News>(
    name: string,
    asked: unknown,
    { tell = () => {}, signal }: CallOptions<News> = {},
  ): Posted<Result> {
    const id = this.#next++;
    const answer = new Promise<Result>((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#gone) throw this.#gone;
      post(this.#worker, { id, name, asked });
      const abort = () => this.#worker.postMessage({ id, abort: true } satisfies ToWorker);
      const release = () => signal?.removeEventListener("abort", abort);
      this.#waiting.set(id, { tell, resolve, reject, signal, release });
      signal?.addEventListener("abort", abort);
    });
    return { answer, cancel: () => this.#worker.postMessage({ id, cancel: true } satisfies ToWorker) };
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

  /** Ends the worker. Calls that wait reject with WORKER_GONE. */
  terminate(): void {
    this.#worker.terminate?.();
    this.#end("the worker was ended");
  }

  #end(message: string): void {
    this.#gone ??= new DeviceError("WORKER_GONE", message, { hint: "start another worker, and load the model there" });
    for (const [id, waiting] of this.#waiting) {
      this.#settled(id, waiting);
      waiting.reject(this.#gone);
    }
  }
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
      if (found) return found.replace(/^(options|given(\.\d+)?)\./, "");
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
