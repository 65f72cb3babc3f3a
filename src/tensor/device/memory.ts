/**
 * GPU buffers: a pool of reusable ones for activations, exact ones for weights, and a byte budget over both, because no
 * driver says in time that memory has run out (lavapipe accepts 56 GiB of buffers without a word).
 */
import { DeviceError } from "../errors.ts";
import { BUFFER_USAGE } from "./gpu.ts";

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
  /** Buffers there are now, in use or kept for reuse. */
  readonly buffers: number;
}

/** Buffers kept for reuse, by capacity: the one lent least recently first. Of one capacity the last used is lent first. */
class Pool {
  readonly free = new Map<number, GPUBuffer[]>();
  /** Of all of them. */
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

  /** Takes a buffer out; false if it is not here. */
  remove(capacity: number, buffer: GPUBuffer): boolean {
    const list = this.free.get(capacity);
    const at = list?.indexOf(buffer) ?? -1;
    if (at < 0) return false;
    list!.splice(at, 1);
    this.bytes -= capacity;
    return true;
  }

  /** Takes out a buffer of the capacity that was lent least recently. */
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

/** A pool of a recording's own: what it wrote between its launches must not be lent to others while it may run again. */
export class Arena extends Pool {
  /** The pool that its buffers go to once it is released. */
  parent: Pool | undefined;
}

/**
 * Makes a buffer; `onRefused` is called, later, if the GPU had no memory for it. Such a buffer looks like any other, and
 * must never be lent again.
 */
export type CreateBuffer = (descriptor: GPUBufferDescriptor, onRefused: () => void) => GPUBuffer;

const USAGE = BUFFER_USAGE.STORAGE | BUFFER_USAGE.COPY_DST | BUFFER_USAGE.COPY_SRC;
/** Bytes that may be kept for reuse however little has been in use. */
const LEAST_POOL = 64 * 2 ** 20;

export class Memory {
  readonly #createBuffer: CreateBuffer;
  readonly #maxBindingBytes: number;
  readonly #maxBufferBytes: number;
  readonly #budget: number;
  readonly #onRelease: () => void;
  readonly #onDestroy: (storage?: Storage) => void;
  readonly #pool = new Pool();
  readonly #scopes: Set<Storage>[] = [];
  readonly #buffers = new Map<Storage, { capacity: number; pool: Pool }>();
  /** What activations come from while a recording is made, instead of the pool. */
  #arena: Arena | undefined;
  readonly #refused = new WeakSet<GPUBuffer>();
  /** What was allocated or kept to outlive scopes in the innermost `allOrNothing`. */
  #unowned: Set<Storage> | undefined;
  /** Called when the budget is used up: they give back what can be computed again. */
  readonly shortage = new Set<() => void>();
  #live = 0;
  #pooled = 0;
  /** Of the live bytes those that go back to a pool, and the most of them there have been. */
  #lent = 0;
  #mostLent = 0;
  #peak = 0;
  #created = 0;
  #count = 0;
  #nextId = 1;

  /**
   * @param onRelease is called before a storage is given back: something not yet launched may read it
   * @param onDestroy before a persistent storage, or pooled buffers, are destroyed: bind groups hold them
   */
  constructor(
    createBuffer: CreateBuffer,
    limits: { maxBindingBytes: number; maxBufferBytes: number; budget: number },
    onRelease: () => void,
    onDestroy: (storage?: Storage) => void,
  ) {
    this.#createBuffer = createBuffer;
    this.#maxBindingBytes = limits.maxBindingBytes;
    this.#maxBufferBytes = limits.maxBufferBytes;
    this.#budget = limits.budget;
    this.#onRelease = onRelease;
    this.#onDestroy = onDestroy;
  }

  /** Memory in use, in bytes. */
  get use(): MemoryUse {
    const [live, pooled, peak, created] = [this.#live, this.#pooled, this.#peak, this.#created];
    return { live, pooled, peak, created, buffers: this.#count };
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
    const pool = this.#arena ?? this.#pool;
    // A recording draws from what others have left before it makes anything of its own.
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

  /** Gives a storage back. Work already recorded on it still completes: the queue runs in order. */
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

  /** Whether the GPU had no memory for a storage; it says so some time after `allocate`. */
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

  /** Gives an arena's buffers to the pool, those still in use as soon as they are released. */
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
    this.#unowned?.add(storage);
  }

  /** Runs `fn`; if it throws, what it allocated or kept to outlive scopes is released, as nobody has it. */
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

  /** The opposite of `keep`: the innermost open scope, if there is one, releases the storage at its end. */
  adopt(storage: Storage): void {
    if (storage.alive && !storage.persistent) this.#scopes.at(-1)?.add(storage);
  }

  /** Destroys the buffers kept for reuse. */
  trim(): void {
    this.#onDestroy();
    for (const [capacity, list] of this.#pool.free) {
      for (const buffer of list) this.#destroy(buffer);
      this.#pooled -= capacity * list.length;
    }
    this.#pool.clear();
  }

  #destroy(buffer: GPUBuffer): void {
    buffer.destroy();
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
   * Destroys what was used least recently when more is kept than twice what was ever lent at once: prompts of every length
   * leave buffers of every size.
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
