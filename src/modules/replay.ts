/**
 * A decode step that is captured once and replayed for every later token. It is captured at the second step, from which on
 * the launches are the same.
 */

import { copy } from "../tensor/ops/copy.ts";
import type { Captured, Device, Tensor } from "../tensor/tensor.ts";

export class ReplayedStep {
  readonly #device: Device;
  readonly #step: (tokens: Tensor<"u32">) => Tensor;
  /** Steps taken since `forget`. */
  #steps = 0;
  /** u32[R], the input of the captured launches. */
  #tokens: Tensor<"u32"> | undefined;
  #captured: Captured<Tensor> | undefined;

  /** @param step u32[R] -> f32[R, V]: launches alone; state that changes must be in tensors that launches change */
  constructor(device: Device, step: (tokens: Tensor<"u32">) => Tensor) {
    this.#device = device;
    this.#step = step;
  }

  /** @param tokens u32[R] @returns f32[R, V], overwritten by the next step */
  run(tokens: Tensor<"u32">): Tensor {
    // A replay runs no module, so it cannot be observed. The first step is not captured: an answer may end there.
    if (this.#device.observers.length > 0 || this.#steps++ === 0) return this.#step(tokens);
    if (this.#captured) {
      copy(tokens, this.#tokens!);
      this.#captured.replay();
    } else {
      this.#tokens ??= this.#device.persistent(tokens.shape, "u32", "tokens");
      copy(tokens, this.#tokens);
      this.#captured = this.#device.capture(() => this.#step(this.#tokens!));
    }
    return this.#captured.result;
  }

  /** Call it when the step's tensors have been replaced, or have another number of rows. */
  forget(): void {
    this.#captured?.dispose();
    this.#tokens?.dispose();
    this.#captured = undefined;
    this.#tokens = undefined;
    this.#steps = 0;
  }
}
