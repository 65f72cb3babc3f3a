/** Uploads of a load, in windows. At most two are in flight: the device always has work, and staging memory is bounded. */
import type { Call } from "../tensor/device/call.ts";
import type { Device, Tensor } from "../tensor/tensor.ts";

/** Bytes of the file in a window. */
const WINDOW = 8 * 2 ** 20;

export class Uploads {
  readonly #device: Device;
  readonly #call: Call;
  /** Staged tensors of all windows in flight. */
  readonly #staged = new Set<Tensor<"u32">>();
  /** Those of the current window. */
  #current: Tensor<"u32">[] = [];
  #bytes = 0;
  /** Resolves when the device has finished the previous window. */
  #before: Promise<void> = Promise.resolve();

  constructor(device: Device, call: Call) {
    this.#device = device;
    this.#call = call;
  }

  /** Uploads bytes, a multiple of 4, as u32[bytes / 4], for launches of the current window; released when it has finished. */
  readonly stage = (bytes: Uint8Array): Tensor<"u32"> => {
    const device = this.#device;
    const words = device.empty([bytes.byteLength / 4], "u32", "numbers to quantize");
    device.memory.keep(words.storage);
    this.#staged.add(words);
    this.#current.push(words);
    device.writeBytes(words.storage, 0, bytes);
    return words;
  };

  /** Counts uploaded bytes of the file; waits while two windows are in flight. @throws DeviceError */
  async passed(bytes: number): Promise<void> {
    this.#bytes += bytes;
    this.#device.within(this.#call, () => this.#device.flush());
    if (this.#bytes < WINDOW) return;
    const before = this.#before;
    this.#before = this.#end();
    this.#before.catch(() => {}); // thrown when it is awaited, if it ever is
    await before;
  }

  /** Waits for all windows. @throws DeviceError */
  async finished(): Promise<void> {
    await this.#before;
    await this.#end();
  }

  /** Releases all staged tensors. */
  dispose(): void {
    for (const words of this.#staged) words.dispose();
    this.#staged.clear();
  }

  /** Starts the next window and waits for the current one. */
  async #end(): Promise<void> {
    const staged = this.#current;
    this.#current = [];
    this.#bytes = 0;
    await this.#device.within(this.#call, () => this.#device.sync());
    for (const words of staged) {
      words.dispose();
      this.#staged.delete(words);
    }
  }
}
