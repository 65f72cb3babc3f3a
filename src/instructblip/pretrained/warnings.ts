/** What is odd but harmless, and how whoever it concerns comes to know of it. Nothing else in the library prints. */

import type { WarningListener } from "../generation/types.ts";

/** A model's warnings: each is told once, so that a loop over many images is not a loop over one warning. */
export class Warnings {
  /** More than there are, unless messages have ever new numbers in them. */
  static readonly #MOST = 1000;
  readonly #told = new Set<string>();
  readonly #listener: WarningListener | null;

  /** @param listener null: nobody; default: the console, as a warning */
  constructor(listener: WarningListener | null = (message) => console.warn(`instructblip-webgpu: ${message}`)) {
    this.#listener = listener;
  }

  /** Waits for a listener that answers with a promise, so that what it rejects with is its caller's. */
  async tell(messages: readonly string[]): Promise<void> {
    for (const message of messages) {
      if (!this.#listener || this.#told.has(message) || this.#told.size >= Warnings.#MOST) continue;
      this.#told.add(message);
      await this.#listener(message);
    }
  }
}
