/**
 * A driver with injected faults: the k-th call of a kind throws, is refused, never settles, or finds the device lost. It
 * wraps a real GPUDevice and its objects.
 */

/** What WebGPU may do to a call. */
export type Fault =
  /** The call throws, or the promise that it gives rejects, with an error that says nothing. */
  | "throw"
  /** As a driver refuses: a buffer for want of memory, a submit as invalid. The error arrives later, in a scope. */
  | "refuse"
  /** The promise never settles. */
  | "hang"
  /** The device is lost just before the call. */
  | "lose";

/** The calls that can fail, and how. */
export const CALLS = {
  createBuffer: ["throw", "refuse", "lose"],
  createShaderModule: ["throw", "lose"],
  createBindGroupLayout: ["throw", "lose"],
  createPipelineLayout: ["throw", "lose"],
  createComputePipeline: ["throw", "lose"],
  createComputePipelineAsync: ["throw", "hang", "lose"],
  createBindGroup: ["throw", "lose"],
  createCommandEncoder: ["throw", "lose"],
  finish: ["throw", "lose"],
  submit: ["throw", "refuse", "lose"],
  writeBuffer: ["throw", "lose"],
  mapAsync: ["throw", "hang", "lose"],
  getMappedRange: ["throw", "lose"],
  onSubmittedWorkDone: ["throw", "hang", "lose"],
  popErrorScope: ["throw", "hang", "lose"],
  getCompilationInfo: ["throw", "hang", "lose"],
} as const satisfies Record<string, readonly Fault[]>;

export type CallName = keyof typeof CALLS;

const PROMISED = new Set<CallName>([
  "createComputePipelineAsync",
  "mapAsync",
  "onSubmittedWorkDone",
  "popErrorScope",
  "getCompilationInfo",
]);

/** One fault: the call number `k`, from 0, of a name. */
export interface Injection {
  readonly call: CallName;
  readonly k: number;
  readonly fault: Fault;
}

type Method = (...args: unknown[]) => unknown;

// As Dawn's is named, which is what our engine goes by.
class GPUOutOfMemoryError {
  readonly message = "injected";
}

/** Puts itself between a device and who uses it. */
export class FaultyDriver {
  /** Calls made since the last `arm`. */
  counts: Partial<Record<CallName, number>> = {};
  /** Whether the armed fault has happened. */
  happened = false;
  readonly #handle: GPUDevice;
  #armed: Injection | undefined;
  /** What the next scope of a kind is to report. */
  #refusal: { readonly filter: GPUErrorFilter; readonly error: GPUError } | undefined;
  readonly #scopes: GPUErrorFilter[] = [];

  constructor(handle: GPUDevice) {
    this.#handle = handle;
    const { queue } = handle;
    this.#intercept(handle, [
      "createBuffer",
      "createShaderModule",
      "createBindGroupLayout",
      "createPipelineLayout",
      "createComputePipeline",
      "createComputePipelineAsync",
      "createBindGroup",
      "createCommandEncoder",
      "popErrorScope",
    ]);
    this.#intercept(queue, ["submit", "writeBuffer", "onSubmittedWorkDone"]);
    const push = handle.pushErrorScope.bind(handle);
    handle.pushErrorScope = (filter) => {
      this.#scopes.push(filter);
      return push(filter);
    };
  }

  /** Counts from 0 again, and has one of the calls to come fail. */
  arm(injection?: Injection): void {
    this.counts = {};
    this.happened = false;
    this.#armed = injection;
  }

  #intercept(object: object, names: readonly CallName[]): void {
    const methods = object as Record<string, Method>;
    for (const name of names) {
      const real = methods[name].bind(object);
      methods[name] = (...args) => this.#call(name, real, args);
    }
  }

  #call(call: CallName, real: Method, args: unknown[]): unknown {
    const filter = call === "popErrorScope" ? this.#scopes.pop() : undefined;
    const k = this.counts[call] ?? 0;
    this.counts[call] = k + 1;
    const armed = this.#armed?.call === call && this.#armed.k === k ? this.#armed : undefined;
    if (armed) {
      this.#armed = undefined;
      this.happened = true;
    }
    switch (armed?.fault) {
      case "throw": {
        if (call === "popErrorScope") (real() as Promise<unknown>).catch(() => {}); // the stack stays in order
        if (PROMISED.has(call)) return Promise.reject(new Error("injected"));
        throw new Error("injected");
      }
      case "hang": {
        if (call === "popErrorScope") (real() as Promise<unknown>).catch(() => {});
        return new Promise(() => {});
      }
      case "lose":
        this.#handle.destroy();
        break;
      case "refuse":
        if (call === "submit") args = [[this.#invalidCommands()]];
        else this.#refusal = { filter: "out-of-memory", error: new GPUOutOfMemoryError() as unknown as GPUError };
    }
    const result = real(...args);
    if (armed?.fault === "refuse" && call === "createBuffer") (result as GPUBuffer).destroy(); // good for nothing
    if (call === "createBuffer") this.#intercept(result as object, ["mapAsync", "getMappedRange"]);
    if (call === "createShaderModule") this.#intercept(result as object, ["getCompilationInfo"]);
    if (call === "createCommandEncoder") this.#intercept(result as object, ["finish"]);
    if (this.#refusal && filter === this.#refusal.filter) {
      const { error } = this.#refusal;
      this.#refusal = undefined;
      return (result as Promise<unknown>).then(() => error);
    }
    return result;
  }

  /** A command buffer that the driver refuses. */
  #invalidCommands(): GPUCommandBuffer {
    const encoder = Object.getPrototypeOf(this.#handle).createCommandEncoder.call(this.#handle) as GPUCommandEncoder;
    encoder.popDebugGroup(); // without a push
    return encoder.finish();
  }
}
