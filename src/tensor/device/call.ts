import type { EngineError } from "../errors.ts";

/**
 * A unit of work on a device, such as one generate(). A GPU error in it is thrown by its own awaits and by no other call's,
 * and its waits can be interrupted.
 */
export class Call {
  /** The first error. */
  failure: EngineError | undefined;
  /** Pending error scopes of the work. None of them rejects. */
  readonly checks = new Set<Promise<void>>();
  /** Rejects the pending waits. */
  readonly waiting = new Set<(reason: unknown) => void>();
  readonly signal: AbortSignal | undefined;
  readonly #onAbort = () => this.interrupt(this.signal?.reason);

  /** @param signal rejects the waits with its reason, until `end` */
  constructor(signal?: AbortSignal | undefined) {
    this.signal = signal;
    signal?.addEventListener("abort", this.#onAbort);
  }

  check(promise: Promise<void>): void {
    const tracked: Promise<void> = promise.catch(() => {}).finally(() => this.checks.delete(tracked));
    this.checks.add(tracked);
  }

  /** Rejects the pending waits with `reason`. */
  interrupt(reason: unknown): void {
    for (const stop of [...this.waiting]) stop(reason);
  }

  /** Waits for `promise`, or rejects on abort. */
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
