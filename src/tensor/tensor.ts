/** The Tensor: a shape over a buffer on a device, and views of it that move no data. No arithmetic here; see ops/. */
import type { Device } from "./device/device.ts";
import type { Storage } from "./device/memory.ts";
import { type ActivationDType, DTYPES } from "./dtype.ts";
import { ShapeError } from "./errors.ts";
import type { Deferred } from "./fuse.ts";
import { axis, formatShape, isDense, resolveShape, type Shape, sameShape, sizeOf, stridesOf } from "./shape.ts";

/** What `read()` gives for a dtype. */
export type HostArray<D extends ActivationDType> = D extends "f32" ? Float32Array : Uint32Array;

/**
 * An n-dimensional array of f32 or u32 on a device. Views share storage; `strides` and `offset` count elements.
 *
 * The storage of a matrix product may be deferred (fuse.ts): it is made, and the product launched, when first asked for.
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
    // One's own: a caller may go on with his list.
    this.shape = Object.isFrozen(shape) ? shape : Object.freeze([...shape]);
    this.#source = source;
    this.strides = strides;
    this.offset = offset;
  }

  /** Where the elements are. Launches what they are computed by, if that is still deferred. */
  get storage(): Storage {
    return "storageOf" in this.#source ? this.#source.storageOf() : this.#source;
  }

  /** What the elements are computed by, if it has not been launched. */
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

  /** Bytes of the elements, gaps of a strided view not counted. */
  get bytes(): number {
    return this.size * DTYPES[this.dtype].bytes;
  }

  /** Whether the elements lie one after the other from the start of the storage, as most kernels want them. */
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
    if (start < 0 || length < 0 || start + length > this.shape[d]) {
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
      this.offset + start * this.strides[d],
    );
  }

  /** Splits dimension `dim` into `sizes`: `[B, T, H·d]` -> `[B, T, H, d]`. */
  unflatten(dim: number, sizes: Shape): Tensor<D> {
    const d = axis("unflatten", this.rank, dim);
    const split = resolveShape(this.shape[d], sizes);
    const shape = [...this.shape.slice(0, d), ...split, ...this.shape.slice(d + 1)];
    const inner = stridesOf(split).map((s) => s * this.strides[d]);
    const strides = [...this.strides.slice(0, d), ...inner, ...this.strides.slice(d + 1)];
    return new Tensor(this.device, this.dtype, shape, this.#source, strides, this.offset);
  }

  /** The dimensions in another order. */
  permute(order: readonly number[]): Tensor<D> {
    const dims = order.map((dim) => axis("permute", this.rank, dim));
    if (dims.length !== this.rank || new Set(dims).size !== this.rank) {
      throw new ShapeError(`permute: [${order.join(", ")}] is not an order of ${this.rank} dimensions`);
    }
    const shape = dims.map((d) => this.shape[d]);
    const strides = dims.map((d) => this.strides[d]);
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

  /** The elements, on the host. Waits for the work recorded so far; throws what went wrong in it. */
  read(): Promise<HostArray<D>> {
    return this.device.read(this);
  }

  /** `Tensor f32[2, 3] on llvmpipe (LLVM …)`; the elements are on the device, and {@link read} brings them. */
  toString(): string {
    return `Tensor ${this.dtype}${formatShape(this.shape)} on ${this.device.caps.description}`;
  }

  /** Gives the storage back; every view of it dies with it. Harmless when repeated. */
  dispose(): void {
    this.device.memory.release(this.storage);
  }
}
