/**
 * Reproducible sampling of tokens: every draw is a function of the seed, the row and the step. PyTorch's generator differs
 * between devices, so agreement with Hugging Face is in distribution.
 *
 * Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox 4x32-10).
 */
import { softmax } from "./arithmetic.ts";

const [M0, M1] = [0xd2511f53, 0xcd9e8d57];
const [W0, W1] = [0x9e3779b9, 0xbb67ae85];

export type U32x4 = readonly [number, number, number, number];

/** Ten rounds of Philox: pseudorandom u32[4] for every counter u32[4] and key u32[2]. */
export function philox(counter: U32x4, key: readonly [number, number]): U32x4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, high1] = [multiplyHigh(M0, c0), multiplyHigh(M1, c2)];
    const [low0, low1] = [Math.imul(M0, c0) >>> 0, Math.imul(M1, c2) >>> 0];
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Upper 32 bits of a u32 product. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16); // below 2^32
  const carry = aLow * bHigh + (middle % 0x10000);
  return aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000);
}

/** Uniform random numbers of one seed, indexed by row, step and draw. */
export class RandomNumbers {
  readonly seed: number;

  /** @param seed whole, from 0 to 2^53 - 1. Default: a new one each time */
  constructor(seed: number | null) {
    this.seed = seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
  }

  /** In [0, 1), 53 bits: the `draw`-th number of a row at a step. */
  at(row: number, step: number, draw = 0): number {
    const [a, b] = philox([step, row, draw, 0], [this.seed >>> 0, Math.floor(this.seed / 2 ** 32)]);
    return ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53;
  }
}

/** Index drawn by softmax(scores), from a uniform number. */
export function multinomial(scores: Float32Array, uniform: number): number {
  const probabilities = softmax(scores);
  return drawFrom(probabilities, total(probabilities), uniform);
}

/**
 * `n` different indices by softmax(scores), in the order drawn. If fewer have a probability above 0, the lowest of the
 * others follow (PyTorch leaves their order open).
 */
export function multinomialWithoutReplacement(
  scores: Float32Array,
  n: number,
  uniform: (draw: number) => number,
): number[] {
  const probabilities = softmax(scores);
  const drawn: number[] = [];
  while (drawn.length < n) {
    const left = total(probabilities);
    if (!(left > 0)) break;
    const index = drawFrom(probabilities, left, uniform(drawn.length));
    drawn.push(index);
    probabilities[index] = 0;
  }
  for (let i = 0; drawn.length < n && i < scores.length; i++) if (!drawn.includes(i)) drawn.push(i);
  return drawn;
}

function total(probabilities: Float32Array): number {
  let sum = 0;
  for (const p of probabilities) sum += p;
  return sum;
}

/** Never returns an index of probability 0, if there is another. */
function drawFrom(probabilities: Float32Array, sum: number, uniform: number): number {
  const target = uniform * sum;
  let reached = 0;
  let last = 0;
  for (let i = 0; i < probabilities.length; i++) {
    const p = probabilities[i]!;
    if (!(p > 0)) continue;
    last = i;
    reached += p;
    if (reached > target) return i;
  }
  return last;
}
