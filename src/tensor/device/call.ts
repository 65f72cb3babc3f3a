import type { EngineError } from "../errors.ts";

/**
 * Work on a device that belongs together, such as one generate(): what goes wrong in it on the GPU is thrown by its own
 * awaits and by nobody else's, and its waits can be ended.
 */
export class Call {
  /** The first thing that went wrong. */
  failure: EngineError | undefined;
  /** What the driver has yet to say about the work. None of them rejects. */
  readonly checks = new Set<Promise<void>>();
  /** Ends the waits that are under way. */
  readonly waiting = new Set<(reason: unknown) => void>();
  readonly signal: AbortSignal | undefined;
  readonly #onAbort = () => this.interrupt(this.signal?.reason);

  /** @param signal ends the waits with its reason, until `end` */
  constructor(signal?: AbortSignal | undefined) {
    this.signal = signal;
    signal?.addEventListener("abort", this.#onAbort);
  }

  check(promise: Promise<void>): void {
    const tracked: Promise<void> = promise.catch(() => {}).finally(() => this.checks.delete(tracked));
    this.checks.add(tracked);
  }

  /** Ends the waits that are under way with this. */
  interrupt(reason: unknown): void {
    for (const stop of [...this.waiting]) stop(reason);
  }

  /** Waits for `promise`, at most until the signal. */
  orStopped(promise: Promise<unknown>): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.signal?.aborted) return reject(this.signal.reason);
      this.waiting.add(reject);
      void promise.then(() => {
        this.waiting.delete(reject);
        resolve();
      });
    });
  }

  end(): void {
    this.signal?.removeEventListener("abort", this.#onAbort);
  }
}
