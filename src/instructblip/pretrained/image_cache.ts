/**
 * The image cache: states of the last images that do not depend on the question, so that for ten questions about an image it
 * is encoded once. Images are identified by their pixels.
 */
import type { Device } from "../../tensor/device/device.ts";
import { DeviceError } from "../../tensor/errors.ts";
import { contiguous, copy } from "../../tensor/ops/copy.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { stack } from "../processing/image_processor.ts";
import type { HostTensor } from "./inputs.ts";

interface Entry {
  /** f32[3, H, W] */
  readonly pixels: Float32Array;
  /** The rest of its key: size, and whether positions are interpolated. */
  readonly kind: string;
  /** f32[1, …] */
  readonly states: Tensor;
}

export class ImageCache {
  readonly device: Device;
  readonly #capacity: number;
  /** Entries of successful calls, the most recently used last. */
  #entries: Entry[] = [];
  /** Calls under way, and the entries that they read: these are not freed before the calls end. */
  readonly #lookups = new Set<ImageLookup>();
  readonly #onShortage = () => this.#evict((entry) => ![...this.#lookups].some(({ used }) => used.has(entry)));

  /** @param capacity most images that are kept */
  constructor(device: Device, capacity: number) {
    this.device = device;
    this.#capacity = capacity;
  }

  /** Number of images whose states are kept. */
  get size(): number {
    return this.#entries.length;
  }

  /** Begins a call, which must be ended; undefined if the capacity is 0. */
  lookup(): ImageLookup | undefined {
    return this.#capacity === 0 ? undefined : new ImageLookup(this);
  }

  /** @param kind the key besides pixels */
  find(pixels: Float32Array, kind: string): Entry | undefined {
    return this.#entries.find((entry) => entry.kind === kind && areEqual(entry.pixels, pixels));
  }

  begin(lookup: ImageLookup): void {
    this.#lookups.add(lookup);
  }

  /** Keeps the entries that a call has computed or used. */
  end(lookup: ImageLookup, fresh: readonly Entry[], failure: unknown): void {
    this.#lookups.delete(lookup);
    if (failure instanceof DeviceError) this.#evict(() => true); // memory may be short
    const { used } = lookup;
    const known = this.#entries.filter((entry) => used.has(entry));
    this.#entries = [...this.#entries.filter((entry) => !used.has(entry)), ...known, ...fresh];
    for (const { states } of this.#entries.splice(0, this.#entries.length - this.#capacity)) states.dispose();
    const { shortage } = this.device.memory;
    if (this.#entries.length > 0) shortage.add(this.#onShortage);
    else shortage.delete(this.#onShortage);
  }

  /** Frees all entries. */
  clear(): void {
    this.#evict(() => true);
    this.device.memory.shortage.delete(this.#onShortage);
  }

  #evict(which: (entry: Entry) => boolean): void {
    for (const entry of this.#entries) if (which(entry)) entry.states.dispose();
    this.#entries = this.#entries.filter((entry) => !which(entry));
  }
}

/** The images of one call. */
export class ImageLookup {
  readonly #cache: ImageCache;
  /** Kept entries that this call reads. */
  readonly used = new Set<Entry>();
  /** Entries that this call has computed; it may still fail. */
  #fresh: Entry[] = [];

  constructor(cache: ImageCache) {
    this.#cache = cache;
  }

  /**
   * The states of `images`, in their order: f32[n, …]. States that are not cached are computed, equal images once.
   *
   * @param images f32[n, 3, H, W]; its data must not change any more
   * @param compute f32[m, 3, H, W] -> f32[m, …]
   */
  states(images: HostTensor, interpolate: boolean, compute: (images: HostTensor) => Tensor): Tensor {
    const { device } = this.#cache;
    this.#cache.begin(this);
    const [n, C, H, W] = sizes(images.shape, 4);
    const size = images.data.length / n;
    const rows = Array.from({ length: n }, (_, i) => images.data.subarray(i * size, (i + 1) * size));
    const kind = `${H} x ${W}${interpolate ? ", interpolated" : ""}`;
    const found = rows.map((row) => this.#cache.find(row, kind));
    for (const entry of found) if (entry) this.used.add(entry); // computing the others must not evict these
    const missing = rows.filter((row, i) => !found[i] && rows.findIndex((other) => areEqual(other, row)) === i);
    if (missing.length > 0) {
      const computed = compute(stack(missing.map((data) => ({ data, shape: [1, C, H, W] }))));
      device.settle(); // launches a deferred product
      missing.forEach((row, i) => {
        const states = missing.length === 1 ? computed : contiguous(computed.narrow(0, i, 1));
        device.memory.keep(states.storage);
        this.#fresh.push({ pixels: row.slice(), kind, states });
      });
      if (missing.length === n) return computed;
    }
    const entries = rows.map((row, i) => found[i] ?? this.#fresh.find(({ pixels }) => areEqual(pixels, row))!);
    const first = entries[0]!.states;
    if (n === 1) return first;
    const states = device.empty([n, ...first.shape.slice(1)]);
    entries.forEach((entry, i) => {
      copy(entry.states, states.narrow(0, i, 1));
    });
    return states;
  }

  /** Ends the call. @param failure its error, if any: its results may then be wrong */
  end(failure?: unknown): void {
    const fresh = this.#fresh;
    this.#fresh = [];
    if (failure !== undefined) for (const { states } of fresh) states.dispose();
    this.#cache.end(this, failure === undefined ? fresh : [], failure);
    this.used.clear();
  }
}

/**
 * The images of a batch without repetitions, and which of them each row shows; undefined if all differ.
 *
 * @param images f32[n, 3, H, W]
 */
export function sharedImages({ data, shape }: HostTensor): { images: HostTensor; shown: Uint32Array } | undefined {
  const [n, C, H, W] = sizes(shape, 4);
  const size = data.length / n;
  const distinct: Float32Array[] = [];
  const shown = Uint32Array.from({ length: n }, (_, i) => {
    const row = data.subarray(i * size, (i + 1) * size);
    const known = distinct.findIndex((other) => areEqual(other, row));
    return known >= 0 ? known : distinct.push(row) - 1;
  });
  if (distinct.length === n) return undefined;
  return { images: stack(distinct.map((row) => ({ data: row, shape: [1, C, H, W] }))), shown };
}

/** Compares bits, not numbers. */
function areEqual(a: Float32Array, b: Float32Array): boolean {
  if (a.length !== b.length) return false;
  const bits = ({ buffer, byteOffset, length }: Float32Array) => new Uint32Array(buffer, byteOffset, length);
  const [x, y] = [bits(a), bits(b)];
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
}
