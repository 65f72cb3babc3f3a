/**
 * The GPU device: tensors, `launch`, upload, read-back and capture. open_device.ts opens one.
 *
 * Launches are recorded and submitted in batches. Nothing here waits. A GPU error is thrown, typed, by the next `await`
 * (`read` or `sync`) of the call that caused it (driver.ts), and later calls are not affected. Only the loss of the device
 * is permanent.
 */
import type { ActivationDType } from "../dtype.ts";
import { DeviceError, DTypeError, type EngineError, KernelError, ShapeError } from "../errors.ts";
import { formatShape, isDense, type Shape, sizeOf } from "../shape.ts";
import { shown } from "../shown.ts";
import {
  type Captured,
  type Deferred,
  type Device,
  type HostArray,
  type Kernel,
  type Launch,
  type Observer,
  type ProfileClock,
  type Profiled,
  storagesIn,
  Tensor,
} from "../tensor.ts";
import { fileOf } from "../wgsl.ts";
import { Backoff, threadSleep } from "./backoff.ts";
import { BindGroups, type Dispatch, encode } from "./bind_groups.ts";
import { BusyTime } from "./busy_time.ts";
import { Call } from "./call.ts";
import type { Caps } from "./caps.ts";
import { Driver } from "./driver.ts";
import { Arena, Memory, type Storage } from "./memory.ts";
import { Pipelines, pipelineKey } from "./pipelines.ts";
import { Profile } from "./profile.ts";
import { Staging } from "./staging.ts";

export type {
  Captured,
  Device,
  Kernel,
  Launch,
  LaunchTime,
  LaunchWork,
  ObservedKind,
  Observer,
  ProfileClock,
  Profiled,
  SiteKind,
  StateKind,
  UploadTime,
} from "../tensor.ts";

/** Launches in a batch. A batch is submitted while the next one is still being recorded. */
const BATCH = 32;

/** The Device of a GPU. The interface documents its methods. */
export class GpuDevice implements Device {
  readonly handle: GPUDevice;
  readonly caps: Caps;
  readonly memory: Memory;
  /** Observers of the call under way. Each sees the output that the one before it has returned. */
  observers: readonly Observer[] = [];
  site = "";

  readonly #driver: Driver;
  readonly #pipelines: Pipelines;
  readonly #groups: BindGroups;
  readonly #staging: Staging;
  /** Kernels that would be launched, by their pipelines' keys; see `dryRun`. */
  #dryRun: Map<string, Kernel> | undefined;
  /** What the next submit runs, and how many of these were launched rather than replayed. */
  #dispatches: Dispatch[] = [];
  #launched = 0;
  /** The buffers that they read and write. A write from the host to any other buffer need not be ordered after them. */
  readonly #pending = new Set<GPUBuffer>();
  readonly #replayed = new Set<ReadonlySet<GPUBuffer>>();
  /** A product that waits for its epilogue; see fuse.ts. */
  #deferred: Deferred | undefined;
  /** The capture under way. */
  #capturing: { readonly launches: Dispatch[]; readonly storages: Set<Storage> } | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #profile: Profile | undefined;
  #busy: BusyTime | undefined;
  /** Launches and submits since the device was opened. */
  readonly counts = { launches: 0, submits: 0, bindGroups: 0 };

  /** Call `ready` afterwards; openDevice() does both. */
  constructor(handle: GPUDevice, caps: Caps, budget: number, timeout = caps.isSoftware ? 3600 : 600) {
    this.handle = handle;
    this.caps = caps;
    const backoff = new Backoff(caps.isSoftware ? threadSleep() : undefined);
    this.#driver = new Driver(handle, timeout, backoff, () => {
      this.flush();
      this.#groups.clear();
    });
    this.#pipelines = new Pipelines(this.#driver);
    this.#groups = new BindGroups(this.#driver, this.counts, () => this.flush());
    this.#staging = new Staging(this.#driver);
    const createBuffer = (descriptor: GPUBufferDescriptor, onRefused: () => void) =>
      this.#driver.createBuffer(descriptor, onRefused);
    const settle = () => this.settle();
    const onDestroy = (storage?: Storage) => {
      this.flush(); // recorded launches still need the buffers
      this.#groups.forget(storage);
    };
    this.memory = new Memory(createBuffer, { ...caps, budget }, settle, onDestroy, (buffer) =>
      this.#driver.inOrder(() => buffer.destroy()),
    );
  }

  measureBusy(): BusyTime {
    this.#busy = new BusyTime(this.handle.queue);
    return this.#busy;
  }

  /** Throws an error of the construction. */
  async ready(): Promise<void> {
    await this.#driver.ready();
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
    this.#driver.alive();
    this.settle();
    if (!storage.alive) throw new DeviceError("DISPOSED", "write: the tensor has been disposed");
    // Storage that outlives the dry run, such as a table that grew in it, is written: it is not written again.
    if (this.#dryRun && !storage.persistent) return;
    if (this.#capturing) throw new KernelError("CAPTURE", "write: a replay would not repeat a write from the host");
    if (this.#isPending(storage.buffer)) this.flush();
    if (data.byteLength === 0) return;
    const start = performance.now();
    const bytes = this.#driver.behind ? data.slice() : data; // the caller may change them before they are written
    const write = () => this.handle.queue.writeBuffer(storage.buffer, offset, bytes as BufferSource);
    this.#driver.inOrder(() => this.#driver.guard("an upload", [], write));
    const upload = { site: this.site, bytes: data.byteLength, start, ms: performance.now() - start };
    this.#profile?.uploaded(upload, this.memory.use);
  }

  scope<T>(fn: () => T): T {
    this.settle(); // its storage belongs to the scope it was made in
    const scope = this.memory.enter();
    const leave = <R>(result: R): R => {
      this.settle();
      this.memory.leave(scope, storagesIn(result));
      return result;
    };
    const fail = (error: unknown): never => {
      this.#deferred = undefined; // nothing refers to it any more
      this.memory.leave(scope, new Set());
      throw error;
    };
    try {
      const result = fn();
      // A deferred product may fail when it is launched, so leaving can fail, too.
      return result instanceof Promise ? (result.then(leave).catch(fail) as T) : leave(result);
    } catch (error) {
      return fail(error);
    }
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
    try {
      this.flush(); // earlier launches belong to other calls
    } catch {
      // So does a failure of one of them: it is thrown where its values are read.
    }
    this.#driver.call = call;
    try {
      const value = await fn();
      this.flush();
      await this.#driver.throwFailure(call);
      return value;
    } catch (error) {
      this.flush();
      await this.#driver.throwFailure(call).catch(() => {}); // errors that are still pending belong to this call too
      if (!(error instanceof DeviceError && error.code === "GPU")) throw error;
      await this.#driver.consequence(call);
      throw this.#driver.lost ?? error;
    } finally {
      this.#driver.leave();
    }
  }

  call(signal?: AbortSignal | undefined): Call {
    return new Call(signal);
  }

  within<T>(call: Call, fn: () => T): T {
    if (this.#driver.call === call) return fn();
    this.flush();
    return this.#driver.as(call, () => {
      try {
        return fn();
      } finally {
        this.flush();
      }
    });
  }

  interrupt(reason: unknown): void {
    this.#driver.call.interrupt(reason);
  }

  // --- launching -------------------------------------------------------------------------------------------------

  launch(launch: Launch): void {
    this.#driver.alive();
    this.settle();
    for (const name in launch.bindings) launch.bindings[name]!.deferred?.storageOf();
    if (this.#dryRun) {
      this.#dryRun.set(pipelineKey(launch), launch);
      return;
    }
    const pipeline = this.#pipelines.get(launch);
    const grid = this.#grid(launch);
    if (grid[0] * grid[1] * grid[2] === 0) return;
    const group = this.#groups.of(pipeline, launch, this);
    const dispatch = { pipeline, group, grid, launch, site: this.site };
    this.#dispatches.push(dispatch);
    this.#profile?.record(dispatch, this.memory.use);
    for (const { name } of pipeline.wgsl.bindings) this.#touch(launch.bindings[name]!.storage);
    this.#capturing?.launches.push(dispatch);
    this.counts.launches++;
    if (++this.#launched >= BATCH) this.flush();
  }

  capture<T>(fn: () => T): Captured<T> {
    this.settle();
    if (this.#capturing) throw new KernelError("CAPTURE", "capture: launches are already being captured");
    const arena = new Arena();
    const launches: Dispatch[] = [];
    const storages = new Set<Storage>();
    this.#capturing = { launches, storages };
    let result: T;
    try {
      result = this.memory.useArena(arena, () => this.scope(fn));
    } catch (error) {
      this.memory.releaseArena(arena);
      throw error;
    } finally {
      this.#capturing = undefined;
    }
    const kept = storagesIn(result);
    for (const storage of kept) this.memory.keep(storage);
    let params: GPUBuffer | undefined;
    try {
      params = this.#groups.pin(launches);
    } catch (error) {
      for (const storage of kept) this.memory.release(storage);
      this.memory.releaseArena(arena);
      throw error;
    }
    const buffers = new Set(Array.from(storages, ({ buffer }) => buffer));
    const needed = [...storages].filter(({ alive }) => alive); // the others are its own, in its arena
    return {
      result,
      launches: launches.length,
      replay: () => {
        this.#driver.alive();
        this.settle();
        if (!needed.every(({ alive }) => alive)) {
          throw new DeviceError("DISPOSED", "replay: a tensor that it works on has been disposed");
        }
        for (const launch of launches) {
          this.#dispatches.push(launch);
          this.#profile?.record(launch, this.memory.use);
        }
        this.#replayed.add(buffers);
        this.counts.launches += launches.length;
      },
      dispose: () => {
        this.flush();
        launches.length = 0;
        for (const storage of kept) this.memory.release(storage);
        this.memory.releaseArena(arena);
        this.#driver.inOrder(() => params?.destroy());
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
    if (this.#dispatches.length > 0) this.#submit(undefined);
  }

  async sync(): Promise<void> {
    this.#driver.alive();
    const call = this.#driver.call;
    this.flush();
    if (this.#driver.behind) await this.#driver.behind;
    const promise = this.#driver.awaited(() => this.handle.queue.onSubmittedWorkDone());
    await this.#driver.wait(call, { what: "waiting for the GPU", promise });
    await this.#driver.throwFailure(call);
  }

  async read<D extends ActivationDType>(tensor: Tensor<D>): Promise<HostArray<D>> {
    this.#driver.alive();
    if (!tensor.storage.alive) throw new DeviceError("DISPOSED", "read: the tensor has been disposed");
    if (!tensor.isContiguous) throw new ShapeError("read: a strided view must be made contiguous first");
    const call = this.#driver.call;
    const bytes = Math.max(4, tensor.bytes);
    const staging = this.#staging.take(bytes);
    try {
      this.#submit((encoder) => encoder.copyBufferToBuffer(tensor.storage.buffer, 0, staging, 0, bytes));
      if (this.#driver.behind) await this.#driver.behind; // a buffer that is being mapped takes no copy
      const mapped = this.#driver.map(staging, bytes);
      const promise = mapped.then(() => staging.getMappedRange(0, bytes).slice(0, tensor.bytes));
      const copy = await this.#driver.wait(call, { what: "reading back", promise, endsWithWork: true });
      staging.unmap();
      await this.#driver.throwFailure(call);
      this.#staging.keep(staging);
      return (tensor.dtype === "f32" ? new Float32Array(copy) : new Uint32Array(copy)) as HostArray<D>;
    } catch (error) {
      staging.destroy(); // it may still be mapped, or be invalid
      throw error;
    }
  }

  dryRun(fn: () => unknown): Kernel[] {
    const kernels = new Map<string, Kernel>();
    this.#dryRun = kernels;
    try {
      this.scope(() => void fn());
    } finally {
      this.#dryRun = undefined;
    }
    return [...kernels.values()].map(({ kernel, uses, overrides }) => ({
      kernel,
      uses: uses ?? {},
      overrides: overrides ?? {},
    }));
  }

  async prepare(kernels: Iterable<Kernel>): Promise<void> {
    this.#driver.alive();
    await this.#pipelines.prepare(kernels);
  }

  async profile(
    fn: () => unknown,
    { clock = this.caps.timestamps ? "timestamps" : "sync" }: { readonly clock?: ProfileClock | undefined } = {},
  ): Promise<Profiled> {
    if (clock === "timestamps" && !this.caps.timestamps) {
      throw new DeviceError("FEATURE", "this adapter has no timestamp-query", { hint: "the clock sync needs none" });
    }
    if (this.#profile) throw new KernelError("PROFILE", "profile: launches are already being timed");
    await this.sync();
    const profile = new Profile(this.#driver, clock);
    this.#profile = profile;
    try {
      await fn();
      await this.sync();
      return await profile.result(this.memory.use);
    } finally {
      this.#profile = undefined;
    }
  }

  /** `Device llvmpipe (LLVM …)`, and whether it is lost or destroyed. */
  toString(): string {
    const state = this.#driver.destroyed ? ", destroyed" : this.#driver.lost ? ", lost" : "";
    return `Device ${this.caps.description}${state}`;
  }

  destroy(): void {
    if (this.#driver.destroyed) return;
    this.#deferred = undefined;
    this.#dispatches = [];
    this.#driver.destroy();
    // A reference to this device must not keep the driver's objects alive.
    for (const known of [this.#pipelines, this.#groups, this.#staging]) known.clear();
  }

  // --- inside ----------------------------------------------------------------------------------------------------

  #bytes(shape: Shape): number {
    this.#driver.alive();
    expectShapeOf(shape);
    return sizeOf(shape) * 4;
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

  #grid({ kernel, workgroups }: Launch): readonly [number, number, number] {
    const most = this.caps.maxWorkgroupsPerDimension;
    if (![workgroups].flat().every((n) => Number.isSafeInteger(n) && n >= 0)) {
      throw new KernelError("GRID", `${fileOf(kernel)}: ${workgroups} is not a number of workgroups`);
    }
    if (typeof workgroups === "number") {
      if (workgroups <= most) return [workgroups, 1, 1];
      const rows = Math.ceil(workgroups / most);
      if (rows > most) throw new KernelError("GRID", `${fileOf(kernel)}: ${workgroups} workgroups are too many`);
      return [Math.ceil(workgroups / rows), rows, 1];
    }
    if (workgroups.some((n) => n > most)) {
      throw new KernelError("GRID", `${fileOf(kernel)}: a grid of [${workgroups.join(", ")}] exceeds ${most}`);
    }
    return workgroups;
  }

  #submit(tail: ((encoder: GPUCommandEncoder) => void) | undefined): void {
    const dispatches = this.#dispatches;
    this.#dispatches = [];
    this.#launched = 0;
    this.#pending.clear();
    this.#replayed.clear();
    this.counts.submits++;
    const profile = this.#profile;
    if (profile?.clock === "sync") {
      this.#driver.queue(() =>
        profile.time(dispatches, (one) => this.#encode((e) => encode(e.beginComputePass(), [one]))),
      );
      if (tail) this.#driver.queue(() => this.#encode(tail));
      return;
    }
    const encodeAll = (encoder: GPUCommandEncoder) => {
      if (profile) profile.encode(encoder, dispatches);
      else if (dispatches.length) encode(encoder.beginComputePass(), dispatches);
      tail?.(encoder);
    };
    this.#driver.inOrder(() => this.#encode(encodeAll));
  }

  /** Submits what `fill` encodes. */
  #encode(fill: (encoder: GPUCommandEncoder) => void): void {
    const { handle } = this;
    const call = this.#driver.call;
    try {
      this.#driver.guard("submitting work", ["validation"], () => {
        const encoder = handle.createCommandEncoder();
        fill(encoder);
        handle.queue.submit([encoder.finish()]);
      });
      this.#busy?.submitted();
    } catch (error) {
      this.#driver.fail(call, error as EngineError); // thrown by the next await, as any GPU error
    }
  }
}

function expectShapeOf(shape: Shape): void {
  if (Array.isArray(shape) && shape.every((n) => Number.isSafeInteger(n) && n >= 0)) return;
  throw new ShapeError(`a tensor cannot have the shape ${shown(shape)}`);
}
