/** A thread that decodes and resizes images, one after the other; image_workers.node.ts starts and ends it. */
import { parentPort, workerData } from "node:worker_threads";
import { type Failure, failureOf } from "../../../tensor/failure.ts";
import type { JsonRecord } from "../../config/json_file.ts";
import { nodePlatform, readNamedImage } from "../../pretrained/platform.node.ts";
import { BlipImageProcessor } from "../../processing/image_processor.ts";
import type { ImageBackend } from "../../processing/resize.ts";

export interface WorkerSettings {
  readonly config: JsonRecord;
  readonly backend: ImageBackend;
  /** What relative paths are relative to. */
  readonly base: string;
}

export interface WorkerTask {
  readonly id: number;
  /** A path or URL, or the bytes of a file. */
  readonly image: string | Uint8Array;
  /** Of bytes, for messages. */
  readonly name: string;
}

export type WorkerAnswer = { readonly id: number } & (
  | { readonly width: number; readonly height: number; readonly data: Uint8Array }
  | { readonly failure: Failure }
);

const { config, backend, base } = workerData as WorkerSettings;
const processor = new BlipImageProcessor(config, undefined, backend);

parentPort!.on("message", async ({ id, image, name }: WorkerTask) => {
  try {
    const found =
      typeof image === "string" ? await readNamedImage(image, { base }) : await nodePlatform.readImage(image, name);
    const { width, height, data } = processor.resized(found);
    const own = data.byteLength === data.buffer.byteLength ? data : data.slice();
    parentPort!.postMessage({ id, width, height, data: own } satisfies WorkerAnswer, [own.buffer as ArrayBuffer]);
  } catch (error) {
    parentPort!.postMessage({ id, failure: failureOf(error) } satisfies WorkerAnswer);
  }
});
