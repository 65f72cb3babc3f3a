/** `--stats`: how fast a run answers, and how busy its device is. */
import type { BusyTime } from "../../../tensor/device/busy_time.ts";
import { formatDuration } from "../format.ts";

/** From the first question on, when the model is loaded. */
export class Stats {
  readonly #busy: BusyTime;
  readonly #now: () => number;
  readonly #begun: number;
  readonly #busyBefore: number;

  /** @param now a clock in milliseconds */
  constructor(busy: BusyTime, now: () => number = () => performance.now()) {
    this.#busy = busy;
    this.#now = now;
    this.#begun = now();
    this.#busyBefore = busy.read();
  }

  /** `500 answered in 60.1 s, 8.32 a second; the device was busy for 93.0 % of it` */
  text(done: number): string {
    const ms = this.#now() - this.#begun;
    const share = (100 * (this.#busy.read() - this.#busyBefore)) / ms;
    const rate = ((1000 * done) / ms).toPrecision(3);
    return `${done} answered in ${formatDuration(ms)}, ${rate} a second; the device was busy for ${share.toFixed(1)} % of it`;
  }
}
