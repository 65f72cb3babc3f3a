/**
 * Calls to the driver, and waits for what it promises. What it throws, rejects with or says later of a call is typed here,
 * and becomes the failure of the work it was done for (call.ts).
 */
import { DeviceError, EngineError, KernelError } from "../errors.ts";
import { Call } from "./call.ts";

/** A promise of the driver's, and in words what it is for. */
interface Wait<T> {
  readonly what: string;
  readonly promise: Promise<T>;
  /** Whether it must settle soon after all work has been done. */
  readonly endsWithWork?: boolean;
}

/** After so long a wait the driver is asked whether it is still at work; if it is not, it has as long again to answer. */
const ANSWER_MS = 10_000;
/** What a failure is a consequence of, such as the loss of the device, may be said so much later. */
const CAUSE_MS = 200;

/** A GPUDevice that is asked one thing after the other, for one {@link Call} or another. */
export class Driver {
  readonly handle: GPUDevice;
  /** Set once the device has been destroyed, which is for good. */
  destroyed = false;
  /** Why the device is no more. */
  lost: EngineError | undefined;
  /** What is done outside of any other call. */
  #outside = new Call();
  /** Whose work is being done. */
  call = this.#outside;
  /** Ends the waits that are under way, of all calls. */
  readonly #waiting = new Set<(error: unknown) => void>();
  readonly #timeoutMs: number;
  readonly #onFailure: () => void;
  readonly #unlisten: () => void;

  /** @param timeout of one wait, in seconds; `onFailure` forgets what may have been made of what is not there */
  constructor(handle: GPUDevice, timeout: number, onFailure: () => void) {
    this.handle = handle;
    this.#timeoutMs = Math.min(1000 * timeout, 2 ** 31 - 1); // a timer's limit
    this.#onFailure = onFailure;
    // The driver holds what listens to it for as long as it lives itself: that must not be the device.
    const self = new WeakRef(this);
    const listener = (event: Event) => {
      event.preventDefault(); // it is thrown by the next await: no need to print it too
      const driver = self.deref();
      if (driver) driver.fail(driver.call, translate((event as GPUUncapturedErrorEvent).error));
    };
    handle.addEventListener("uncapturederror", listener);
    this.#unlisten = () => handle.removeEventListener("uncapturederror", listener);
    void handle.lost.then((info) => {
      const driver = self.deref();
      if (driver) driver.#onLost(info);
    });
  }

  /** Throws what went wrong outside of any call. */
  async ready(): Promise<void> {
    await this.throwFailure(this.#outside);
  }

  /** What is done next is nobody's. */
  leave(): void {
    this.call = this.#outside;
  }

  destroy(): void {
    this.destroyed = true;
    this.handle.destroy();
    this.#unlisten();
  }

  #onLost({ message, reason }: GPUDeviceLostInfo): void {
    this.lost = this.destroyed
      ? new DeviceError("DISPOSED", "the device has been destroyed")
      : new DeviceError("DEVICE_LOST", `the GPU device was lost: ${message || reason}`, {
          hint: "often the driver ran out of memory or a watchdog ended a long kernel; open a new device",
        });
    for (const reject of this.#waiting) reject(this.lost);
  }

  /** After destroy(), or its loss, Dawn accepts every call and drops it, so it must be asked here. */
  alive(): void {
    if (this.destroyed) throw new DeviceError("DISPOSED", "the device has been destroyed");
    if (this.lost) throw this.lost;
  }

  /** @param onRefused called, later, if the GPU had no memory for it */
  createBuffer(descriptor: GPUBufferDescriptor, onRefused?: () => void): GPUBuffer {
    return this.guard("allocating memory", ERRORS, () => this.handle.createBuffer(descriptor), onRefused);
  }

  /**
   * Makes a call to the driver. What it throws comes out typed; what it says later, of the kinds in `filters`, becomes the
   * failure of the call at hand.
   *
   * @param onRefused called when it says so
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

  /** A promise of the driver's, also where asking for it throws. */
  asked<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return ask();
    } catch (cause) {
      return Promise.reject(cause);
    }
  }

  async throwFailure(call: Call): Promise<void> {
    while (call.checks.size > 0) {
      await this.wait(call, { what: "the driver's checks", promise: Promise.all(call.checks), endsWithWork: true });
    }
    if (this.lost) throw this.lost;
    const { failure } = call;
    if (!failure) return;
    if (call === this.#outside) {
      // It has been thrown, by all that waited for it: what comes next begins anew.
      this.#outside = new Call();
      if (this.call === call) this.call = this.#outside;
    }
    throw failure;
  }

  /**
   * What a promise of the driver's gives, if it does so in time, before the device is lost and before somebody ends the
   * wait for `call`: some promises never settle. Not by Promise.race, which would leave something on the promise of the
   * loss at every wait, for the life of the device.
   */
  wait<T>(call: Call, { what, promise, endsWithWork }: Wait<T>, code?: string): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const timers = new Set<ReturnType<typeof setTimeout>>();
      const after = (ms: number, fn: () => void) => timers.add(setTimeout(fn, ms));
      const end = () => {
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

  /** Waits a little for what a rejection may be a consequence of, and which says more. */
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

  /** Notes a failure of a call, and forgets what may have been made of what is not there. */
  fail(call: Call, error: EngineError): void {
    // The first, but for want of memory: that is said later than what a buffer which is none then leads to.
    if (error.code === "GPU_OOM" && call.failure?.code === "GPU_VALIDATION") call.failure = error;
    call.failure ??= error;
    if (this.destroyed || this.lost) return;
    this.#onFailure();
  }
}

/** What a driver may say of a call, but for its own mistakes. The innermost scope is the last. */
export const ERRORS: readonly GPUErrorFilter[] = ["out-of-memory", "validation"];
const TIMEOUT_HINT = { hint: "open a new device; where this was only slow, raise INSTRUCTBLIP_GPU_TIMEOUT (seconds)" };

/** What the driver threw, or rejected with. */
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
