/** GPU time of every kernel, by a timestamp before and after each launch. */
import type { KernelTime } from "../tensor.ts";
import { type Dispatch, encode } from "./bind_groups.ts";
import type { Driver } from "./driver.ts";
import { BUFFER_USAGE, MAP_READ } from "./gpu.ts";

export class Profile {
  readonly #driver: Driver;
  readonly #times = new Map<string, KernelTime>();
  readonly #pending: Promise<void>[] = [];

  constructor(driver: Driver) {
    this.#driver = driver;
  }

  /** Time of each kernel that was encoded and submitted, the longest first. */
  async times(): Promise<KernelTime[]> {
    await Promise.all(this.#pending);
    return [...this.#times.values()].sort((a, b) => b.nanoseconds - a.nanoseconds);
  }

  /** Encodes launches, each in a pass of its own. */
  encode(encoder: GPUCommandEncoder, launches: readonly Dispatch[]): void {
    if (launches.length === 0) return;
    const driver = this.#driver;
    const { handle, call } = driver;
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
    const names = launches.map((launch) => launch.pipeline.wgsl.label);
    const collect = async () => {
      const mapped = driver.asked(() => staging.mapAsync(MAP_READ));
      const promise = mapped.then(() => staging.getMappedRange().slice(0));
      const stamps = new BigInt64Array(await driver.wait(call, { what: "reading times", promise, endsWithWork: true }));
      for (const object of [staging, resolved, querySet]) object.destroy();
      names.forEach((kernel, i) => {
        const time = this.#times.get(kernel) ?? { kernel, launches: 0, nanoseconds: 0 };
        time.launches++;
        time.nanoseconds += Number(stamps[2 * i + 1]! - stamps[2 * i]!);
        this.#times.set(kernel, time);
      });
    };
    // The buffer must be mapped after the submit; a microtask is late enough.
    const collected = Promise.resolve().then(collect);
    collected.catch(() => {}); // the caller may throw before it waits for this
    this.#pending.push(collected);
  }
}
