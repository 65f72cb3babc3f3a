/**
 * Backoff of dawn-node's polling, on software adapters. dawn-node (0.6.2) polls the driver in every iteration of the event loop while
 * a promise is pending, which takes a whole core: one less to compute on.
 */

/** A sleep lasts this share of the wait so far: the most by which it can lengthen it. */
const SHARE = 0.1;
/** The longest sleep, in milliseconds: what else the process does is held up for no longer. */
const LONGEST_MS = 0.5;
/** Before, in milliseconds, nothing sleeps: of short waits, such as a small model's decoding steps, waking takes too large a part. */
const FIRST_MS = 3;

export type Sleep = (ms: number) => void;

export class Backoff {
  readonly #sleep: Sleep | undefined;
  readonly #now: () => number;
  readonly #waits = new Set<object>();
  /** When the last wait began. */
  #started = 0;
  #isScheduled = false;

  /** @param sleep undefined: never */
  constructor(sleep: Sleep | undefined, now: () => number = () => performance.now()) {
    this.#sleep = sleep;
    this.#now = now;
  }

  /** A wait begins. @returns what ends it */
  begin(): () => void {
    if (!this.#sleep) return nothing;
    const wait = {};
    this.#started = this.#now();
    this.#waits.add(wait);
    if (!this.#isScheduled) this.#schedule(this.#sleep);
    return () => void this.#waits.delete(wait);
  }

  /** In the next iteration of the event loop, and so on while anything waits. */
  #schedule(sleep: Sleep): void {
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#waits.size === 0) return;
      const waited = this.#now() - this.#started;
      if (waited >= FIRST_MS) sleep(Math.min(LONGEST_MS, SHARE * waited));
      this.#schedule(sleep);
    }).unref();
  }
}

const nothing = () => {};

/** How the thread sleeps; undefined where nothing polls, in browsers, or where it may not. */
export function threadSleep(): Sleep | undefined {
  if (!globalThis.process?.versions?.node || typeof setImmediate !== "function") return undefined;
  const cell = new Int32Array(new SharedArrayBuffer(4));
  try {
    Atomics.wait(cell, 0, 1, 0); // Electron's page throws
  } catch {
    return undefined;
  }
  return (ms) => void Atomics.wait(cell, 0, 0, ms);
}
