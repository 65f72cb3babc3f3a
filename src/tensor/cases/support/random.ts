/** The one source of random numbers in tests and cases: seeded, so that a failure can be reproduced. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 1). mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** Uniform integer in [low, high). */
  int(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low));
  }

  /** `n` numbers uniform in [low, high), as f32. */
  uniform(n: number, low = -1, high = 1): Float32Array {
    const numbers = new Float32Array(n);
    for (let i = 0; i < n; i++) numbers[i] = low + (high - low) * this.next();
    return numbers;
  }

  /** `n` normal numbers, as f32. Box and Muller. */
  normal(n: number, mean = 0, deviation = 1): Float32Array {
    const numbers = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
      numbers[i] = mean + deviation * radius * Math.cos(2 * Math.PI * this.next());
    }
    return numbers;
  }
}
