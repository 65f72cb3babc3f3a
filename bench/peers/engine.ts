/** The interface of an engine, and the messages between its process and the main one. */
import type { Machine } from "../rows.ts";
import type { Job, Order } from "./jobs.ts";

/** The engines, in the order of a round. `webgpu`: on the same adapter as ours. */
export const ENGINES = {
  ours: { title: "this project", webgpu: true },
  onnxruntime: { title: "ONNX Runtime", webgpu: true },
  jax: { title: "jax-js", webgpu: true },
  tfjs: { title: "TensorFlow.js", webgpu: true },
  onnxruntime_cpu: { title: "ONNX Runtime CPU", webgpu: false },
} as const;
export type EngineName = keyof typeof ENGINES;
export const ENGINE_NAMES = Object.keys(ENGINES) as EngineName[];

/** An engine with its device open. */
export interface Engine {
  readonly version: string;
  /** Its adapter, if known. */
  readonly adapter: string;
  /** Of ours: the machine. */
  readonly machine?: Machine;
  /** The ways to do a job with the engine's public interface; the fastest is measured. Empty: not supported. */
  ways(job: Job): readonly Way[];
}

export interface Way {
  readonly name: string;
  readonly order?: Order;
  /** Uploads inputs and weights. */
  open(): Promise<Opened>;
}

/** A job whose inputs and weights are on the device. */
export interface Opened {
  /** Does the job once, without waiting for the device unless the engine does. The result stays on the device. */
  run(): void | Promise<void>;
  /** Resolves when all runs are done. */
  sync(): Promise<void>;
  /** Does the job and fetches its result. */
  output(): Promise<Float32Array>;
  /** Milliseconds of GPU time of one run, by timestamps. */
  gpuTime?(repetitions: number): Promise<number | null>;
  close(): void | Promise<void>;
}

/** The requests to an engine's process; each is answered before the next. */
export type Request =
  | { readonly do: "open"; readonly job: Job }
  | { readonly do: "time"; readonly repetitions: number }
  | { readonly do: "gpu"; readonly repetitions: number }
  | { readonly do: "close" };

/** The responses by request; `hello` is sent first, without a request. */
export interface Answers {
  hello: { readonly version: string; readonly adapter: string; readonly machine?: Machine };
  /** `share` of the tolerance; null: no way worked, for the reason in `note`; without a note the job is not supported. */
  open: {
    readonly way: string;
    readonly share: number | null;
    readonly first_ms: number | null;
    /** Milliseconds of one warm run. */
    readonly warm_ms: number | null;
    readonly note?: string;
  };
  time: { readonly wall: number; readonly cpu: number };
  gpu: { readonly ms: number | null };
  close: object;
}

export type Answer =
  | { readonly [K in keyof Answers]: { readonly to: K } & Answers[K] }[keyof Answers]
  | { readonly to: "error"; readonly message: string };
