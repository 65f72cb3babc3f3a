/**
 * Empty submits while a program waits for the GPU. Firefox asks its driver only every 100 ms whether work is done, and at each submit:
 * a read that takes 100 ms takes 1 ms with them (`npm run browser:check`, Firefox 153).
 */

/** Milliseconds between two submits; browsers make it 4 in long chains. */
const PAUSE_MS = 1;

export class Nudge {
  readonly #queue: GPUQueue;
  readonly #isNeeded: boolean;
  #waits = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param isNeeded default: in Firefox alone. There is no feature by which it could be told. */
  constructor(queue: GPUQueue, isNeeded: boolean = /\bFirefox\//.test(globalThis.navigator?.userAgent ?? "")) {
    this.#queue = queue;
    this.#isNeeded = isNeeded;
  }

  /** Submits nothing, again and again, until the promise is settled. @returns the promise */
  during<T>(promise: Promise<T>): Promise<T> {
    if (!this.#isNeeded) return promise;
    this.#waits++;
    if (this.#waits === 1) this.#submit();
    const ended = () => {
      this.#waits--;
      if (this.#waits === 0) clearTimeout(this.#timer);
    };
    promise.then(ended, ended);
    return promise;
  }

  #submit(): void {
    this.#queue.submit([]);
    this.#timer = setTimeout(() => this.#submit(), PAUSE_MS);
  }
}
