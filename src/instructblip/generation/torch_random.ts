/**
 * PyTorch's random numbers on the CPU, as far as watermarks need them: detecting a watermark needs the same numbers. Tokens
 * are not drawn by them (multinomial.ts).
 *
 * Source: Matsumoto and Nishimura 1998, Mersenne Twister (MT19937); PyTorch 2.13, CPUGeneratorImpl and randperm.
 */

const WORDS = 624;
const MIDDLE = 397;

/** `torch.Generator().manual_seed(seed)`. */
export class TorchGenerator {
  readonly #state = new Uint32Array(WORDS);
  #next = WORDS;

  /** @param seed of which the lowest 32 bits count */
  constructor(seed: bigint) {
    const state = this.#state;
    state[0] = Number(BigInt.asUintN(32, seed));
    for (let i = 1; i < WORDS; i++) {
      const before = state[i - 1]!;
      state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  /** u32 */
  next(): number {
    if (this.#next === WORDS) this.#renew();
    let y = this.#state[this.#next++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  #renew(): void {
    const state = this.#state;
    for (let i = 0; i < WORDS; i++) {
      const mixed = (state[i]! & 0x80000000) | (state[(i + 1) % WORDS]! & 0x7fffffff);
      state[i] = state[(i + MIDDLE) % WORDS]! ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}

/** The first `count` of `torch.randperm(n)`, u32[count]; n below 2^32 / 20, beyond which PyTorch draws otherwise. */
export function randperm(n: number, generator: TorchGenerator, count = n): Uint32Array {
  const order = new Uint32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  for (let i = 0; i < Math.min(count, n - 1); i++) {
    const j = i + (generator.next() % (n - i));
    const kept = order[i]!;
    order[i] = order[j]!;
    order[j] = kept;
  }
  return order.subarray(0, count);
}

/** `torch.randint(0, 2, (n,))`: n fair bits, u8[n]. */
export function randomBits(n: number, generator: TorchGenerator): Uint8Array {
  return Uint8Array.from({ length: n }, () => generator.next() % 2);
}
