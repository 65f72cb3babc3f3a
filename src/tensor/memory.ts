/**
 * GPU buffers: a pool of reusable ones for activations, exact ones for weights, and a byte budget over both, because no
 * driver says in time that memory has run out (lavapipe accepts 56 GiB of buffers without a word).
 */
import { DeviceError } from "./errors.ts";

/** A buffer on loan from the pool, shared by a tensor and its views. */
export class Storage {
  readonly id: number;
  readonly buffer: GPUBuffer;
  /** Bytes the owner asked for, rounded up to 16 so that a `vec4` array covers them. */
  readonly bytes: number;
  /** Weights and caches live until disposed, whatever scope they were made in. */
  readonly persistent: boolean;
  alive = true;

  constructor(id: number, buffer: GPUBuffer, bytes: number, persistent: boolean) {
    this.id = id;
    this.buffer = buffer;
    this.bytes = bytes;
    this.persistent = persistent;
  }
}

export interface MemoryUse {
  /** Bytes in buffers that are in use now. */
  readonly live: number;
  /** Bytes in buffers kept for reuse. */
  readonly pooled: number;
  /** The largest `live + pooled` there has been. */
  readonly peak: number;
  /** Buffers created since the device was opened; constant while a decode loop runs. */
  readonly created: number;
}

const USAGE = 0x80 | 0x08 | 0x04; // STORAGE | COPY_DST | COPY_SRC; the globals are missing in Node until a device is open

export class Memory {
  readonly #device: GPUDevice;
  readonly #maxBindingBytes: number;
  readonly #maxBufferBytes: number;
  readonly #budget: number;
  readonly #onDestroy: (storage?: Storage) => void;
  readonly #free = new Map<number, GPUBuffer[]>();
  readonly #scopes: Set<Storage>[] = [];
  readonly #buffers = new Map<Storage, number>();
  #live = 0;
  #pooled = 0;
  #peak = 0;
  #created = 0;
  #nextId = 1;

  /** `onDestroy` is called before a persistent storage, or all pooled buffers, are destroyed: bind groups hold them. */
  constructor(
    device: GPUDevice,
    limits: { maxBindingBytes: number; maxBufferBytes: number; budget: number },
    onDestroy: (storage?: Storage) => void,
  ) {
    this.#device = device;
    this.#maxBindingBytes = limits.maxBindingBytes;
    this.#maxBufferBytes = limits.maxBufferBytes;
    this.#budget = limits.budget;
    this.#onDestroy = onDestroy;
  }

  /** Memory in use, in bytes. */
  get use(): MemoryUse {
    return { live: this.#live, pooled: this.#pooled, peak: this.#peak, created: this.#created };
  }

  /** A buffer of at least `bytes` bytes. Its contents are whatever was there before. */
  allocate(bytes: number, what: string, persistent = false): Storage {
    const needed = Math.max(16, Math.ceil(bytes / 16) * 16);
    if (!Number.isSafeInteger(needed)) throw new DeviceError("LIMIT", `${what}: ${bytes} is not a size`);
    if (needed > this.#maxBindingBytes) {
      throw new DeviceError(
        "LIMIT",
        `${what} needs ${formatBytes(needed)} in one piece; this adapter binds ${formatBytes(this.#maxBindingBytes)} at most`,
        { hint: "a smaller batch or a shorter prompt makes activations smaller; weights are split by themselves" },
      );
    }
    const capacity = persistent ? needed : Math.min(sizeClass(needed), this.#maxBindingBytes);
    const reused = persistent ? undefined : this.#free.get(capacity)?.pop();
    if (reused) {
      this.#pooled -= capacity;
    } else {
      this.#makeRoom(capacity, what);
      this.#created++;
    }
    const buffer = reused ?? this.#device.createBuffer({ size: capacity, usage: USAGE, label: what });
    const storage = new Storage(
      reused ? (ids.get(buffer) ?? this.#nextId++) : this.#nextId++,
      buffer,
      needed,
      persistent,
    );
    ids.set(buffer, storage.id);
    this.#buffers.set(storage, capacity);
    this.#live += capacity;
    this.#peak = Math.max(this.#peak, this.#live + this.#pooled);
    if (!persistent) this.#scopes.at(-1)?.add(storage);
    return storage;
  }

  /** Gives a storage back. Work already recorded on it still completes: the queue runs in order. */
  release(storage: Storage): void {
    if (!storage.alive) return;
    storage.alive = false;
    for (const scope of this.#scopes) scope.delete(storage);
    const capacity = this.#buffers.get(storage)!;
    this.#buffers.delete(storage);
    this.#live -= capacity;
    if (storage.persistent) {
      this.#onDestroy(storage);
      storage.buffer.destroy();
      return;
    }
    this.#pooled += capacity;
    const list = this.#free.get(capacity);
    if (list) list.push(storage.buffer);
    else this.#free.set(capacity, [storage.buffer]);
  }

  /** Opens a scope: what is allocated until `leave` is released there unless kept. */
  enter(): Set<Storage> {
    const scope = new Set<Storage>();
    this.#scopes.push(scope);
    return scope;
  }

  /** Closes `scope`, moving `kept` to the scope around it. */
  leave(scope: Set<Storage>, kept: ReadonlySet<Storage>): void {
    const at = this.#scopes.lastIndexOf(scope);
    if (at >= 0) this.#scopes.splice(at, 1);
    const outer = this.#scopes.at(-1);
    // Last in, first out: the same work then gets the same buffers again, and finds its bind groups.
    for (const storage of [...scope].reverse()) {
      if (kept.has(storage)) outer?.add(storage);
      else this.release(storage);
    }
  }

  /** Takes a storage out of every scope: it now lives until it is released by hand. */
  keep(storage: Storage): void {
    for (const scope of this.#scopes) scope.delete(storage);
  }

  /** Destroys the buffers kept for reuse. */
  trim(): void {
    this.#onDestroy();
    for (const list of this.#free.values()) for (const buffer of list) buffer.destroy();
    this.#free.clear();
    this.#pooled = 0;
  }

  #makeRoom(bytes: number, what: string): void {
    if (bytes > this.#maxBufferBytes) {
      throw new DeviceError(
        "LIMIT",
        `${what} needs ${formatBytes(bytes)}; this adapter's largest buffer is ${formatBytes(this.#maxBufferBytes)}`,
      );
    }
    if (this.#live + this.#pooled + bytes <= this.#budget) return;
    this.trim();
    if (this.#live + bytes <= this.#budget) return;
    throw new DeviceError(
      "BUDGET",
      `${what} needs ${formatBytes(bytes)}, but ${formatBytes(this.#live)} of the budget of ${formatBytes(this.#budget)} are in use`,
      { hint: "raise INSTRUCTBLIP_MEMORY_BUDGET (bytes, or 12GiB), or use a smaller model, batch or length" },
    );
  }
}

const ids = new WeakMap<GPUBuffer, number>();

/** Rounds up to one of four sizes per power of two, so that similar activations share buffers (waste below 25 %). */
function sizeClass(bytes: number): number {
  const step = 2 ** Math.max(8, Math.floor(Math.log2(bytes)) - 2);
  return Math.ceil(bytes / step) * step;
}

/** `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}
