/** The time of every launch, by timestamps of the GPU or by the host's clock. */
import type { Launch, LaunchTime, LaunchWork, ProfileClock, Profiled, UploadTime } from "../tensor.ts";
import { type Dispatch, encode } from "./bind_groups.ts";
import type { Driver } from "./driver.ts";
import { BUFFER_USAGE } from "./gpu.ts";
import type { MemoryUse } from "./memory.ts";

/** Launches of one query set, which holds 4096 timestamps at most. */
const LAUNCHES = 2048;

/** A launch but for its time. */
type Recorded = Omit<LaunchTime, "start" | "ms">;

export class Profile {
  readonly clock: ProfileClock;
  readonly #driver: Driver;
  readonly #start = performance.now();
  /** Of launches that are not encoded yet. */
  readonly #recorded: Recorded[] = [];
  readonly #launches: LaunchTime[] = [];
  readonly #uploads: UploadTime[] = [];
  /** The greatest common divisor of all times, in nanoseconds. */
  #step = 0n;
  readonly #memory: { at: number; live: number; pooled: number }[] = [];
  /** With timestamps: when each submit was made, and its launches, whose `start` is the GPU's. */
  readonly #submits: Promise<{ readonly at: number; readonly launches: LaunchTime[] }>[] = [];

  constructor(driver: Driver, clock: ProfileClock) {
    this.#driver = driver;
    this.clock = clock;
  }

  /** Call it for every launch, in order, when it is recorded or replayed: its work may depend on how much a cache holds. */
  record({ pipeline, launch, site }: Dispatch, use: MemoryUse): void {
    this.#recorded.push({ kernel: pipeline.wgsl.label, site, ...workOf(launch) });
    this.#sample(use);
  }

  /** Call it for every upload, with the host's time of it. */
  uploaded(upload: UploadTime, use: MemoryUse): void {
    this.#uploads.push(upload);
    this.#sample(use);
  }

  /** The launches so far. Call it when all of them have ended. */
  async result(use: MemoryUse): Promise<Profiled> {
    const submits = await Promise.all(this.#submits);
    // The GPU's clock has an origin of its own. No launch can have started before it was submitted, and some submit found
    // the GPU idle: the least shift that agrees with all submits.
    const shift = submits.reduce((most, { at, launches }) => Math.max(most, at - launches[0]!.start), -Infinity);
    const stamped = submits.flatMap(({ launches }) => launches.map((one) => ({ ...one, start: one.start + shift })));
    this.#sample(use);
    return {
      clock: this.clock,
      step: Number(this.#step) / 1e6,
      launches: this.clock === "timestamps" ? stamped : this.#launches,
      uploads: this.#uploads,
      memory: this.#memory,
      start: this.#start,
      ms: performance.now() - this.#start,
    };
  }

  /** Encodes launches, each in a pass of its own between timestamps. */
  encode(encoder: GPUCommandEncoder, launches: readonly Dispatch[]): void {
    for (let i = 0; i < launches.length; i += LAUNCHES) this.#encode(encoder, launches.slice(i, i + LAUNCHES));
  }

  #encode(encoder: GPUCommandEncoder, launches: readonly Dispatch[]): void {
    const driver = this.#driver;
    const { handle, call } = driver;
    const at = performance.now();
    const recorded = this.#recorded.splice(0, launches.length);
    const querySet = handle.createQuerySet({ type: "timestamp", count: launches.length * 2 });
    launches.forEach((launch, i) => {
      const timestampWrites = { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
      encode(encoder.beginComputePass({ timestampWrites }), [launch]);
    });
    const size = launches.length * 16;
    const resolved = driver.createBuffer({ size, usage: BUFFER_USAGE.QUERY_RESOLVE | BUFFER_USAGE.COPY_SRC });
    const staging = driver.createBuffer({ size, usage: BUFFER_USAGE.MAP_READ | BUFFER_USAGE.COPY_DST });
    encoder.resolveQuerySet(querySet, 0, launches.length * 2, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, size);
    const collect = async () => {
      const promise = driver.map(staging, size).then(() => staging.getMappedRange().slice(0));
      const wait = driver.wait(call, { what: "reading times", promise, endsWithWork: true });
      const stamps = new BigInt64Array(
        await wait.finally(() => {
          for (const object of [staging, resolved, querySet]) object.destroy();
        }),
      );
      const times = recorded.map((one, i) => {
        const [start, end] = [stamps[2 * i]!, stamps[2 * i + 1]!];
        this.#step = gcd(this.#step, end - start);
        return { ...one, start: Number(start) / 1e6, ms: Math.max(0, Number(end - start) / 1e6) };
      });
      return { at, launches: times };
    };
    // The buffer must be mapped after the submit; a microtask is late enough.
    const collected = Promise.resolve().then(collect);
    collected.catch(() => {}); // the caller may throw before it waits for this
    this.#submits.push(collected);
  }

  /** Submits launches one by one, and waits for each. @param submit of one launch */
  async time(launches: readonly Dispatch[], submit: (launch: Dispatch) => void): Promise<void> {
    const driver = this.#driver;
    const { call } = driver;
    const recorded = this.#recorded.splice(0, launches.length);
    let isOver = false; // the call was interrupted, or the device is lost: what is left is not waited for
    for (const [i, launch] of launches.entries()) {
      const start = performance.now();
      driver.as(call, () => submit(launch));
      if (isOver) continue;
      const promise = driver.awaited(() => driver.handle.queue.onSubmittedWorkDone());
      await driver.wait(call, { what: "timing a launch", promise }).catch(() => {
        isOver = true; // the call itself throws the reason
      });
      this.#launches.push({ ...recorded[i]!, start, ms: performance.now() - start });
    }
  }

  #sample({ live, pooled }: MemoryUse): void {
    const last = this.#memory.at(-1);
    if (last?.live !== live || last.pooled !== pooled) this.#memory.push({ at: performance.now(), live, pooled });
  }
}

function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a, b < 0n ? -b : b];
  while (y > 0n) [x, y] = [y, x % y];
  return x;
}

/** The stated work of a launch, or all bytes that it binds. For tests, too. */
export function workOf({ bindings, work }: Launch): LaunchWork {
  const tensors = Object.values(bindings);
  const sum = (of: typeof tensors) => of.reduce((bytes, tensor) => bytes + tensor.bytes, 0);
  const { flops = 0, bytes = sum(tensors) } = work?.() ?? {};
  const persistent = sum(tensors.filter(({ storage }) => storage.persistent));
  return { flops, bytes, persistent: Math.min(bytes, persistent) };
}
