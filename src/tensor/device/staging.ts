/** Pool of mappable buffers for reads from the device. */
import type { Driver } from "./driver.ts";
import { BUFFER_USAGE } from "./gpu.ts";

/** Most bytes in the pool. */
const MOST_STAGING = 16 * 2 ** 20;

export class Staging {
  readonly #driver: Driver;
  readonly #kept = new Map<number, GPUBuffer[]>();
  #bytes = 0;

  constructor(driver: Driver) {
    this.#driver = driver;
  }

  clear(): void {
    this.#kept.clear();
  }

  /** A buffer of at least `bytes` bytes, to copy to and to map. */
  take(bytes: number): GPUBuffer {
    const capacity = 2 ** Math.ceil(Math.log2(bytes));
    const kept = this.#kept.get(capacity)?.pop();
    if (kept) {
      this.#bytes -= capacity;
      return kept;
    }
    const usage = BUFFER_USAGE.MAP_READ | BUFFER_USAGE.COPY_DST;
    return this.#driver.createBuffer({ size: capacity, usage, label: "read" });
  }

  /** Returns an unmapped buffer to the pool. */
  keep(staging: GPUBuffer): void {
    const { size } = staging;
    if (this.#driver.destroyed || this.#bytes + size > MOST_STAGING) {
      staging.destroy();
      return;
    }
    this.#bytes += size;
    const list = this.#kept.get(size);
    if (list) list.push(staging);
    else this.#kept.set(size, [staging]);
  }
}
