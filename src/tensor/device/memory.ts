/**
 * GPU memory: a pool of reusable buffers for activations, exact buffers for weights, and a byte budget for both. The budget is
 * needed because drivers report exhausted memory too late: lavapipe accepts 56 GiB of buffers without an error.
 */
import { DeviceError } from "../errors.ts";
import { BUFFER_USAGE } from "./gpu.ts";

/** A buffer in use, shared by a tensor and its views. */
export class Storage {
  readonly id: number;
  readonly buffer: GPUBuffer;
  /** Requested bytes, rounded up to a multiple of 16, so that it can be bound as an array of `vec4`. */
  readonly bytes: number;
  /** True for weights and caches: not released at the end of a scope, and not pooled. */
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
  /** Bytes of buffers in use. */
  readonly live: number;
  /** Bytes of buffers in the pool. */
  readonly pooled: number;
  /** The largest `live + pooled` so far. */
  readonly peak: number;
  /** Buffers created since the device was opened; constant while a decode loop runs. */
  readonly created: number;
  /** Number of buffers, in use or in the pool. */
  readonly buffers: number;
}

/**
 * Free buffers by capacity. The map is in order of use, the least recently used capacity first. Of one capacity the buffer used
 * last is taken first.
 */
class Pool {
  readonly free = new Map<number, GPUBuffer[]>();
  /** Bytes of all free buffers. */
  bytes = 0;

  take(capacity: number): GPUBuffer | undefined {
    const list = this.free.get(capacity);
    const buffer = list?.pop();
    if (!buffer) return undefined;
    this.bytes -= capacity;
    this.free.delete(capacity);
    this.free.set(capacity, list!);
    return buffer;
  }

  put(capacity: number, buffer: GPUBuffer): void {
    this.bytes += capacity;
    const list = this.free.get(capacity);
    if (list) list.push(buffer);
    else this.free.set(capacity, [buffer]);
  }

  /** Removes a buffer; false if it is not in the pool. */
  remove(capacity: number, buffer: GPUBuffer): boolean {
    const list = this.free.get(capacity);
    const at = list?.indexOf(buffer) ?? -1;
    if (at < 0) return false;
    list!.splice(at, 1);
    this.bytes -= capacity;
    return true;
  }

  /** Removes a buffer of the least recently used capacity. */
  takeOldest(): { capacity: number; buffer: GPUBuffer } | undefined {
    for (const [capacity, list] of this.free) {
      const buffer = list.shift();
      if (!buffer) {
        this.free.delete(capacity);
        continue;
      }
      this.bytes -= capacity;
      return { capacity, buffer };
    }
    return undefined;
  }

  clear(): void {
    this.free.clear();
    this.bytes = 0;
  }
}

/** The pool of a recording. While the recording may be replayed, its buffers are not used for anything else. */
export class Arena extends Pool {
  /** Set when the arena is released: the pool that gets its buffers. */
  parent: Pool | undefined;
}

/**
 * Creates a buffer. `onRefused` is called, later, if the GPU had no memory for it. Such a buffer cannot be told from others, and
 * must not be reused.
 */
export type CreateBuffer = (descriptor: GPUBufferDescriptor, onRefused: () => void) => GPUBuffer;

const USAGE = BUFFER_USAGE.STORAGE | BUFFER_USAGE.COPY_DST | BUFFER_USAGE.COPY_SRC;
/** Bytes that the pool may always keep. */
const LEAST_POOL = 64 * 2 ** 20;

export class Memory {
  readonly #createBuffer: CreateBuffer;
  readonly #maxBindingBytes: number;
  readonly #maxBufferBytes: number;
  readonly #budget: number;
  readonly #onRelease: () => void;
  readonly #onDestroy: (storage?: Storage) => void;
  readonly #destroyBuffer: (buffer: GPUBuffer) => void;
  readonly #pool = new Pool();
  readonly #scopes: Set<Storage>[] = [];
  readonly #buffers = new Map<Storage, { capacity: number; pool: Pool }>();
  /** While launches are recorded, the pool for activations. */
  #arena: Arena | undefined;
  readonly #refused = new WeakSet<GPUBuffer>();
  /** Storages of the innermost `allOrNothing` that no scope would release. */
  #unowned: Set<Storage> | undefined;
  /** Called when the budget is exhausted: they release what can be recomputed. */
  readonly shortage = new Set<() => void>();
  #live = 0;
  #pooled = 0;
  /** Live bytes of pooled buffers, and their largest number so far. */
  #lent = 0;
  #mostLent = 0;
  #peak = 0;
  #created = 0;
  #count = 0;
  #nextId = 1;

  /**
   * @param onRelease called before a storage is released, because a deferred launch may read it
   * @param onDestroy called before a persistent storage, or pooled buffers, are destroyed, because bind groups refer to them
   * @param destroyBuffer may do it later, when what has been recorded is submitted
   */
  constructor(
    createBuffer: CreateBuffer,
    limits: { maxBindingBytes: number; maxBufferBytes: number; budget: number },
    onRelease: () => void,
    onDestroy: (storage?: Storage) => void,
    destroyBuffer: (buffer: GPUBuffer) => void = (buffer) => buffer.destroy(),
  ) {
    this.#createBuffer = createBuffer;
    this.#maxBindingBytes = limits.maxBindingBytes;
    this.#maxBufferBytes = limits.maxBufferBytes;
    this.#budget = limits.budget;
    this.#onRelease = onRelease;
    this.#onDestroy = onDestroy;
    this.#destroyBuffer = destroyBuffer;
  }

  /** Memory in use. */
  get use(): MemoryUse {
    const [live, pooled, peak, created] = [this.#live, this.#pooled, this.#peak, this.#created];
    return { live, pooled, peak, created, buffers: this.#count };
  }

  /** Bytes of the budget that are not in use; infinite without a budget. */
  get left(): number {
    return Math.max(0, this.#budget - this.#live);
  }

  /** A buffer of at least `bytes` bytes, with undefined contents. @throws DeviceError LIMIT, BUDGET */
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
    const pool = this.#arena ?? this.#pool;
    // A recording takes free buffers of the pool before it creates new ones.
    const reused = persistent ? undefined : (this.#arena?.take(capacity) ?? this.#pool.take(capacity));
    const buffer = reused ?? this.#create(capacity, what, pool);
    if (reused) this.#pooled -= capacity;
    const id = reused ? ids.get(buffer)! : this.#nextId++;
    const storage = new Storage(id, buffer, needed, persistent);
    ids.set(buffer, id);
    this.#buffers.set(storage, { capacity, pool });
    this.#live += capacity;
    if (!persistent) this.#lent += capacity;
    this.#mostLent = Math.max(this.#mostLent, this.#lent);
    this.#peak = Math.max(this.#peak, this.#live + this.#pooled);
    if (persistent) this.#unowned?.add(storage);
    else this.#scopes.at(-1)?.add(storage);
    return storage;
  }

  /** Releases a storage. Launches recorded before still see its contents, because the queue runs in order. */
  release(storage: Storage): void {
    if (!storage.alive) return;
    this.#onRelease();
    storage.alive = false;
    for (const scope of this.#scopes) scope.delete(storage);
    const { capacity, pool } = this.#buffers.get(storage)!;
    this.#buffers.delete(storage);
    this.#live -= capacity;
    if (storage.persistent) {
      this.#onDestroy(storage);
      this.#destroy(storage.buffer);
      return;
    }
    this.#lent -= capacity;
    if (this.#refused.has(storage.buffer)) {
      this.#destroy(storage.buffer);
      return;
    }
    this.#pooled += capacity;
    ownerOf(pool).put(capacity, storage.buffer);
    this.#bound();
  }

  /** Whether the GPU had no memory for a storage, which is known only some time after `allocate`. */
  isRefused(storage: Storage): boolean {
    return this.#refused.has(storage.buffer);
  }

  /** Allocates activations from `arena` while `fn` runs. */
  useArena<T>(arena: Arena, fn: () => T): T {
    const before = this.#arena;
    this.#arena = arena;
    try {
      return fn();
    } finally {
      this.#arena = before;
    }
  }

  /** Moves an arena's buffers to the pool; those still in use, when they are released. */
  releaseArena(arena: Arena): void {
    arena.parent = this.#pool;
    for (const [capacity, list] of arena.free) {
      for (const buffer of list) {
        if (!this.#refused.has(buffer)) this.#pool.put(capacity, buffer);
        else {
          this.#pooled -= capacity;
          this.#destroy(buffer);
        }
      }
    }
    arena.clear();
    this.#bound();
  }

  /** Opens a scope. Storages allocated until `leave` are released there, unless they are kept. */
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
    // Last in, first out, so that repeated work gets the same buffers and finds its bind groups.
    for (const storage of [...scope].reverse()) {
      if (kept.has(storage)) outer?.add(storage);
      else this.release(storage);
    }
  }

  /** Removes a storage from all scopes: it lives until `release`. */
  keep(storage: Storage): void {
    for (const scope of this.#scopes) scope.delete(storage);
    this.#unowned?.add(storage);
  }

  /** Runs `fn`. If it throws, the persistent and kept storages that it allocated are released. */
  allOrNothing<T>(fn: () => T): T {
    const before = this.#unowned;
    const unowned = new Set<Storage>();
    this.#unowned = unowned;
    try {
      const result = fn();
      for (const storage of unowned) before?.add(storage);
      return result;
    } catch (error) {
      for (const storage of unowned) this.release(storage);
      throw error;
    } finally {
      this.#unowned = before;
    }
  }

  /** The inverse of `keep`: the innermost open scope, if there is one, releases the storage at its end. */
  adopt(storage: Storage): void {
    if (storage.alive && !storage.persistent) this.#scopes.at(-1)?.add(storage);
  }

  /** Destroys the buffers of the pool. */
  trim(): void {
    this.#onDestroy();
    for (const [capacity, list] of this.#pool.free) {
      for (const buffer of list) this.#destroy(buffer);
      this.#pooled -= capacity * list.length;
    }
    this.#pool.clear();
  }

  #destroy(buffer: GPUBuffer): void {
    this.#destroyBuffer(buffer);
    this.#count--;
  }

  #create(capacity: number, what: string, pool: Pool): GPUBuffer {
    this.#makeRoom(capacity, what);
    const buffer = this.#createBuffer({ size: capacity, usage: USAGE, label: what }, () => {
      this.#refused.add(buffer);
      if (!ownerOf(pool).remove(capacity, buffer) && !this.#pool.remove(capacity, buffer)) return;
      this.#pooled -= capacity;
      this.#destroy(buffer);
    });
    this.#created++;
    this.#count++;
    return buffer;
  }

  /**
   * Destroys the least recently used buffers if the pool has more bytes than twice the most that were in use at once: prompts of
   * different lengths leave buffers of different sizes.
   */
  #bound(): void {
    const most = Math.max(LEAST_POOL, 2 * this.#mostLent);
    if (this.#pool.bytes <= most) return;
    this.#onDestroy();
    while (this.#pool.bytes > 0.75 * most) {
      const { capacity, buffer } = this.#pool.takeOldest()!;
      this.#destroy(buffer);
      this.#pooled -= capacity;
    }
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
    for (const giveBack of this.shortage) giveBack();
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

function ownerOf(pool: Pool): Pool {
  return (pool instanceof Arena && pool.parent) || pool;
}

/** Rounds up to one of four sizes per power of two, so that similar activations share buffers. At most 25 % are wasted. */
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
