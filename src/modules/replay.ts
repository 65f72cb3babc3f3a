/**
 * A decode step that is worked out once: its launches are captured the first time they look as they will go on looking,
 * and run again as they are for every token after.
 */

import { copy } from "../tensor/ops/copy.ts";
import type { Captured, Device, Tensor } from "../tensor/tensor.ts";

export class ReplayedStep {
  readonly #device: Device;
  readonly #step: (tokens: Tensor<"u32">) => Tensor;
  /** Steps taken since `forget`. */
  #steps = 0;
  /** u32[R], where the captured launches read. */
  #tokens: Tensor<"u32"> | undefined;
  #captured: Captured<Tensor> | undefined;

  /** @param step u32[R] -> f32[R, V]: launches alone, whose changing numbers lie in tensors that are changed by launches */
  constructor(device: Device, step: (tokens: Tensor<"u32">) => Tensor) {
    this.#device = device;
    this.#step = step;
  }

  /** @param tokens u32[R] @returns f32[R, V], whose numbers may change at the next run */
  run(tokens: Tensor<"u32">): Tensor {
    // A replay runs no module, so there is nothing to observe in it. One step alone is not worth a capture.
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

  /** To be called when the step's tensors are others than before, or have another number of rows. */
  forget(): void {
    this.#captured?.dispose();
    this.#tokens?.dispose();
    this.#captured = undefined;
    this.#tokens = undefined;
    this.#steps = 0;
  }
}
