/**
 * Keeping what happens inside a call: the states between layers and what attention looked at. A tracer sees every
 * module's one output and takes fused modules apart for it; a recorder leaves the computation as it is.
 */
import type { Device, Recorder } from "../tensor/device.ts";
import { contiguous } from "../tensor/ops/copy.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Hugging Face's names: what enters each layer and leaves the last one, and softmax's results. */
export type RecordedKind = "hidden_states" | "attentions" | "cross_attentions";

/** As Hugging Face's options ask for it. */
export interface RecordOptions {
  /** Also give what enters each layer and leaves the last one. */
  output_hidden_states?: boolean | null | undefined;
  /** Also give the attention probabilities of every layer. */
  output_attentions?: boolean | null | undefined;
}

/** Keeps tensors on the device until they are taken, whatever scope they were made in. */
class StateRecorder implements Recorder {
  readonly #device: Device;
  readonly #kinds: readonly string[];
  #kept: { readonly kind: string; readonly path: string; readonly tensor: Tensor }[] = [];

  constructor(device: Device, { output_hidden_states, output_attentions }: RecordOptions) {
    this.#device = device;
    this.#kinds = [
      ...(output_hidden_states ? ["hidden_states"] : []),
      ...(output_attentions ? ["attentions", "cross_attentions"] : []),
    ];
  }

  wants(kind: string): boolean {
    return this.#kinds.includes(kind);
  }

  keep(kind: string, path: string, tensor: Tensor): void {
    const whole = contiguous(tensor);
    this.#device.memory.keep(whole.storage);
    this.#kept.push({ kind, path, tensor: whole });
  }

  /** Hands out, in order, what modules at or below `path` recorded; the scope that is open now owns it. */
  take(kind: RecordedKind, path: string): Tensor[] {
    const below = (other: string) => other === path || other.startsWith(`${path}.`);
    const taken = this.#kept.filter((one) => one.kind === kind && below(one.path));
    this.#kept = this.#kept.filter((one) => !taken.includes(one));
    for (const { tensor } of taken) this.#device.memory.adopt(tensor.storage);
    return taken.map(({ tensor }) => tensor);
  }

  dispose(): void {
    for (const { tensor } of this.#kept) tensor.dispose();
  }
}

/** Runs `fn` with a recorder for what `options` ask; it costs nothing where they ask for nothing. */
export function recording<T>(device: Device, options: RecordOptions, fn: () => T): T {
  if (!options.output_hidden_states && !options.output_attentions) return fn();
  const before = device.recorder;
  const recorder = new StateRecorder(device, options);
  device.recorder = recorder;
  try {
    return fn();
  } finally {
    device.recorder = before;
    recorder.dispose();
  }
}

/** What modules at or below `path` have recorded of a kind so far; undefined where nobody asked for it. */
export function recorded(device: Device, kind: RecordedKind, path: string): Tensor[] | undefined {
  const { recorder } = device;
  return recorder instanceof StateRecorder && recorder.wants(kind) ? recorder.take(kind, path) : undefined;
}
