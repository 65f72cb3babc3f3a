/**
 * The Tensor: a shape over a buffer on a device, and views of it that move no data. No arithmetic here; see ops/. Also the
 * interface of Device, with the types it takes, as the two refer to each other; see device/.
 */
import type { BusyTime } from "./device/busy_time.ts";
import type { Call } from "./device/call.ts";
import type { Caps } from "./device/caps.ts";
import type { Memory, Storage } from "./device/memory.ts";
import { type ActivationDType, DTYPES } from "./dtype.ts";
import { ShapeError } from "./errors.ts";
import { axis, formatShape, isDense, resolveShape, type Shape, sameShape, sizeOf, stridesOf } from "./shape.ts";
import type { Uses } from "./wgsl.ts";

/** The array that `read()` returns for a dtype. */
export type HostArray<D extends ActivationDType> = D extends "f32" ? Float32Array : Uint32Array;

/** A storage that is not computed yet; see fuse.ts. */
export interface Deferred {
  /** Whether it is still to be launched. */
  readonly isDeferred: boolean;
  /** Launches it unless that has been done. */
  storageOf(): Storage;
}

/**
 * An n-dimensional array of f32 or u32 on a device. Views share storage; `strides` and `offset` count elements.
 *
 * The storage of a matrix product may be deferred (fuse.ts): it is allocated, and the product launched, at its first use.
 */
export class Tensor<D extends ActivationDType = "f32"> {
  readonly device: Device;
  readonly dtype: D;
  readonly shape: Shape;
  readonly strides: Shape;
  readonly offset: number;
  readonly #source: Storage | Deferred;

  constructor(
    device: Device,
    dtype: D,
    shape: Shape,
    source: Storage | Deferred,
    strides: Shape = stridesOf(shape),
    offset = 0,
  ) {
    this.device = device;
    this.dtype = dtype;
    // A copy: the caller may change his list.
    this.shape = Object.isFrozen(shape) ? shape : Object.freeze([...shape]);
    this.#source = source;
    this.strides = strides;
    this.offset = offset;
  }

  /** The storage of the elements. Launches the product that computes them, if it is deferred. */
  get storage(): Storage {
    return "storageOf" in this.#source ? this.#source.storageOf() : this.#source;
  }

  /** The product that computes the elements, if it has not been launched. */
  get deferred(): Deferred | undefined {
    return "storageOf" in this.#source && this.#source.isDeferred ? this.#source : undefined;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Bytes of the elements, without the gaps of a strided view. */
  get bytes(): number {
    return this.size * DTYPES[this.dtype].bytes;
  }

  /** Whether the elements are contiguous and start at the storage's first, as most kernels require. */
  get isContiguous(): boolean {
    return this.offset === 0 && isDense(this.shape, this.strides);
  }

  /** The same elements under another shape; one size may be -1. A strided view must be made contiguous first. */
  reshape(shape: Shape): Tensor<D> {
    const resolved = resolveShape(this.size, shape);
    if (sameShape(resolved, this.shape)) return this;
    if (!this.isContiguous) {
      throw new ShapeError(
        `reshape: ${formatShape(this.shape)} with strides ${formatShape(this.strides)} is not contiguous`,
      );
    }
    return new Tensor(this.device, this.dtype, resolved, this.#source);
  }

  /** Elements `start … start + length - 1` of dimension `dim`. */
  narrow(dim: number, start: number, length: number): Tensor<D> {
    const d = axis("narrow", this.rank, dim);
    if (start < 0 || length < 0 || start + length > this.shape[d]!) {
      throw new ShapeError(
        `narrow: ${start} … ${start + length} lies outside dimension ${d} of ${formatShape(this.shape)}`,
      );
    }
    const shape = this.shape.with(d, length);
    return new Tensor(
      this.device,
      this.dtype,
      shape,
      this.#source,
      this.strides,
      this.offset + start * this.strides[d]!,
    );
  }

  /** Splits dimension `dim` into `sizes`: `[B, T, H·d]` -> `[B, T, H, d]`. */
  unflatten(dim: number, sizes: Shape): Tensor<D> {
    const d = axis("unflatten", this.rank, dim);
    const split = resolveShape(this.shape[d]!, sizes);
    const shape = [...this.shape.slice(0, d), ...split, ...this.shape.slice(d + 1)];
    const inner = stridesOf(split).map((s) => s * this.strides[d]!);
    const strides = [...this.strides.slice(0, d), ...inner, ...this.strides.slice(d + 1)];
    return new Tensor(this.device, this.dtype, shape, this.#source, strides, this.offset);
  }

  /** The dimensions in another order. */
  permute(order: readonly number[]): Tensor<D> {
    const dims = order.map((dim) => axis("permute", this.rank, dim));
    if (dims.length !== this.rank || new Set(dims).size !== this.rank) {
      throw new ShapeError(`permute: [${order.join(", ")}] is not an order of ${this.rank} dimensions`);
    }
    const shape = dims.map((d) => this.shape[d]!);
    const strides = dims.map((d) => this.strides[d]!);
    return new Tensor(this.device, this.dtype, shape, this.#source, strides, this.offset);
  }

  /** Repeats dimensions of size 1 without copying. */
  expand(shape: Shape): Tensor<D> {
    if (shape.length !== this.rank || shape.some((n, i) => n !== this.shape[i] && this.shape[i] !== 1)) {
      throw new ShapeError(`expand: ${formatShape(this.shape)} does not expand to ${formatShape(shape)}`);
    }
    const strides = this.strides.map((s, i) => (this.shape[i] === shape[i] ? s : 0));
    return new Tensor(this.device, this.dtype, shape, this.#source, strides, this.offset);
  }

  /** The elements, on the host. Waits for the work recorded so far; throws its first error. */
  read(): Promise<HostArray<D>> {
    return this.device.read(this);
  }

  /** `Tensor f32[2, 3] on llvmpipe (LLVM …)`; the elements are on the device; {@link read} copies them. */
  toString(): string {
    return `Tensor ${this.dtype}${formatShape(this.shape)} on ${this.device.caps.description}`;
  }

  /** Releases the storage, which every view shares. Harmless when repeated. */
  dispose(): void {
    this.device.memory.release(this.storage);
  }
}

/** Runs kernels and holds their tensors; openDevice() returns one. Launches are recorded and submitted in batches. */
export interface Device {
  readonly handle: GPUDevice;
  readonly caps: Caps;
  readonly memory: Memory;
  /** Observers of the call under way. Each sees the output that the one before it has returned. */
  observers: readonly Observer[];
  /** Launches and submits since the device was opened. */
  readonly counts: { launches: number; submits: number; bindGroups: number };

  /** A tensor with uninitialized elements. */
  empty<D extends ActivationDType = "f32">(shape: Shape, dtype?: D, label?: string): Tensor<D>;
  /** A tensor holding `data`. f32 from numbers or a Float32Array; a Uint32Array gives u32. */
  tensor(data: Uint32Array, shape: Shape): Tensor<"u32">;
  tensor(data: Float32Array | readonly number[], shape: Shape): Tensor<"f32">;
  /** A tensor that outlives scopes, for weights and caches: `bytes` bytes, zero-filled by WebGPU. */
  persistent<D extends ActivationDType = "f32">(shape: Shape, dtype?: D, label?: string): Tensor<D>;
  /** Overwrites a tensor without gaps from the host. Launches recorded before read the old elements. */
  write(tensor: Tensor<ActivationDType>, data: Float32Array | Uint32Array): void;
  /** Overwrites bytes of a storage from the host; offset and length must be multiples of 4. */
  writeBytes(storage: Storage, offset: number, data: Uint8Array | Float32Array | Uint32Array): void;
  /** Copies a contiguous tensor to the host. */
  read<D extends ActivationDType>(tensor: Tensor<D>): Promise<HostArray<D>>;

  /**
   * Runs `fn` and releases every activation allocated in it that its result does not contain. `fn` may be async; calls that
   * overlap in time must go through `exclusive`.
   */
  scope<T>(fn: () => T): T;
  /**
   * Runs async work after all earlier `exclusive` work: one model call at a time uses the device. A GPU error meanwhile is
   * this work's failure: it rejects with it, and the next call is not affected.
   *
   * @param signal rejects its waits, for its turn and for the GPU, with its reason
   */
  exclusive<T>(fn: () => Promise<T>, options?: { signal?: AbortSignal | null | undefined }): Promise<T>;
  /** A call for work that does not need exclusive use of the device, such as loading; see `within`. */
  call(signal?: AbortSignal | undefined): Call;
  /** Runs `fn` as part of `call`: its work until it returns or first awaits, and that wait, belong to the call. */
  within<T>(call: Call, fn: () => T): T;
  /** Rejects the pending waits of the exclusive work under way with `reason`. */
  interrupt(reason: unknown): void;

  /** Records one run of a kernel. */
  launch(launch: Launch): void;
  /**
   * Runs `fn` and keeps its launches for replay: the same kernels on the same buffers, without running `fn` again. State
   * that changes from run to run must therefore be in tensors allocated before, and be changed by launches; a write from the
   * host inside `fn` throws. Tensors in the result are kept, and hold the values of the last run. A replay after a tensor
   * allocated before has been disposed throws DISPOSED.
   */
  capture<T>(fn: () => T): Captured<T>;
  /**
   * Defers a product until its epilogue is known. @param instead the deferred product that it replaces, if that is still
   * deferred
   */
  defer(product: Deferred, instead?: Deferred): void;
  /** The opposite of `defer`: the caller launches it, or a product that includes it. */
  undefer(product: Deferred): void;
  /** Launches the deferred product without further epilogue. */
  settle(): void;
  /** Submits what has been recorded. Does not wait. */
  flush(): void;
  /** Waits until everything recorded has run; throws the first error. */
  sync(): Promise<void>;

  /** A dry run: the kernels that `fn` would launch. Nothing is launched or written, and what `fn` allocates is freed. */
  dryRun(fn: () => unknown): Kernel[];
  /** Compiles kernels ahead of use, in parallel. */
  prepare(kernels: Iterable<Kernel>): Promise<void>;
  /**
   * Runs `fn` and times every launch in it; the launches and their order are the same as otherwise. Slower.
   *
   * @param clock default: `timestamps` where the adapter has them, else `sync`
   * @throws DeviceError FEATURE without timestamps; KernelError PROFILE within another `profile`
   */
  profile(fn: () => unknown, options?: { readonly clock?: ProfileClock | undefined }): Promise<Profiled>;
  /** Measures from now on how long the device has work, as seen by the host. */
  measureBusy(): BusyTime;
  /** For a profile: the path of the module that records launches and uploads, "" outside of any; see `atSite`. */
  site: string;
  /** Frees everything at once. Later calls throw DISPOSED. Harmless when repeated. */
  destroy(): void;
}

/** One run of a kernel. */
export interface Launch {
  /** Stem of the file in kernels/. */
  readonly kernel: string;
  /** Fills the kernel's `// @use slot = …` lines. */
  readonly uses?: Uses;
  /** Values of `override` constants. */
  readonly overrides?: Readonly<Record<string, number>>;
  /** Tensors by the names the shader gives them. */
  readonly bindings: Readonly<Record<string, Tensor<ActivationDType>>>;
  /** Every field of the shader's Params, by name. */
  readonly params?: Readonly<Record<string, number>>;
  /** Workgroups: a count, folded into two dimensions where it exceeds 65,535, or the exact grid. */
  readonly workgroups: number | readonly [number, number, number];
  /** Its work, for a profile. Default: no operations, and all bytes of the bindings. */
  readonly work?: () => { readonly flops?: number; readonly bytes?: number };
}

/**
 * What observers may see and replace: a module's output, the input of a layer, a linear layer or a norm; of an attention its
 * heads before the output projection, f32[B, T, H, d], and its edges from queries to keys, f32[B, H, T, S]: ones, 0 in a
 * replacement where an edge is cut.
 */
export type SiteKind = "output" | "input" | "heads" | "edges";
/**
 * What observers may only see, by Hugging Face's names: the input of each layer and output of the last (`hidden_states`), and
 * the attention probabilities.
 */
export type StateKind = "hidden_states" | "attentions" | "cross_attentions";
export type ObservedKind = SiteKind | StateKind;

/** Sees the outputs of modules during a call; see modules/observer.ts. */
export interface Observer {
  /** Whether `see` is to be called. @param path of the module in the checkpoint */
  wants(path: string, kind: ObservedKind): boolean;
  /** @returns a replacement for the tensor, if any; a state cannot be replaced */
  see(path: string, kind: ObservedKind, tensor: Tensor<ActivationDType>): Tensor<ActivationDType> | undefined;
  /** Whether it may want anything at or below a path; where it does not, cached results may be used. Default: it may. */
  reaches?(path: string): boolean;
}

/** A kernel to compile. */
export type Kernel = Pick<Launch, "kernel" | "uses" | "overrides">;

/** Captured launches, for replay; see `capture`. */
export interface Captured<T> {
  /** The result of the captured function; its tensors hold the values of the last run. */
  readonly result: T;
  readonly launches: number;
  /** Records all its launches once more. Does not wait, and allocates nothing. */
  replay(): void;
  /** Frees the result's tensors and all intermediates. */
  dispose(): void;
}

/**
 * How launches are timed: `timestamps` of the GPU before and after each; or `sync`, the host's clock around each, which is
 * submitted and waited for alone, so that what that costs is in its time.
 */
export type ProfileClock = "timestamps" | "sync";

/** The work of a launch. */
export interface LaunchWork {
  /** Floating-point operations, a multiply-add is two; only those of products, attention and interpolation are counted. */
  readonly flops: number;
  /** Bytes of its inputs and outputs, each once. */
  readonly bytes: number;
  /** Those of weights and caches among them, which a launch does not find in caches of the GPU. */
  readonly persistent: number;
}

/** One timed launch. Times are in milliseconds of `performance.now()`. */
export interface LaunchTime extends LaunchWork {
  /** With the parts in its slots: `matmul_tile weight=weight_int4`. */
  readonly kernel: string;
  /** `Device.site` when it was recorded; a replayed launch has that of its recording. */
  readonly site: string;
  readonly start: number;
  readonly ms: number;
}

/** An upload: the host's time to hand it to the driver. */
export interface UploadTime {
  readonly site: string;
  readonly bytes: number;
  readonly start: number;
  readonly ms: number;
}

/** What `profile` has measured. */
export interface Profiled {
  readonly clock: ProfileClock;
  /** Milliseconds between two times that the clock can tell apart, as far as is seen; browsers round timestamps. */
  readonly step: number;
  /** In the order of their execution. */
  readonly launches: readonly LaunchTime[];
  readonly uploads: readonly UploadTime[];
  /** Bytes of buffers in use, and kept for reuse, whenever they changed. */
  readonly memory: readonly { readonly at: number; readonly live: number; readonly pooled: number }[];
  /** When `fn` began and had ended, its work on the GPU included. */
  readonly start: number;
  readonly ms: number;
}

/** Runs `fn`, whose launches and uploads belong to the module `site` in a profile. */
export function atSite<T>(device: Device, site: string, fn: () => T): T {
  const before = device.site;
  device.site = site;
  try {
    return fn();
  } finally {
    device.site = before;
  }
}

/** The storages of every tensor inside a result: a tensor, or arrays and plain objects of tensors. */
export function storagesIn(result: unknown, found = new Set<Storage>()): Set<Storage> {
  if (result instanceof Tensor) found.add(result.storage);
  else if (Array.isArray(result)) for (const item of result) storagesIn(item, found);
  else if (result !== null && typeof result === "object" && Object.getPrototypeOf(result) === Object.prototype) {
    for (const item of Object.values(result)) storagesIn(item, found);
  }
  return found;
}
