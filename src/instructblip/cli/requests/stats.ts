/** `--stats`: how fast a run answers, and how busy its device is. */
import type { BusyTime } from "../../../tensor/device/busy_time.ts";
import type { Device } from "../../../tensor/tensor.ts";
import { formatDuration } from "../format.ts";

/** From the first question on, when the model is loaded. */
export class Stats {
  readonly #now: () => number;
  readonly #begun: number;
  /** Of devices that were lost. */
  #past = 0;
  #busy: BusyTime;
  #before: number;

  /** @param now a clock in milliseconds */
  constructor(busy: BusyTime, now: () => number = () => performance.now()) {
    this.#now = now;
    this.#begun = now();
    this.#busy = busy;
    this.#before = busy.read();
  }

  /** Goes on with another device. */
  watch(busy: BusyTime): void {
    this.#past = this.#ms;
    this.#busy = busy;
    this.#before = busy.read();
  }

  get #ms(): number {
    return this.#past + this.#busy.read() - this.#before;
  }

  /** `500 answered in 60.1 s, 8.32 a second; the device was busy for 93.0 % of it` */
  text(done: number): string {
    const ms = this.#now() - this.#begun;
    const share = (100 * this.#ms) / ms;
    const rate = ((1000 * done) / ms).toPrecision(3);
    return `${done} answered in ${formatDuration(ms)}, ${rate} a second; the device was busy for ${share.toFixed(1)} % of it`;
  }
}

/** The statistics so far, from here on of this device: a lost one is replaced. */
export function statsOn(device: Pick<Device, "measureBusy">, stats: Stats | undefined): Stats {
  const busy = device.measureBusy();
  if (!stats) return new Stats(busy);
  stats.watch(busy);
  return stats;
}

/** What {@link Stats.text} says. */
export function parseStats(text: string): { answered: number; perSecond: number; busy: number } | undefined {
  const [, answered, rate, busy] =
    /^(\d+) answered in .*, (\S+) a second; the device was busy for (\S+) % of it$/m.exec(text) ?? [];
  if (answered === undefined) return undefined;
  return { answered: Number(answered), perSecond: Number(rate), busy: Number(busy) / 100 };
}
