/** How long a queue has work: from a submit to the end of all that was submitted. */

export class BusyTime {
  readonly #queue: Pick<GPUQueue, "onSubmittedWorkDone">;
  readonly #now: () => number;
  #left = 0;
  #since = 0;
  #ms = 0;

  /** @param now a clock in milliseconds */
  constructor(queue: Pick<GPUQueue, "onSubmittedWorkDone">, now: () => number = () => performance.now()) {
    this.#queue = queue;
    this.#now = now;
  }

  /** Call it after every submit. */
  submitted(): void {
    if (this.#left++ === 0) this.#since = this.#now();
    const done = () => {
      if (--this.#left === 0) this.#ms += this.#now() - this.#since;
    };
    this.#queue.onSubmittedWorkDone().then(done, done); // a lost device has no work
  }

  /** Milliseconds so far. */
  read(): number {
    return this.#ms + (this.#left > 0 ? this.#now() - this.#since : 0);
  }
}
