/**
 * The trace of a model that runs here. The pass is repeated for a part of its tensors at a time, so that the device holds
 * some of them and the host one, however large the model is.
 */
import { keptCopy, withObserver } from "../../modules/observer.ts";
import type { ActivationDType } from "../../tensor/dtype.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { type Device, type ObservedKind, type Observer, storagesIn, type Tensor } from "../../tensor/tensor.ts";
import type { Numbers } from "./statistics.ts";
import { inputName, type Trace } from "./trace.ts";

export interface HostTensor {
  readonly shape: Shape;
  readonly data: Float32Array | Uint32Array;
}

/** What a pass gives. */
export interface PassResult {
  /** Tensors besides the modules' outputs, which are computed last. */
  readonly results: Readonly<Record<string, Tensor<ActivationDType>>>;
  /** Everything that the pass returned: its tensors are disposed. */
  readonly output: unknown;
}

export interface LiveTraceOptions {
  readonly label: string;
  readonly device: Device;
  /** Inputs of the pass, which come first. */
  readonly given: Readonly<Record<string, HostTensor>>;
  /** Runs the pass; it must do the same every time. */
  readonly run: () => Promise<PassResult>;
  /** `"results"`: of the pass, without the modules'. Default: all. */
  readonly only?: "results";
  /** What the pass goes on with in place of a tensor; undefined to leave it. */
  readonly replace?: (name: string, shape: Shape) => Float32Array | undefined;
  /** Bytes of tensors that are kept on the device at a time; one larger tensor is kept alone. Default 256 MiB. */
  readonly windowBytes?: number;
}

const WINDOW = 256 * 2 ** 20;

/** Notes every tensor of a pass, and keeps the wanted ones on the device. */
class Recorder implements Observer {
  readonly order: string[] = [];
  readonly shapes = new Map<string, Shape>();
  readonly inputs = new Map<string, string>();
  readonly dtypes = new Map<string, ActivationDType>();
  readonly kept = new Map<string, Tensor<ActivationDType>>();
  readonly #options: LiveTraceOptions;
  readonly #wants: (name: string, bytes: number) => boolean;
  readonly #names = new Map<Tensor<ActivationDType>, string>();
  readonly #runs = new Map<string, number>();

  constructor(options: LiveTraceOptions, wants: (name: string, bytes: number) => boolean) {
    this.#options = options;
    this.#wants = wants;
  }

  wants(path: string, kind: ObservedKind): boolean {
    return this.#options.only !== "results" && path !== "" && (kind === "output" || kind === "input");
  }

  see(path: string, kind: ObservedKind, x: Tensor<ActivationDType>): Tensor<ActivationDType> | undefined {
    const run = (this.#runs.get(path) ?? 0) + 1;
    const name = run === 1 ? path : `${path}#${run}`;
    if (kind === "output") this.#runs.set(path, run);
    else {
      const source = this.#names.get(x) ?? inputName(name);
      this.inputs.set(name, source);
      if (source !== inputName(name)) return undefined;
    }
    return this.#note(kind === "output" ? name : inputName(name), x);
  }

  /** @returns the replacement, if there is one */
  #note(name: string, x: Tensor<ActivationDType>): Tensor<ActivationDType> | undefined {
    this.add(name, x);
    this.#names.set(x, name);
    const numbers = this.#options.replace?.(name, x.shape);
    if (!numbers) return undefined;
    const replacement = this.#options.device.tensor(numbers, x.shape);
    this.#names.set(replacement, name);
    return replacement;
  }

  add(name: string, x: Tensor<ActivationDType>): void {
    this.order.push(name);
    this.shapes.set(name, x.shape);
    this.dtypes.set(name, x.dtype);
    // Computed by itself, kept or not: the pass is then the same for every part of its tensors.
    void x.storage;
    if (!this.#wants(name, x.bytes)) return;
    this.kept.set(name, keptCopy(x));
  }

  dispose(): void {
    for (const tensor of this.kept.values()) tensor.dispose();
    this.kept.clear();
    this.#names.clear();
  }
}

export class LiveTrace implements Trace {
  readonly label: string;
  readonly isOrdered = true;
  order: readonly string[] = [];
  inputs: ReadonlyMap<string, string> = new Map();
  /** Passes that were run. */
  passes = 0;
  readonly #options: LiveTraceOptions;
  #recorder: Recorder | undefined;
  /** The order in which tensors will be read, as far as is known. */
  #reading: readonly string[] = [];

  private constructor(options: LiveTraceOptions) {
    this.label = options.label;
    this.#options = options;
  }

  /** Runs the pass once. */
  static async open(options: LiveTraceOptions): Promise<LiveTrace> {
    const trace = new LiveTrace(options);
    let left = options.windowBytes ?? WINDOW;
    await trace.#pass((_, bytes) => {
      left -= bytes;
      return left >= 0;
    });
    const { order, inputs } = trace.#recorder!;
    trace.order = [...Object.keys(options.given), ...order];
    trace.inputs = inputs;
    trace.#reading = order;
    return trace;
  }

  /** Says in which order tensors will be read: those that follow one are then there after the same pass. */
  expect(names: readonly string[]): void {
    this.#reading = names.filter((name) => this.#recorder?.shapes.has(name));
  }

  shape(name: string): Shape | undefined {
    return this.#options.given[name]?.shape ?? this.#recorder?.shapes.get(name);
  }

  dtype(name: string): ActivationDType {
    return this.#options.given[name]?.data instanceof Uint32Array ? "u32" : (this.#recorder?.dtypes.get(name) ?? "f32");
  }

  async read(name: string): Promise<Numbers> {
    const given = this.#options.given[name];
    if (given) return given.data;
    if (!this.#recorder?.kept.has(name)) {
      const next = this.#next(name);
      await this.#pass((other) => next.has(other));
    }
    return this.#recorder!.kept.get(name)!.read();
  }

  /** Runs the pass under an observer. @returns one of its results */
  async resultUnder(observer: Observer, name: string): Promise<Numbers> {
    const { device, run } = this.#options;
    const { results, output } = await withObserver(device, observer, run);
    try {
      return await results[name]!.read();
    } finally {
      for (const storage of storagesIn(output)) device.memory.release(storage);
    }
  }

  close(): void {
    this.#recorder?.dispose();
    this.#recorder = undefined;
  }

  /** A tensor and those that are read after it, as many as the device keeps. */
  #next(name: string): Set<string> {
    const from = Math.max(0, this.#reading.indexOf(name));
    const names = new Set([name]);
    let left = (this.#options.windowBytes ?? WINDOW) - this.#bytes(name);
    for (const other of this.#reading.slice(from + 1)) {
      left -= this.#bytes(other);
      if (left < 0) break;
      names.add(other);
    }
    return names;
  }

  #bytes(name: string): number {
    return 4 * sizeOf(this.#recorder?.shapes.get(name) ?? []);
  }

  async #pass(wants: (name: string, bytes: number) => boolean): Promise<void> {
    const { device, run } = this.#options;
    const before = this.#recorder;
    before?.dispose();
    const recorder = new Recorder(this.#options, wants);
    this.passes++;
    try {
      const { results, output } = await withObserver(device, recorder, run);
      for (const [name, result] of Object.entries(results)) recorder.add(name, result);
      const kept = new Set([...recorder.kept.values()].map(({ storage }) => storage));
      for (const storage of storagesIn(output)) if (!kept.has(storage)) device.memory.release(storage);
    } catch (error) {
      recorder.dispose();
      this.#recorder = before;
      throw error;
    }
    this.#recorder = recorder;
  }
}
