/**
 * Observers: every module's output under its checkpoint path, as PyTorch's forward hooks give it, and the hidden states and
 * attention maps of Hugging Face's outputs. What no observer wants is not computed, and fusion (tensor/fuse.ts) is broken
 * only at observed outputs.
 */

import type { Storage } from "../tensor/device/memory.ts";
import type { ActivationDType } from "../tensor/dtype.ts";
import { argmax } from "../tensor/ops/argmax.ts";
import { contiguous } from "../tensor/ops/copy.ts";
import { scale } from "../tensor/ops/scale.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Device, type ObservedKind, type Observer, type StateKind, storagesIn } from "../tensor/tensor.ts";

/** Sees an output; a tensor that it returns replaces the output. */
export type SeeOutput = (path: string, output: Tensor<ActivationDType>) => Tensor<ActivationDType> | undefined;

/** Runs `fn` with one more observer. */
export function withObserver<T>(device: Device, observer: Observer, fn: () => T, { first = false } = {}): T {
  const before = device.observers;
  device.observers = first ? [observer, ...before] : [...before, observer];
  const restore = () => {
    device.observers = before;
  };
  let result: T;
  try {
    result = fn();
  } catch (error) {
    restore();
    throw error;
  }
  if (result instanceof Promise) return result.finally(restore) as T;
  restore();
  return result;
}

/**
 * Runs `fn` with exclusive use of the device, with an observer if there is one, and frees what it allocates and does not
 * return.
 */
export function observing<T>(device: Device, observer: Observer | undefined, fn: () => T | Promise<T>): Promise<T> {
  return device.exclusive(async () =>
    observer ? withObserver(device, observer, () => device.scope(fn)) : device.scope(fn),
  );
}

/**
 * An observer of outputs.
 *
 * @param paths patterns of module paths, in which `*` stands for one name and `**` for any number of them. Default: every
 *   output
 */
export function outputObserver(see: SeeOutput, paths?: string | readonly string[]): Observer {
  const wanted = paths === undefined ? undefined : [paths].flat().map(pathPattern);
  return {
    wants: (path, kind) => kind === "output" && (!wanted || wanted.some((pattern) => pattern.test(path))),
    see: (path, _, output) => see(path, output),
  };
}

/** A pattern such as `qformer.encoder.layer.*.attention` as a regular expression over whole paths. */
export function pathPattern(text: string): RegExp {
  const escaped = text.replace(/[.+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replace(/\*\*|\*/g, (stars) => (stars === "**" ? ".*" : "[^.]*"))}$`);
}

/** What an observer keeps of a tensor beyond the scope that it was made in, contiguous; to be disposed, or adopted. */
export function keptCopy<T extends Tensor<ActivationDType>>(x: T): T {
  const whole = contiguous(x) as T;
  whole.device.memory.keep(whole.storage);
  return whole;
}

/** One module's output. */
export interface TracedOutput {
  readonly shape: Shape;
  readonly data: Float32Array | Uint32Array;
}

/**
 * Runs `fn` and returns the outputs of its modules in call order. A module that runs twice appears a second time as
 * `path#2`. Outputs stay on the GPU until `fn` is done.
 *
 * @param also sees each output as well, and may replace it
 * @param paths which outputs, as `outputObserver` takes them. Default: all
 */
export async function traceOutputs<T>(
  device: Device,
  fn: () => T | Promise<T>,
  also?: SeeOutput,
  paths?: string | readonly string[],
): Promise<{ result: T; outputs: Map<string, TracedOutput> }> {
  const kept = new Map<string, Tensor<ActivationDType>>();
  const results = new Set<Storage>();
  const keep: SeeOutput = (path, output) => {
    let key = path;
    for (let n = 2; kept.has(key); n++) key = `${path}#${n}`;
    kept.set(key, keptCopy(output));
    return also?.(key, output);
  };
  try {
    const result = await withObserver(device, outputObserver(keep, paths), fn);
    for (const storage of storagesIn(result)) results.add(storage);
    const outputs = new Map<string, TracedOutput>();
    for (const [path, tensor] of kept) outputs.set(path, { shape: tensor.shape, data: await tensor.read() });
    return { result, outputs };
  } finally {
    for (const tensor of kept.values()) if (!results.has(tensor.storage)) tensor.dispose();
  }
}

/**
 * Runs `fn` and returns the first module, in call order, whose output has a NaN or an infinity; undefined if there is none.
 * Replacements by other observers count. Only a few numbers of each output are kept.
 */
export async function firstNotFinite(device: Device, fn: () => unknown): Promise<string | undefined> {
  const seen: { readonly path: string; readonly ends: Tensor<"u32">[] }[] = [];
  const keepEnds: SeeOutput = (path, x) => {
    if (x.dtype !== "f32" || x.size === 0) return undefined;
    const rows = contiguous(x as Tensor).reshape([-1, x.shape[x.rank - 1] ?? 1]);
    const ends = [argmax(rows), argmax(scale(rows, -1))]; // the largest and the smallest number
    for (const { storage } of ends) device.memory.keep(storage);
    seen.push({ path, ends });
    return undefined;
  };
  try {
    await withObserver(device, outputObserver(keepEnds), () => device.scope(fn));
    for (const { path, ends } of seen) {
      for (const end of ends) {
        const found = await end.read();
        if (found.subarray(found.length / 2).includes(1)) return path;
      }
    }
    return undefined;
  } finally {
    for (const { ends } of seen) for (const end of ends) end.dispose();
  }
}

/** The options of Hugging Face that request them. */
export interface StateOptions {
  /** Also return the input of each layer and the output of the last. */
  output_hidden_states?: boolean | null | undefined;
  /** Also return the attention probabilities of every layer. */
  output_attentions?: boolean | null | undefined;
}

/** Keeps states on the device until they are taken, beyond the scope they were allocated in. */
class StateObserver implements Observer {
  readonly #device: Device;
  readonly #kinds: readonly ObservedKind[];
  #kept: { readonly kind: ObservedKind; readonly path: string; readonly tensor: Tensor }[] = [];

  constructor(device: Device, { output_hidden_states, output_attentions }: StateOptions) {
    this.#device = device;
    this.#kinds = [
      ...(output_hidden_states ? (["hidden_states"] as const) : []),
      ...(output_attentions ? (["attentions", "cross_attentions"] as const) : []),
    ];
  }

  wants(_path: string, kind: ObservedKind): boolean {
    return this.#kinds.includes(kind);
  }

  see(path: string, kind: ObservedKind, tensor: Tensor<ActivationDType>): undefined {
    this.#kept.push({ kind, path, tensor: keptCopy(tensor as Tensor) });
  }

  /** Returns, in order, the states of modules at or below `path`; the current scope owns them. */
  take(kind: StateKind, path: string): Tensor[] {
    const below = (other: string) => path === "" || other === path || other.startsWith(`${path}.`);
    const taken = this.#kept.filter((one) => one.kind === kind && below(one.path));
    this.#kept = this.#kept.filter((one) => !taken.includes(one));
    for (const { tensor } of taken) this.#device.memory.adopt(tensor.storage);
    return taken.map(({ tensor }) => tensor);
  }

  dispose(): void {
    for (const { tensor } of this.#kept) tensor.dispose();
  }
}

/** Runs `fn` and keeps the states that `options` request; it costs nothing if they request none. */
export function observeStates<T>(device: Device, options: StateOptions, fn: () => T): T {
  if (!options.output_hidden_states && !options.output_attentions) return fn();
  const states = new StateObserver(device, options);
  try {
    return withObserver(device, states, fn);
  } finally {
    states.dispose();
  }
}

/** The states of a kind of modules at or below `path` so far; undefined if no observer wants them. */
export function observedStates(device: Device, kind: StateKind, path: string): Tensor[] | undefined {
  const observer = device.observers.findLast((one) => one instanceof StateObserver && one.wants(path, kind));
  return (observer as StateObserver | undefined)?.take(kind, path);
}
