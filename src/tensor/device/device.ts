/**
 * The one door to the GPU: adapter and limits, `launch`, upload and read-back, errors, loss.
 *
 * Launches are recorded and submitted in batches. Nothing here waits, and nothing throws what the GPU finds wrong: a
 * failure is thrown, typed, by the next `await` (`read` or `sync`) of the call that caused it (call.ts), and then it is
 * over. Only the loss of the device is for good.
 */
import { optionsOf, refuseUnknown } from "../arguments.ts";
import type { ActivationDType } from "../dtype.ts";
import { env, envSeconds, parseBytes } from "../env.ts";
import { DeviceError, DTypeError, EngineError, InputError, KernelError, ShapeError } from "../errors.ts";
import { formatShape, isDense, type Shape, sizeOf } from "../shape.ts";
import { shown } from "../shown.ts";
import {
  type Captured,
  type Deferred,
  type Device,
  type HostArray,
  type Kernel,
  type KernelTime,
  type Launch,
  type Observer,
  storagesIn,
  Tensor,
} from "../tensor.ts";
import { assemble, PARAMS_BINDING, type Wgsl } from "../wgsl.ts";
import { Call } from "./call.ts";
import { type Caps, capsOf, SUBGROUP_MATRIX } from "./caps.ts";
import { BUFFER_USAGE, COMPUTE_STAGE, MAP_READ, requestAdapter, tunedPlanOf } from "./gpu.ts";
import { Arena, Memory, type Storage } from "./memory.ts";

export type { Captured, Device, Kernel, KernelTime, Launch, ObservedKind, Observer } from "../tensor.ts";

export interface DeviceOptions {
  /** Bytes all buffers together may take. Default: INSTRUCTBLIP_MEMORY_BUDGET, else unlimited. */
  memory_budget?: number;
  /** Bytes one binding may span; larger weights are split. Default: INSTRUCTBLIP_MAX_BINDING, else the adapter's limit. */
  max_binding?: number;
  /** Ask for WebGPU's default limits rather than the adapter's. Default: INSTRUCTBLIP_DEFAULT_LIMITS. */
  default_limits?: boolean;
  /** An adapter to use instead of the best one. A device consumes it. */
  adapter?: GPUAdapter;
  /**
   * Seconds that one wait for the GPU may last; it then rejects with GPU_TIMEOUT. Default: INSTRUCTBLIP_GPU_TIMEOUT, else
   * 600, and 3600 on a software adapter, which takes minutes for what a GPU does in one.
   */
  timeout?: number;
}

interface Pipeline {
  readonly wgsl: Wgsl;
  readonly handle: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly layoutId: number;
}

interface Recorded {
  readonly pipeline: Pipeline;
  readonly group: Group;
  readonly grid: readonly [number, number, number];
}

/** A bind group, and what it was made of. */
interface Group {
  readonly handle: GPUBindGroup;
  readonly storages: readonly GPUBindGroupEntry[];
  readonly params: ParamsSlot | undefined;
}

/** One set of params in a uniform buffer. */
interface ParamsSlot {
  readonly index: number;
  readonly words: Uint32Array<ArrayBuffer>;
}

/** A promise of the driver's, and in words what it is for. */
interface Wait<T> {
  readonly what: string;
  readonly promise: Promise<T>;
  /** Whether it must settle soon after all work has been done. */
  readonly endsWithWork?: boolean;
}

/** Launches recorded before they are handed to the driver, so that it works while we still encode. */
const BATCH = 32;
const PARAMS_SLOT = 256; // WebGPU's largest minUniformBufferOffsetAlignment
const PARAMS_SLOTS = 1024;
/** Bind groups kept for the next launch alike: many times those of a pass. A driver takes some kilobytes for each. */
const MOST_GROUPS = 2048;
/** Bytes of buffers for reading back that are kept for the next time. */
const MOST_STAGING = 16 * 2 ** 20;
/** After so long a wait the driver is asked whether it is still at work; if it is not, it has as long again to answer. */
const ANSWER_MS = 10_000;
/** What a failure is a consequence of, such as the loss of the device, may be said so much later. */
const CAUSE_MS = 200;
const WANTED_FEATURES: readonly GPUFeatureName[] = ["shader-f16", "subgroups", SUBGROUP_MATRIX, "timestamp-query"];
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupStorageSize",
] as const;

/** Opens the best adapter (see gpu.ts) as a Device. Throws NO_WEBGPU, NO_ADAPTER, NO_DEVICE, GPU_OOM, PLAN_FILE; UNKNOWN_OPTION. */
export async function openDevice(given?: DeviceOptions, ...more: never[]): Promise<Device> {
  const options = deviceOptions([given, ...more]);
  const adapter = options.adapter ?? (await requestAdapter());
  const tuned = tunedPlanOf(adapter.info);
  const byDefault = options.default_limits ?? env("INSTRUCTBLIP_DEFAULT_LIMITS") === "1";
  const requiredLimits: Record<string, number> = {};
  if (!byDefault) for (const name of WANTED_LIMITS) requiredLimits[name] = Number(adapter.limits[name]);
  const requiredFeatures = WANTED_FEATURES.filter((feature) => adapter.features.has(feature));
  const bytes = (given: number | undefined, name: "INSTRUCTBLIP_MEMORY_BUDGET" | "INSTRUCTBLIP_MAX_BINDING") =>
    given ?? (env(name) === undefined ? undefined : parseBytes(name, env(name)!));
  const maxBinding = bytes(options.max_binding, "INSTRUCTBLIP_MAX_BINDING") ?? Number.POSITIVE_INFINITY;
  const budget = bytes(options.memory_budget, "INSTRUCTBLIP_MEMORY_BUDGET") ?? Number.POSITIVE_INFINITY;
  const timeout = options.timeout ?? envSeconds("INSTRUCTBLIP_GPU_TIMEOUT");
  const handle = await adapter.requestDevice({ requiredLimits, requiredFeatures }).catch((cause: unknown) => {
    throw new DeviceError("NO_DEVICE", "the adapter gave no device", { cause });
  });
  try {
    const found = capsOf(adapter.info, handle.features, handle.limits);
    const maxBindingBytes = Math.min(found.maxBindingBytes, found.maxBufferBytes, maxBinding);
    const caps = { ...found, tuned, maxBindingBytes };
    const device = new GpuDevice(handle, caps, budget, timeout);
    await device.ready();
    return device;
  } catch (error) {
    handle.destroy();
    throw error;
  }
}

const OPTIONS = [
  "memory_budget",
  "max_binding",
  "default_limits",
  "adapter",
  "timeout",
] satisfies (keyof DeviceOptions)[];

/** @throws InputError ARGUMENTS, UNKNOWN_OPTION, PARAM_RANGE */
function deviceOptions(given: readonly unknown[]): DeviceOptions {
  const options = optionsOf("openDevice", given, 1);
  refuseUnknown("openDevice", options, OPTIONS);
  const must = (name: keyof DeviceOptions, holds: (value: unknown) => boolean, what: string) => {
    const value = options[name] ?? undefined;
    if (value === undefined || holds(value)) return;
    throw new InputError("PARAM_RANGE", `${name} must be ${what}, got ${shown(value)}`);
  };
  const above0 = (value: unknown) => typeof value === "number" && value > 0;
  must("memory_budget", above0, "a number of bytes");
  must("max_binding", above0, "a number of bytes");
  must("timeout", above0, "above 0 (seconds)");
  must("default_limits", (value) => typeof value === "boolean", "true or false");
  must("adapter", (value) => typeof (value as GPUAdapter | null)?.requestDevice === "function", "a GPUAdapter");
  return options;
}

/** The Device of a GPU; what its methods do is said where the interface is. */
export class GpuDevice implements Device {
  readonly handle: GPUDevice;
  readonly caps: Caps;
  readonly memory: Memory;
  /** Who sees what modules compute, each shown what the one before it has left; set for the length of a call. */
  observers: readonly Observer[] = [];

  readonly #pipelines = new Map<string, Pipeline>();
  readonly #layouts = new Map<string, { id: number; layout: GPUBindGroupLayout }>();
  #nextLayout = 0;
  readonly #groups = new Map<string, Group>();
  /** Keys of the bind groups on a persistent storage, so that disposing one cache leaves the others' groups alone. */
  #groupsOn = new WeakMap<Storage, string[]>();
  /** Kernels that would be launched, by their pipelines' keys; see `kernelsOf`. */
  #foreseen: Map<string, Kernel> | undefined;
  readonly #params: GPUBuffer;
  readonly #paramsSlots = new Map<string, ParamsSlot>();
  readonly #staging = new Map<number, GPUBuffer[]>();
  #stagingBytes = 0;
  /** Ends the waits that are under way, of all calls. */
  readonly #waiting = new Set<(error: unknown) => void>();
  #lost: EngineError | undefined;
  readonly #timeoutMs: number;
  /** What is done outside of any other call. */
  #outside = new Call();
  /** Whose work is being done. */
  #call = this.#outside;
  /** What the next submit runs, and how many of it were launched rather than replayed. */
  #recorded: Recorded[] = [];
  #launched = 0;
  /** The buffers that they read and write: a write from the host to any other need not wait for them. */
  readonly #pending = new Set<GPUBuffer>();
  readonly #replayed = new Set<ReadonlySet<GPUBuffer>>();
  /** A product that waits for its epilogue; see fuse.ts. */
  #deferred: Deferred | undefined;
  /** What is being captured. */
  #capturing: { readonly launches: Recorded[]; readonly storages: Set<Storage> } | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #profile: Profile | undefined;
  #destroyed = false;
  /** Launches and submits since the device was opened. */
  readonly counts = { launches: 0, submits: 0, bindGroups: 0 };

  readonly #unlisten: () => void;

  /** To be followed by `ready`; openDevice() does both. */
  constructor(handle: GPUDevice, caps: Caps, budget: number, timeout = caps.isSoftware ? 3600 : 600) {
    this.handle = handle;
    this.caps = caps;
    this.#timeoutMs = Math.min(1000 * timeout, 2 ** 31 - 1); // a timer's limit
    const createBuffer = (descriptor: GPUBufferDescriptor, onRefused: () => void) =>
      this.#createBuffer(descriptor, onRefused);
    const settle = () => this.settle();
    this.memory = new Memory(createBuffer, { ...caps, budget }, settle, (storage) => {
      this.flush(); // what is recorded still needs the buffers
      if (storage === undefined) this.#forgetGroups();
      else for (const key of this.#groupsOn.get(storage) ?? []) this.#groups.delete(key);
    });
    // The driver holds what listens to it for as long as it lives itself: that must not be the device.
    const self = new WeakRef(this);
    const listener = (event: Event) => {
      event.preventDefault(); // it is thrown by the next await: no need to print it too
      const device = self.deref();
      if (device) device.#fail(device.#call, translate((event as GPUUncapturedErrorEvent).error));
    };
    handle.addEventListener("uncapturederror", listener);
    this.#unlisten = () => handle.removeEventListener("uncapturederror", listener);
    void handle.lost.then((info) => {
      const device = self.deref();
      if (device) device.#onLost(info);
    });
    this.#params = this.#paramsOf(PARAMS_SLOTS);
  }

  /** Throws what went wrong while it was made. */
  async ready(): Promise<void> {
    await this.#throwFailure(this.#outside);
  }

  #onLost({ message, reason }: GPUDeviceLostInfo): void {
    this.#lost = this.#destroyed
      ? new DeviceError("DISPOSED", "the device has been destroyed")
      : new DeviceError("DEVICE_LOST", `the GPU device was lost: ${message || reason}`, {
          hint: "often the driver ran out of memory or a watchdog ended a long kernel; open a new device",
        });
    for (const reject of this.#waiting) reject(this.#lost);
  }

  // --- tensors ---------------------------------------------------------------------------------------------------

  empty<D extends ActivationDType = "f32">(shape: Shape, dtype?: D, label = "activation"): Tensor<D> {
    const storage = this.memory.allocate(this.#bytes(shape), label);
    return new Tensor(this, (dtype ?? "f32") as D, shape, storage);
  }

  tensor(data: Uint32Array, shape: Shape): Tensor<"u32">;
  tensor(data: Float32Array | readonly number[], shape: Shape): Tensor<"f32">;
  tensor(data: Float32Array | Uint32Array | readonly number[], shape: Shape): Tensor<ActivationDType> {
    const isArray = data instanceof Uint32Array || data instanceof Float32Array;
    if (!isArray && !(Array.isArray(data) && data.every((value) => typeof value === "number"))) {
      throw new DTypeError(
        `tensor: data must be a Float32Array, a Uint32Array or a list of numbers, got ${shown(data)}`,
      );
    }
    expectShapeOf(shape);
    const array = isArray ? data : Float32Array.from(data);
    if (array.length !== sizeOf(shape)) {
      throw new ShapeError(`tensor: ${array.length} numbers do not fill ${formatShape(shape)}`);
    }
    const tensor = this.empty<ActivationDType>(shape, array instanceof Uint32Array ? "u32" : "f32");
    this.write(tensor, array);
    return tensor;
  }

  persistent<D extends ActivationDType = "f32">(shape: Shape, dtype?: D, label = "weight"): Tensor<D> {
    return new Tensor(this, (dtype ?? "f32") as D, shape, this.memory.allocate(this.#bytes(shape), label, true));
  }

  write(tensor: Tensor<ActivationDType>, data: Float32Array | Uint32Array): void {
    if (!isDense(tensor.shape, tensor.strides)) {
      throw new ShapeError(`write: ${formatShape(tensor.shape)} with strides ${formatShape(tensor.strides)} has gaps`);
    }
    if (data.length !== tensor.size) {
      throw new ShapeError(`write: ${data.length} numbers for a tensor of ${tensor.size} elements`);
    }
    this.writeBytes(tensor.storage, tensor.offset * 4, data);
  }

  writeBytes(storage: Storage, offset: number, data: Uint8Array | Float32Array | Uint32Array): void {
    this.#alive();
    this.settle();
    if (!storage.alive) throw new DeviceError("DISPOSED", "write: the tensor has been disposed");
    if (this.#foreseen) return;
    if (this.#capturing) throw new KernelError("CAPTURE", "write: a recording would not repeat what the host writes");
    if (this.#isPending(storage.buffer)) this.flush();
    if (data.byteLength === 0) return;
    this.#guard("an upload", [], () => this.handle.queue.writeBuffer(storage.buffer, offset, data as BufferSource));
  }

  scope<T>(fn: () => T): T {
    this.settle(); // its storage belongs to the scope it was made in
    const scope = this.memory.enter();
    const leave = (result: unknown) => {
      this.settle();
      this.memory.leave(scope, storagesIn(result));
    };
    const fail = (error: unknown): never => {
      this.#deferred = undefined; // nobody can ask for it any more
      this.memory.leave(scope, new Set());
      throw error;
    };
    let result: T;
    try {
      result = fn();
    } catch (error) {
      return fail(error);
    }
    if (result instanceof Promise) {
      return result.then((value) => {
        leave(value);
        return value;
      }, fail) as T;
    }
    leave(result);
    return result;
  }

  exclusive<T>(fn: () => Promise<T>, { signal }: { signal?: AbortSignal | null | undefined } = {}): Promise<T> {
    const call = new Call(signal ?? undefined);
    const result = call.orStopped(this.#turn).then(() => this.#turnOf(call, fn));
    const ended = () => call.end();
    const done = result.then(ended, ended);
    this.#turn = Promise.all([this.#turn, done]).then(() => {});
    return result;
  }

  async #turnOf<T>(call: Call, fn: () => Promise<T>): Promise<T> {
    this.flush(); // what was launched before belongs to others
    this.#call = call;
    try {
      const value = await fn();
      this.flush();
      await this.#throwFailure(call);
      return value;
    } catch (error) {
      this.flush();
      await this.#throwFailure(call).catch(() => {}); // what is still to come belongs to this call too
      if (!(error instanceof DeviceError && error.code === "GPU")) throw error;
      await this.#consequence(call);
      throw this.#lost ?? error;
    } finally {
      this.#call = this.#outside;
    }
  }

  call(signal?: AbortSignal | undefined): Call {
    return new Call(signal);
  }

  within<T>(call: Call, fn: () => T): T {
    const before = this.#call;
    if (before !== call) this.flush();
    this.#call = call;
    try {
      return fn();
    } finally {
      if (before !== call) this.flush();
      this.#call = before;
    }
  }

  interrupt(reason: unknown): void {
    this.#call.interrupt(reason);
  }

  // --- launching -------------------------------------------------------------------------------------------------

  launch(launch: Launch): void {
    this.#alive();
    this.settle();
    for (const name in launch.bindings) launch.bindings[name].deferred?.storageOf();
    if (this.#foreseen) {
      this.#foreseen.set(pipelineKey(launch), launch);
      return;
    }
    const pipeline = this.#pipeline(launch);
    const grid = this.#grid(launch);
    if (grid[0] * grid[1] * grid[2] === 0) return;
    const group = this.#group(pipeline, launch, this.#paramsSlot(pipeline.wgsl, launch));
    const recorded = { pipeline, group, grid };
    this.#recorded.push(recorded);
    for (const { name } of pipeline.wgsl.bindings) this.#touch(launch.bindings[name].storage);
    this.#capturing?.launches.push(recorded);
    this.counts.launches++;
    if (++this.#launched >= BATCH) this.flush();
  }

  capture<T>(fn: () => T): Captured<T> {
    this.settle();
    if (this.#capturing) throw new KernelError("CAPTURE", "capture: a recording is being made already");
    const arena = new Arena();
    const launches: Recorded[] = [];
    const storages = new Set<Storage>();
    this.#capturing = { launches, storages };
    let result: T;
    try {
      result = this.memory.within(arena, () => this.scope(fn));
    } catch (error) {
      this.memory.dissolve(arena);
      throw error;
    } finally {
      this.#capturing = undefined;
    }
    const kept = storagesIn(result);
    for (const storage of kept) this.memory.keep(storage);
    let params: GPUBuffer | undefined;
    try {
      params = this.#pin(launches);
    } catch (error) {
      for (const storage of kept) this.memory.release(storage);
      this.memory.dissolve(arena);
      throw error;
    }
    const buffers = new Set(Array.from(storages, ({ buffer }) => buffer));
    const needed = [...storages].filter(({ alive }) => alive); // the others are its own, in its arena
    return {
      result,
      launches: launches.length,
      replay: () => {
        this.#alive();
        this.settle();
        if (!needed.every(({ alive }) => alive)) {
          throw new DeviceError("DISPOSED", "replay: a tensor that it works on has been disposed");
        }
        for (const launch of launches) this.#recorded.push(launch);
        this.#replayed.add(buffers);
        this.counts.launches += launches.length;
      },
      dispose: () => {
        this.flush();
        launches.length = 0;
        for (const storage of kept) this.memory.release(storage);
        this.memory.dissolve(arena);
        params?.destroy();
      },
    };
  }

  defer(product: Deferred, instead?: Deferred): void {
    if (this.#deferred !== instead) this.settle();
    this.#deferred = product;
  }

  undefer(product: Deferred): void {
    if (this.#deferred === product) this.#deferred = undefined;
    else this.settle();
  }

  settle(): void {
    this.#deferred?.storageOf();
  }

  flush(): void {
    this.settle();
    if (this.#recorded.length > 0) this.#submit(undefined);
  }

  async sync(): Promise<void> {
    this.#alive();
    const call = this.#call;
    this.flush();
    const promise = this.#asked(() => this.handle.queue.onSubmittedWorkDone());
    await this.#wait(call, { what: "waiting for the GPU", promise });
    await this.#throwFailure(call);
  }

  async read<D extends ActivationDType>(tensor: Tensor<D>): Promise<HostArray<D>> {
    this.#alive();
    if (!tensor.storage.alive) throw new DeviceError("DISPOSED", "read: the tensor has been disposed");
    if (!tensor.isContiguous) throw new ShapeError("read: a strided view must be made contiguous first");
    const call = this.#call;
    const bytes = Math.max(4, tensor.bytes);
    const staging = this.#takeStaging(2 ** Math.ceil(Math.log2(bytes)));
    try {
      this.#submit((encoder) => encoder.copyBufferToBuffer(tensor.storage.buffer, 0, staging, 0, bytes));
      const mapped = this.#asked(() => staging.mapAsync(MAP_READ, 0, bytes));
      const promise = mapped.then(() => staging.getMappedRange(0, bytes).slice(0, tensor.bytes));
      const copy = await this.#wait(call, { what: "reading back", promise, endsWithWork: true });
      staging.unmap();
      await this.#throwFailure(call);
      this.#keepStaging(staging);
      return (tensor.dtype === "f32" ? new Float32Array(copy) : new Uint32Array(copy)) as HostArray<D>;
    } catch (error) {
      staging.destroy(); // it may be mapped still, or be none
      throw error;
    }
  }

  #takeStaging(capacity: number): GPUBuffer {
    const kept = this.#staging.get(capacity)?.pop();
    if (kept) {
      this.#stagingBytes -= capacity;
      return kept;
    }
    const usage = BUFFER_USAGE.MAP_READ | BUFFER_USAGE.COPY_DST;
    return this.#createBuffer({ size: capacity, usage, label: "read" });
  }

  #keepStaging(staging: GPUBuffer): void {
    const { size } = staging;
    if (this.#destroyed || this.#stagingBytes + size > MOST_STAGING) {
      staging.destroy();
      return;
    }
    this.#stagingBytes += size;
    const list = this.#staging.get(size);
    if (list) list.push(staging);
    else this.#staging.set(size, [staging]);
  }

  kernelsOf(fn: () => unknown): Kernel[] {
    const foreseen = new Map<string, Kernel>();
    this.#foreseen = foreseen;
    try {
      this.scope(() => void fn());
    } finally {
      this.#foreseen = undefined;
    }
    return [...foreseen.values()].map(({ kernel, uses, overrides }) => ({
      kernel,
      uses: uses ?? {},
      overrides: overrides ?? {},
    }));
  }

  async prepare(kernels: Iterable<Kernel>): Promise<void> {
    this.#alive();
    const call = this.#call;
    await Promise.all(
      [...kernels].map(async (kernel) => {
        const key = pipelineKey(kernel);
        if (this.#pipelines.has(key)) return;
        const { wgsl, descriptor, layout, layoutId } = this.#describe(kernel, key);
        const what = `compiling kernels/${kernel.kernel}.wgsl`;
        const promise = this.#asked(() => this.handle.createComputePipelineAsync(descriptor));
        const handle = await this.#wait(call, { what, promise }, "PIPELINE");
        this.#pipelines.set(key, { wgsl, handle, layout, layoutId });
      }),
    );
    await this.#throwFailure(call);
  }

  async profile(fn: () => unknown): Promise<KernelTime[]> {
    if (!this.caps.timestamps)
      throw new DeviceError("FEATURE", "this adapter has no timestamp-query: kernels cannot be timed");
    await this.sync();
    const profile: Profile = { times: new Map(), pending: [] };
    this.#profile = profile;
    try {
      await fn();
      await this.sync();
      await Promise.all(profile.pending);
    } finally {
      this.#profile = undefined;
    }
    return [...profile.times.values()].sort((a, b) => b.nanoseconds - a.nanoseconds);
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#deferred = undefined;
    this.#recorded = [];
    this.handle.destroy();
    this.#unlisten();
    // Whoever still holds this device holds nothing of the driver's by it.
    for (const known of [this.#pipelines, this.#layouts, this.#paramsSlots, this.#staging]) known.clear();
    this.#forgetGroups();
  }

  // --- inside ----------------------------------------------------------------------------------------------------

  /** After destroy(), or its loss, Dawn accepts every call and drops it, so it must be asked here. */
  #alive(): void {
    if (this.#destroyed) throw new DeviceError("DISPOSED", "the device has been destroyed");
    if (this.#lost) throw this.#lost;
  }

  #bytes(shape: Shape): number {
    this.#alive();
    expectShapeOf(shape);
    return sizeOf(shape) * 4;
  }

  #pipeline(launch: Kernel): Pipeline {
    const key = pipelineKey(launch);
    const cached = this.#pipelines.get(key);
    if (cached) return cached;
    const { wgsl, descriptor, layout, layoutId } = this.#describe(launch, key);
    const what = `compiling kernels/${launch.kernel}.wgsl`;
    const forget = () => void this.#pipelines.delete(key);
    const handle = this.#guard(what, ERRORS, () => this.handle.createComputePipeline(descriptor), forget);
    const pipeline = { wgsl, handle, layout, layoutId };
    this.#pipelines.set(key, pipeline);
    return pipeline;
  }

  #describe(launch: Kernel, key: string) {
    const wgsl = assemble(launch.kernel, launch.uses);
    for (const feature of wgsl.features) {
      if (!this.handle.features.has(feature)) {
        throw new KernelError(
          "FEATURE",
          `kernels/${launch.kernel}.wgsl needs the feature ${feature}, which this adapter lacks`,
        );
      }
    }
    for (const name of Object.keys(launch.overrides ?? {})) {
      if (!wgsl.overrides.has(name))
        throw new KernelError("OVERRIDE", `kernels/${launch.kernel}.wgsl has no override ${name}`);
    }
    const what = `compiling kernels/${launch.kernel}.wgsl`;
    const module = this.#guard(what, ERRORS, () =>
      this.handle.createShaderModule({ code: wgsl.code, label: wgsl.label }),
    );
    const forget = () => void this.#pipelines.delete(key);
    this.#call.check(this.#compileErrors(this.#call, module, wgsl, forget));
    const signature = wgsl.bindings.map((b) => (b.writable ? "w" : "r")).join("") + (wgsl.params.length ? "p" : "");
    let entry = this.#layouts.get(signature);
    if (!entry) {
      const entries = [
        ...wgsl.bindings.map(({ binding, writable }): GPUBindGroupLayoutEntry => {
          const type = writable ? "storage" : "read-only-storage";
          return { binding, visibility: COMPUTE_STAGE, buffer: { type } };
        }),
        // Without a dynamic offset: a bind group for each set of params, one for all of a launch, is fastest to set.
        ...(wgsl.params.length
          ? [{ binding: PARAMS_BINDING, visibility: COMPUTE_STAGE, buffer: { type: "uniform" } } as const]
          : []),
      ];
      const forget = () => void this.#layouts.delete(signature);
      const layout = this.#guard(what, ERRORS, () => this.handle.createBindGroupLayout({ entries }), forget);
      entry = { id: this.#nextLayout++, layout };
      this.#layouts.set(signature, entry);
    }
    const { layout } = entry;
    const descriptor: GPUComputePipelineDescriptor = {
      label: wgsl.label,
      layout: this.#guard(what, ERRORS, () => this.handle.createPipelineLayout({ bindGroupLayouts: [layout] })),
      compute: { module, entryPoint: "main", constants: launch.overrides ?? {} },
    };
    return { wgsl, descriptor, layout: entry.layout, layoutId: entry.id };
  }

  /** Calls `forget` and notes the error, in place of those it causes, if a shader does not compile. */
  async #compileErrors(call: Call, module: GPUShaderModule, wgsl: Wgsl, forget: () => void): Promise<void> {
    const info = await module.getCompilationInfo();
    const first = info.messages.find((message) => message.type === "error");
    if (!first) return;
    forget();
    call.failure = new KernelError(
      "SHADER_COMPILE",
      `${wgsl.locate(first.lineNum)}:${first.linePos}: ${first.message}`,
    );
  }

  #group(pipeline: Pipeline, launch: Launch, params: ParamsSlot | undefined): Group {
    const { bindings } = pipeline.wgsl;
    const given = Object.keys(launch.bindings).length;
    let key = `${pipeline.layoutId},${params?.index ?? ""}`;
    for (const { name, writable } of bindings) {
      const tensor = launch.bindings[name];
      if (!tensor) throw new KernelError("BINDINGS", `kernels/${launch.kernel}.wgsl: binding ${name} is missing`);
      if (!tensor.storage.alive) throw new DeviceError("DISPOSED", `${launch.kernel}: ${name} has been disposed`);
      if (tensor.device !== this)
        throw new DeviceError("OTHER_DEVICE", `${launch.kernel}: ${name} is on another device`);
      if (writable) {
        for (const other of bindings) {
          if (other.name !== name && launch.bindings[other.name]?.storage === tensor.storage) {
            throw new KernelError("ALIAS", `kernels/${launch.kernel}.wgsl: ${name} and ${other.name} share memory`);
          }
        }
      }
      key += `,${tensor.storage.id}:${tensor.storage.bytes}`;
    }
    if (given !== bindings.length) {
      const extra = Object.keys(launch.bindings).filter((name) => !bindings.some((b) => b.name === name));
      throw new KernelError("BINDINGS", `kernels/${launch.kernel}.wgsl has no binding ${extra.join(", ")}`);
    }
    let group = this.#groups.get(key);
    if (!group) {
      const storages = bindings.map(({ name, binding }) => {
        const { buffer, bytes } = launch.bindings[name].storage;
        return { binding, resource: { buffer, size: bytes } };
      });
      group = this.#bind(pipeline, storages, params, this.#params);
      if (this.#groups.size >= MOST_GROUPS) this.#forgetGroups();
      this.#groups.set(key, group);
      for (const { name } of bindings) {
        const { storage } = launch.bindings[name];
        if (!storage.persistent) continue;
        const keys = this.#groupsOn.get(storage);
        if (keys) keys.push(key);
        else this.#groupsOn.set(storage, [key]);
      }
    }
    return group;
  }

  #bind(pipeline: Pipeline, storages: Group["storages"], params: ParamsSlot | undefined, buffer: GPUBuffer): Group {
    const resource = params && { buffer, offset: params.index * PARAMS_SLOT, size: PARAMS_SLOT };
    const entries = resource ? [...storages, { binding: PARAMS_BINDING, resource }] : storages;
    this.counts.bindGroups++;
    const { layout, wgsl } = pipeline;
    const handle = this.#guard(`binding kernels/${wgsl.label}.wgsl`, [], () =>
      this.handle.createBindGroup({ label: wgsl.label, layout, entries }),
    );
    return { handle, storages, params };
  }

  #forgetGroups(): void {
    this.#groups.clear();
    this.#groupsOn = new WeakMap();
  }

  #touch(storage: Storage): void {
    this.#pending.add(storage.buffer);
    this.#capturing?.storages.add(storage);
  }

  #isPending(buffer: GPUBuffer): boolean {
    if (this.#pending.has(buffer)) return true;
    for (const buffers of this.#replayed) if (buffers.has(buffer)) return true;
    return false;
  }

  /** A uniform buffer for `slots` sets of params. */
  #paramsOf(slots: number): GPUBuffer {
    const usage = BUFFER_USAGE.UNIFORM | BUFFER_USAGE.COPY_DST;
    return this.#createBuffer({ label: "params", size: PARAMS_SLOT * slots, usage });
  }

  /** @param onRefused called, later, if the GPU had no memory for it */
  #createBuffer(descriptor: GPUBufferDescriptor, onRefused?: () => void): GPUBuffer {
    return this.#guard("allocating memory", ERRORS, () => this.handle.createBuffer(descriptor), onRefused);
  }

  #writeParams(buffer: GPUBuffer, { index, words }: ParamsSlot): void {
    this.#guard("an upload", [], () => this.handle.queue.writeBuffer(buffer, index * PARAMS_SLOT, words));
  }

  /** Puts the params into the uniform buffer, each distinct set once. */
  #paramsSlot(wgsl: Wgsl, launch: Launch): ParamsSlot | undefined {
    const given = launch.params ?? {};
    if (wgsl.params.length === 0) return undefined;
    for (const name of Object.keys(given)) {
      if (!wgsl.params.some((field) => field.name === name)) {
        throw new KernelError("PARAMS", `kernels/${launch.kernel}.wgsl has no param ${name}`);
      }
    }
    let key = "";
    wgsl.params.forEach(({ name, type }, i) => {
      const value = given[name];
      if (value === undefined)
        throw new KernelError("PARAMS", `kernels/${launch.kernel}.wgsl: param ${name} is missing`);
      if (type === "f32") {
        paramFloats[i] = value;
      } else {
        const low = type === "u32" ? 0 : -(2 ** 31);
        if (!Number.isInteger(value) || value < low || value >= low + 2 ** 32) {
          throw new KernelError("PARAMS", `kernels/${launch.kernel}.wgsl: param ${name} = ${value} is not a ${type}`);
        }
        paramWords[i] = value;
      }
      key += `${paramWords[i]},`;
    });
    let slot = this.#paramsSlots.get(key);
    if (slot === undefined) {
      if (this.#paramsSlots.size === PARAMS_SLOTS) {
        this.flush(); // recorded launches still point at the old contents
        this.#paramsSlots.clear();
        this.#forgetGroups();
      }
      slot = { index: this.#paramsSlots.size, words: paramWords.slice(0, wgsl.params.length) };
      this.#writeParams(this.#params, slot);
      this.#paramsSlots.set(key, slot);
    }
    return slot;
  }

  /** Gives a recording's launches params that nobody overwrites: those of `launch` are recycled. */
  #pin(launches: Recorded[]): GPUBuffer | undefined {
    const slots = new Map<ParamsSlot, ParamsSlot>();
    for (const { params } of launches.map((launch) => launch.group)) {
      if (params && !slots.has(params)) slots.set(params, { ...params, index: slots.size });
    }
    if (slots.size === 0) return undefined;
    const buffer = this.#paramsOf(slots.size);
    for (const slot of slots.values()) this.#writeParams(buffer, slot);
    const groups = new Map<Group, Group>();
    launches.forEach(({ pipeline, group, grid }, i) => {
      if (!group.params) return;
      const pinned = groups.get(group) ?? this.#bind(pipeline, group.storages, slots.get(group.params), buffer);
      groups.set(group, pinned);
      launches[i] = { pipeline, group: pinned, grid };
    });
    return buffer;
  }

  #grid({ kernel, workgroups }: Launch): readonly [number, number, number] {
    const most = this.caps.maxWorkgroupsPerDimension;
    if (![workgroups].flat().every((n) => Number.isSafeInteger(n) && n >= 0)) {
      throw new KernelError("GRID", `kernels/${kernel}.wgsl: ${workgroups} is not a number of workgroups`);
    }
    if (typeof workgroups === "number") {
      if (workgroups <= most) return [workgroups, 1, 1];
      const rows = Math.ceil(workgroups / most);
      if (rows > most) throw new KernelError("GRID", `kernels/${kernel}.wgsl: ${workgroups} workgroups are too many`);
      return [Math.ceil(workgroups / rows), rows, 1];
    }
    if (workgroups.some((n) => n > most)) {
      throw new KernelError("GRID", `kernels/${kernel}.wgsl: a grid of [${workgroups.join(", ")}] exceeds ${most}`);
    }
    return workgroups;
  }

  #submit(tail: ((encoder: GPUCommandEncoder) => void) | undefined): void {
    const { handle } = this;
    const recorded = this.#recorded;
    this.#recorded = [];
    this.#launched = 0;
    this.#pending.clear();
    this.#replayed.clear();
    this.counts.submits++;
    const call = this.#call;
    try {
      this.#guard("submitting work", ["validation"], () => {
        const encoder = handle.createCommandEncoder();
        if (this.#profile) this.#encodeTimed(encoder, recorded, this.#profile);
        else if (recorded.length) this.#encode(encoder.beginComputePass(), recorded);
        tail?.(encoder);
        handle.queue.submit([encoder.finish()]);
      });
    } catch (error) {
      this.#fail(call, error as EngineError); // thrown by the next await, as what the GPU itself refuses
    }
  }

  #encode(pass: GPUComputePassEncoder, launches: readonly Recorded[]): void {
    let current: Pipeline | undefined;
    let bound: Group | undefined;
    for (const { pipeline, group, grid } of launches) {
      if (pipeline !== current) pass.setPipeline(pipeline.handle);
      if (group !== bound) pass.setBindGroup(0, group.handle);
      current = pipeline;
      bound = group;
      pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    }
    pass.end();
  }

  #encodeTimed(encoder: GPUCommandEncoder, launches: readonly Recorded[], profile: Profile): void {
    if (launches.length === 0) return;
    const { handle } = this;
    const querySet = handle.createQuerySet({ type: "timestamp", count: launches.length * 2 });
    launches.forEach((launch, i) => {
      const timestampWrites = { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
      this.#encode(encoder.beginComputePass({ timestampWrites }), [launch]);
    });
    const size = launches.length * 16;
    const resolved = this.#createBuffer({ size, usage: BUFFER_USAGE.QUERY_RESOLVE | BUFFER_USAGE.COPY_SRC });
    const staging = this.#createBuffer({ size, usage: BUFFER_USAGE.MAP_READ | BUFFER_USAGE.COPY_DST });
    encoder.resolveQuerySet(querySet, 0, launches.length * 2, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, size);
    const names = launches.map((launch) => launch.pipeline.wgsl.label);
    const call = this.#call;
    const collect = async () => {
      const mapped = this.#asked(() => staging.mapAsync(MAP_READ));
      const promise = mapped.then(() => staging.getMappedRange().slice(0));
      const stamps = new BigInt64Array(await this.#wait(call, { what: "reading times", promise, endsWithWork: true }));
      for (const object of [staging, resolved, querySet]) object.destroy();
      names.forEach((kernel, i) => {
        const time = profile.times.get(kernel) ?? { kernel, launches: 0, nanoseconds: 0 };
        time.launches++;
        time.nanoseconds += Number(stamps[2 * i + 1] - stamps[2 * i]);
        profile.times.set(kernel, time);
      });
    };
    // The map must be asked for after the submit; a microtask is late enough.
    const collected = Promise.resolve().then(collect);
    collected.catch(() => {}); // profile() may have thrown before it comes to wait for this
    profile.pending.push(collected);
  }

  /**
   * Makes a call to the driver. What it throws comes out typed; what it says later, of the kinds in `filters`, becomes the
   * failure of the call at hand.
   *
   * @param onRefused called when it says so
   */
  #guard<T>(what: string, filters: readonly GPUErrorFilter[], fn: () => T, onRefused?: () => void): T {
    const { handle } = this;
    const call = this.#call;
    const refused = (error: EngineError) => {
      onRefused?.();
      this.#fail(call, error);
    };
    try {
      for (const filter of filters) handle.pushErrorScope(filter);
      try {
        return fn();
      } finally {
        for (const _ of filters) call.check(this.#popErrorScope(refused));
      }
    } catch (cause) {
      throw cause instanceof EngineError ? cause : (this.#lost ?? failed(what, cause));
    }
  }

  #popErrorScope(refused: (error: EngineError) => void): Promise<void> {
    return this.#asked(() => this.handle.popErrorScope()).then(
      (error) => {
        if (error) refused(translate(error));
      },
      (cause) => refused(failed("the driver's check", cause)),
    );
  }

  /** A promise of the driver's, also where asking for it throws. */
  #asked<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return ask();
    } catch (cause) {
      return Promise.reject(cause);
    }
  }

  async #throwFailure(call: Call): Promise<void> {
    while (call.checks.size > 0) {
      await this.#wait(call, { what: "the driver's checks", promise: Promise.all(call.checks), endsWithWork: true });
    }
    if (this.#lost) throw this.#lost;
    const { failure } = call;
    if (!failure) return;
    if (call === this.#outside) {
      // It has been thrown, by all that waited for it: what comes next begins anew.
      this.#outside = new Call();
      if (this.#call === call) this.#call = this.#outside;
    }
    throw failure;
  }

  /**
   * What a promise of the driver's gives, if it does so in time, before the device is lost and before somebody ends the
   * wait for `call`: some promises never settle. Not by Promise.race, which would leave something on the promise of the
   * loss at every wait, for the life of the device.
   */
  #wait<T>(call: Call, { what, promise, endsWithWork }: Wait<T>, code?: string): Promise<T> {
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
          await this.#consequence(call);
          stop(this.#lost ?? call.failure ?? failed(what, cause, code));
        },
      );
      if (this.#lost) return stop(this.#lost);
      if (call.signal?.aborted) return stop(call.signal.reason);
      this.#waiting.add(stop);
      call.waiting.add(stop);
      after(this.#timeoutMs, () => timedOut(`no answer for ${this.#timeoutMs / 1000} s`));
      if (!endsWithWork || this.#timeoutMs <= 2 * ANSWER_MS) return;
      after(ANSWER_MS, () => {
        const idle = () =>
          after(ANSWER_MS, () => timedOut("the GPU has done its work, but the driver does not answer"));
        this.#asked(() => this.handle.queue.onSubmittedWorkDone()).then(idle, () => {});
      });
    });
  }

  /** Waits a little for what a rejection may be a consequence of, and which says more. */
  #consequence(call: Call): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiting.delete(done);
        resolve();
      };
      const timer = setTimeout(done, CAUSE_MS);
      this.#waiting.add(done);
      if (this.#lost) done();
      void Promise.all(call.checks).then(() => {
        if (call.failure) done();
      });
    });
  }

  /** Notes a failure of a call, and forgets what may have been made of what is not there. */
  #fail(call: Call, error: EngineError): void {
    // The first, but for want of memory: that is said later than what a buffer which is none then leads to.
    if (error.code === "GPU_OOM" && call.failure?.code === "GPU_VALIDATION") call.failure = error;
    call.failure ??= error;
    if (this.#destroyed || this.#lost) return;
    this.flush();
    this.#paramsSlots.clear();
    this.#forgetGroups();
  }
}

/** What a driver may say of a call, but for its own mistakes. The innermost scope is the last. */
const ERRORS: readonly GPUErrorFilter[] = ["out-of-memory", "validation"];
const TIMEOUT_HINT = { hint: "open a new device; where this was only slow, raise INSTRUCTBLIP_GPU_TIMEOUT (seconds)" };

interface Profile {
  readonly times: Map<string, KernelTime>;
  readonly pending: Promise<void>[];
}

const paramWords = new Uint32Array(PARAMS_SLOT / 4);
const paramFloats = new Float32Array(paramWords.buffer);

function pipelineKey({ kernel, uses, overrides }: Kernel): string {
  let key = kernel;
  for (const name in uses) key += `|${name}=${uses[name]}`;
  for (const name in overrides) key += `|${name}:${overrides[name]}`;
  return key;
}

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

function expectShapeOf(shape: Shape): void {
  if (Array.isArray(shape) && shape.every((n) => Number.isSafeInteger(n) && n >= 0)) return;
  throw new ShapeError(`a tensor cannot have the shape ${shown(shape)}`);
}
