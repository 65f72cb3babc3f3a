/**
 * Calls to the driver, and waits for its promises. An error that it throws, rejects with or reports later is typed here, and
 * becomes the failure of the call it belongs to (call.ts).
 */
import { DeviceError, EngineError, KernelError } from "../errors.ts";
import type { Backoff } from "./backoff.ts";
import { Call } from "./call.ts";
import { MAP_READ } from "./gpu.ts";
import { Nudge } from "./nudge.ts";

/** A promise of the driver, and what it is for, in words. */
interface Wait<T> {
  readonly what: string;
  readonly promise: Promise<T>;
  /** Whether it must settle soon after all submitted work is done. */
  readonly endsWithWork?: boolean;
}

/** After this long a wait the driver is asked whether it is still working; if it is not, it has as long again to settle. */
const ANSWER_MS = 10_000;
/** The cause of a failure, such as the loss of the device, may be reported this much later. */
const CAUSE_MS = 200;

/**
 * What dawn-node (0.6.2) will still look at, by a pointer that does not keep it alive. It settles the promise of a map at once
 * when the buffer is destroyed, and that of a loss when the device is; when Dawn then calls back it looks whether the promise
 * is settled. Collected before, its memory may be another promise's, which is settled twice: the process dies.
 */
const held = new Set<object>();

/** A GPUDevice whose errors are assigned to {@link Call}s. */
export class Driver {
  readonly handle: GPUDevice;
  /** Whether the device has been destroyed, which is permanent. */
  destroyed = false;
  /** Why the device is lost. */
  lost: EngineError | undefined;
  /** The call of work outside of any other call. */
  #outside = new Call();
  /** The call under way. */
  call = this.#outside;
  /** Rejects the pending waits of all calls. */
  readonly #waiting = new Set<(error: unknown) => void>();
  /** What is to go to the queue, while launches are timed one by one. */
  #behind: Promise<void> | undefined;
  readonly #nudge: Nudge;
  readonly #backoff: Backoff;
  readonly #timeoutMs: number;
  readonly #onFailure: () => void;
  readonly #unlisten: () => void;
  readonly #loss: Promise<GPUDeviceLostInfo>;

  /** @param timeout of one wait, in seconds; `onFailure` drops cached objects that may be invalid */
  constructor(handle: GPUDevice, timeout: number, backoff: Backoff, onFailure: () => void) {
    this.handle = handle;
    this.#nudge = new Nudge(handle.queue);
    this.#backoff = backoff;
    this.#timeoutMs = Math.min(1000 * timeout, 2 ** 31 - 1); // a timer's limit
    this.#onFailure = onFailure;
    // The driver keeps its listeners alive as long as itself: they must not hold the device.
    const self = new WeakRef(this);
    const listener = (event: Event) => {
      event.preventDefault(); // it is thrown by the next await, so it is not printed
      const driver = self.deref();
      if (driver) driver.fail(driver.call, translate((event as GPUUncapturedErrorEvent).error));
    };
    handle.addEventListener("uncapturederror", listener);
    this.#unlisten = () => handle.removeEventListener("uncapturederror", listener);
    this.#loss = handle.lost;
    void this.#loss.then((info) => {
      const driver = self.deref();
      if (driver) driver.#onLost(info);
    });
  }

  /** Throws an error from outside of any call. */
  async ready(): Promise<void> {
    await this.throwFailure(this.#outside);
  }

  /** Ends the call: what follows is outside of any call. */
  leave(): void {
    this.call = this.#outside;
  }

  destroy(): void {
    this.destroyed = true;
    this.#holdUntilCallbacks(this.#loss);
    this.handle.destroy();
    this.#unlisten();
  }

  /** Maps the first `bytes` of a buffer for reading. */
  map(buffer: GPUBuffer, bytes: number): Promise<undefined> {
    const promise = this.awaited(() => buffer.mapAsync(MAP_READ, 0, bytes));
    promise.catch(() => this.#holdUntilCallbacks({ buffer, promise }));
    return promise;
  }

  /** Holds `object` until Dawn has made the callbacks that are due: those of earlier calls come first. */
  #holdUntilCallbacks(object: object): void {
    held.add(object);
    const made = () => void held.delete(object);
    this.asked(() => this.handle.queue.onSubmittedWorkDone()).then(made, made);
  }

  #onLost({ message, reason }: GPUDeviceLostInfo): void {
    this.lost = this.destroyed
      ? new DeviceError("DISPOSED", "the device has been destroyed")
      : new DeviceError("DEVICE_LOST", `the GPU device was lost: ${message || reason}`, {
          hint: "often the driver ran out of memory or a watchdog ended a long kernel; open a new device",
        });
    for (const reject of this.#waiting) reject(this.lost);
    // Frees what the device holds. And dawn-node writes to the promise of the loss when it collects a device that is not
    // destroyed, even if that promise has been collected.
    if (!this.destroyed) this.handle.destroy();
  }

  /** Throws if the device is lost or destroyed: Dawn then accepts every call and drops it. */
  alive(): void {
    if (this.destroyed) throw new DeviceError("DISPOSED", "the device has been destroyed");
    if (this.lost) throw this.lost;
  }

  /** @param onRefused called, later, if the GPU had no memory for it */
  createBuffer(descriptor: GPUBufferDescriptor, onRefused?: () => void): GPUBuffer {
    return this.guard("allocating memory", ERRORS, () => this.handle.createBuffer(descriptor), onRefused);
  }

  /**
   * Calls the driver. An error that it throws is rethrown, typed; one that it reports later, of the kinds in `filters`,
   * becomes the failure of the call under way.
   *
   * @param onRefused called when it reports an error
   */
  guard<T>(what: string, filters: readonly GPUErrorFilter[], fn: () => T, onRefused?: () => void): T {
    const { handle } = this;
    const call = this.call;
    const refused = (error: EngineError) => {
      onRefused?.();
      this.fail(call, error);
    };
    try {
      for (const filter of filters) handle.pushErrorScope(filter);
      try {
        return fn();
      } finally {
        for (const _ of filters) call.check(this.#popErrorScope(refused));
      }
    } catch (cause) {
      throw cause instanceof EngineError ? cause : (this.lost ?? failed(what, cause));
    }
  }

  #popErrorScope(refused: (error: EngineError) => void): Promise<void> {
    return this.asked(() => this.handle.popErrorScope()).then(
      (error) => {
        if (error) refused(translate(error));
      },
      (cause) => refused(failed("the driver's check", cause)),
    );
  }

  /** Runs `fn` as part of `call`. */
  as<T>(call: Call, fn: () => T): T {
    const before = this.call;
    this.call = call;
    try {
      return fn();
    } finally {
      this.call = before;
    }
  }

  /** Resolves when all that is to go to the queue has gone there; undefined if nothing waits. */
  get behind(): Promise<void> | undefined {
    return this.#behind;
  }

  /** Runs what goes to the queue: at once, or when all before it has gone there. */
  inOrder(run: () => void): void {
    if (this.#behind) this.queue(run);
    else run();
  }

  /** Runs `run` when all before it has gone to the queue; what comes later waits until it has ended. */
  queue(run: () => void | Promise<void>): void {
    const { call } = this;
    const mine = (this.#behind ?? Promise.resolve())
      .then(() => this.as(call, run))
      .catch((error) => this.fail(call, error instanceof EngineError ? error : failed("submitting work", error)))
      .then(() => {
        if (this.#behind === mine) this.#behind = undefined;
      });
    this.#behind = mine;
  }

  /** The promise that `ask` returns; a rejected one if it throws. */
  asked<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return ask();
    } catch (cause) {
      return Promise.reject(cause);
    }
  }

  /** As {@link asked}, for a promise of work that the GPU does. */
  awaited<T>(ask: () => Promise<T>): Promise<T> {
    return this.#nudge.during(this.asked(ask));
  }

  async throwFailure(call: Call): Promise<void> {
    while (call.checks.size > 0) {
      await this.wait(call, { what: "the driver's checks", promise: Promise.all(call.checks), endsWithWork: true });
    }
    if (this.lost) throw this.lost;
    const { failure } = call;
    if (!failure) return;
    if (call === this.#outside) {
      // It has been thrown by all that waited for it; the next call starts without it.
      this.#outside = new Call();
      if (this.call === call) this.call = this.#outside;
    }
    throw failure;
  }

  /**
   * Waits for a promise of the driver, with a timeout, until the device is lost or the wait of `call` is interrupted: some
   * promises never settle. Not by Promise.race, which would add a listener to the promise of the loss at every wait, for the
   * life of the device.
   */
  wait<T>(call: Call, { what, promise, endsWithWork }: Wait<T>, code?: string): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const timers = new Set<ReturnType<typeof setTimeout>>();
      const after = (ms: number, fn: () => void) => timers.add(setTimeout(fn, ms));
      const wake = this.#backoff.begin();
      const end = () => {
        wake();
        for (const timer of timers) clearTimeout(timer);
        this.#waiting.delete(stop);
        call.waiting.delete(stop);
      };
      const stop = (reason: unknown) => {
        end();
        reject(reason);
      };
      const timedOut = (reason: string) => stop(new DeviceError("GPU_TIMEOUT", `${what}: ${reason}`, TIMEOUT_HINT));
      promise.then(
        (value) => {
          end();
          resolve(value);
        },
        async (cause) => {
          await this.consequence(call);
          stop(this.lost ?? call.failure ?? failed(what, cause, code));
        },
      );
      if (this.lost) return stop(this.lost);
      if (call.signal?.aborted) return stop(call.signal.reason);
      this.#waiting.add(stop);
      call.waiting.add(stop);
      after(this.#timeoutMs, () => timedOut(`no answer for ${this.#timeoutMs / 1000} s`));
      if (!endsWithWork || this.#timeoutMs <= 2 * ANSWER_MS) return;
      after(ANSWER_MS, () => {
        const idle = () =>
          after(ANSWER_MS, () => timedOut("the GPU has done its work, but the driver does not answer"));
        this.asked(() => this.handle.queue.onSubmittedWorkDone()).then(idle, () => {});
      });
    });
  }

  /** Waits briefly for the cause of a rejection, which is the better error. */
  consequence(call: Call): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, CAUSE_MS);
      this.#waiting.add(done);
      if (this.lost) done();
      void Promise.all(call.checks).then(() => {
        if (call.failure) done();
      });
    });
  }

  /** Sets the failure of a call, and drops cached objects that may be invalid. */
  fail(call: Call, error: EngineError): void {
    // The first error counts, except for out-of-memory: it is reported later than the validation errors that it causes.
    if (error.code === "GPU_OOM" && call.failure?.code === "GPU_VALIDATION") call.failure = error;
    call.failure ??= error;
    if (this.destroyed || this.lost) return;
    this.#onFailure();
  }
}

/** Error scopes of a call; internal errors are not among them. The innermost scope is the last. */
export const ERRORS: readonly GPUErrorFilter[] = ["out-of-memory", "validation"];
const TIMEOUT_HINT = { hint: "open a new device; where this was only slow, raise INSTRUCTBLIP_GPU_TIMEOUT (seconds)" };

/** An error that the driver threw or rejected with, typed. */
function failed(what: string, cause: unknown, code = "GPU"): EngineError {
  const message = `${what} failed: ${cause instanceof Error ? cause.message : String(cause)}`;
  return code === "PIPELINE" ? new KernelError(code, message, { cause }) : new DeviceError(code, message, { cause });
}

function translate(error: GPUError): EngineError {
  if (error.constructor.name === "GPUOutOfMemoryError") {
    return new DeviceError("GPU_OOM", `the GPU ran out of memory: ${error.message}`, {
      hint: "set INSTRUCTBLIP_MEMORY_BUDGET to what the GPU has, so that this is noticed before it happens",
    });
  }
  return new KernelError("GPU_VALIDATION", `the GPU refused a command: ${error.message}`);
}
