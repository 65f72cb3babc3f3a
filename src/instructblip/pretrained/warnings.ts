/** Warnings to the user. Nothing else in the library prints. */

import type { WarningListener } from "../generation/types.ts";

/** A model's warnings, each reported once, so that a loop over many images does not repeat it. */
export class Warnings {
  /** Most warnings that are remembered: more than there are, unless messages contain varying numbers. */
  static readonly #MOST = 1000;
  readonly #told = new Set<string>();
  readonly #listener: WarningListener | null;

  /** @param listener null: warnings are dropped; default: console.warn */
  constructor(listener: WarningListener | null = (message) => console.warn(`instructblip-webgpu: ${message}`)) {
    this.#listener = listener;
  }

  /** Awaits a listener that returns a promise, so that its rejection reaches the caller. */
  async tell(messages: readonly string[]): Promise<void> {
    for (const message of messages) {
      if (!this.#listener || this.#told.has(message) || this.#told.size >= Warnings.#MOST) continue;
      this.#told.add(message);
      await this.#listener(message);
    }
  }
}
