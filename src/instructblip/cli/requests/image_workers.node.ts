/**
 * Images of requests, decoded and resized: in this thread, or ahead in worker threads, with the same bytes and the same
 * errors. Only commands start threads.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { errorOf } from "../../../tensor/failure.ts";
import type { EmbeddedImage } from "../../data/row.ts";
import type { ImageSource } from "../../evaluation/task.ts";
import type { AnyProcessor } from "../../pretrained/auto_processor.ts";
import type { RgbImage } from "../../processing/image.ts";
import type { BlipImageProcessor } from "../../processing/image_processor.ts";
import { imageName } from "../../processing/image_source.ts";
import { readSource } from "../session.node.ts";
import type { WorkerAnswer, WorkerSettings, WorkerTask } from "./image_worker.node.ts";

/** Fewer images are decoded sooner than threads start. */
const FEW = 64;
const MOST_WORKERS = 8;
/** Images that a thread has at a time: one is read while the other is resized. */
const AT_ONCE = 2;
/** Images that are kept, so that one is decoded once for adjacent questions, and their largest size in bytes. */
const MOST_KEPT = 32;
const MOST_BYTES = 2 ** 22;

/** How many threads are of use for that many images; undefined: unknown, of a pipe. */
export function workersFor(images: number | undefined, asked: number | undefined): number {
  if (asked !== undefined) return asked;
  if (images === undefined || images < FEW) return 0;
  return Math.min(MOST_WORKERS, availableParallelism() - 1);
}

export class ImageReader {
  readonly #processor: BlipImageProcessor;
  readonly #base: string;
  readonly #signal: AbortSignal;
  readonly #pool: Pool | undefined;
  readonly #kept = new Map<string, Promise<RgbImage>>();

  /** @param workers 0: in this thread */
  constructor(processor: AnyProcessor, base: string, workers: number, signal: AbortSignal) {
    const parts = processor as { image_processor?: BlipImageProcessor; video_processor?: BlipImageProcessor };
    this.#processor = (parts.image_processor ?? parts.video_processor)!;
    this.#base = base;
    this.#signal = signal;
    const { config, backend } = this.#processor;
    this.#pool = workers === 0 ? undefined : new Pool(workers, { config, backend, base }, signal);
  }

  /** An image of the size of pixel_values. @throws as readSource; the signal's reason */
  read(image: ImageSource): Promise<RgbImage> {
    if (typeof image !== "string") return this.#readNew(image);
    const known = this.#kept.get(image);
    if (known) return known;
    const found = this.#readNew(image);
    this.#kept.set(image, found);
    const drop = () => this.#kept.delete(image);
    found.then(({ data }) => data.length > MOST_BYTES && drop(), drop);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MOST_KEPT) this.#kept.delete(oldest!);
    return found;
  }

  /** Why no more images can be read: a thread has failed. */
  get failure(): { readonly error: unknown } | undefined {
    return this.#pool?.failure;
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    await this.#pool?.close();
  }

  async #readNew(image: ImageSource): Promise<RgbImage> {
    if (!this.#pool)
      return this.#processor.resized(await readSource(image, { base: this.#base, signal: this.#signal }));
    const found = typeof image === "string" ? image : await image.read();
    return this.#pool.run(found, typeof image === "string" ? image : imageName((image as EmbeddedImage).name));
  }
}

interface Waiting {
  readonly image: string | Uint8Array;
  readonly name: string;
  readonly resolve: (image: RgbImage) => void;
  readonly reject: (error: unknown) => void;
}

/** From sources a thread needs the loader of TypeScript, which the process has. */
function startWorker(workerData: WorkerSettings): Worker {
  if (!import.meta.url.endsWith(".ts"))
    return new Worker(new URL("./image_worker.node.js", import.meta.url), { workerData });
  const file = new URL("./image_worker.node.ts", import.meta.url).href;
  const start = `import("tsx/esm/api").then(({ register }) => (register(), import(${JSON.stringify(file)})))`;
  return new Worker(start, { eval: true, workerData });
}

/** Threads, and what they are asked. */
class Pool {
  readonly #workers: { readonly worker: Worker; readonly asked: Map<number, Waiting> }[];
  readonly #queue: Waiting[] = [];
  readonly #signal: AbortSignal;
  readonly #onAbort = () => this.#fail(this.#signal.reason);
  #next = 0;
  failure: { readonly error: unknown } | undefined;

  constructor(count: number, settings: WorkerSettings, signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener("abort", this.#onAbort);
    this.#workers = Array.from({ length: count }, () => {
      const worker = startWorker(settings);
      const asked = new Map<number, Waiting>();
      worker.on("message", (answer: WorkerAnswer) => this.#answered(asked, answer));
      worker.on("error", (error) => this.#fail(error));
      return { worker, asked };
    });
  }

  run(image: string | Uint8Array, name: string): Promise<RgbImage> {
    return new Promise((resolve, reject) => {
      if (this.failure) return reject(this.failure.error);
      this.#queue.push({ image, name, resolve, reject });
      this.#ask();
    });
  }

  async close(): Promise<void> {
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#fail(new Error("the run has ended"));
    await Promise.all(this.#workers.map(({ worker }) => worker.terminate()));
  }

  #ask(): void {
    while (this.#queue.length > 0) {
      const free = this.#workers.reduce((least, one) => (one.asked.size < least.asked.size ? one : least));
      if (free.asked.size >= AT_ONCE) return;
      const waiting = this.#queue.shift()!;
      const id = this.#next++;
      free.asked.set(id, waiting);
      free.worker.postMessage({ id, image: waiting.image, name: waiting.name } satisfies WorkerTask);
    }
  }

  #answered(asked: Map<number, Waiting>, answer: WorkerAnswer): void {
    const waiting = asked.get(answer.id);
    asked.delete(answer.id);
    if ("failure" in answer) waiting?.reject(errorOf(answer.failure));
    else waiting?.resolve({ width: answer.width, height: answer.height, data: answer.data });
    this.#ask();
  }

  /** Everything that is asked fails, now and later. */
  #fail(error: unknown): void {
    this.failure ??= { error };
    const all = [...this.#queue.splice(0), ...this.#workers.flatMap(({ asked }) => [...asked.values()])];
    for (const { asked } of this.#workers) asked.clear();
    for (const { reject } of all) reject(this.failure.error);
  }
}
