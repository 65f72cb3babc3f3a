/**
 * Inputs that are difficult for f32 sums (massive channels, attention sinks, large means, near ties), and the f32 error of
 * PyTorch on them. A kernel's error may be at most twice that. test/golden/hard/make.py computes the errors; it draws the
 * same inputs from the same integers, in the same order as this file.
 */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { Random } from "./random.ts";

interface Errors {
  /** Root of the mean square, over all elements. */
  readonly rms: number;
  readonly max: number;
  /** The sum of the bits of all inputs, mod 2^32. */
  readonly inputs: number;
}

const { errors } = JSON.parse(readFileSync(new URL("golden/hard/errors.json", import.meta.url), "utf8")) as {
  readonly errors: Readonly<Record<string, Errors>>;
};

const LIMIT = 2;

/** Numbers in f64, made by arithmetic that is exact or the same in Python; inputs are these rounded to f32 once. */
export class HardSource {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  /** n whole numbers in [low, high). */
  whole(n: number, low: number, high: number): Float64Array {
    return new Float64Array(n).map(() => this.#random.int(low, high));
  }

  /** n numbers in [-4, 4), most of them near 0: sums of four. */
  bell(n: number): Float64Array {
    const draw = () => this.#random.int(-(2 ** 19), 2 ** 19);
    return new Float64Array(n).map(() => (draw() + draw() + draw() + draw()) / 2 ** 19);
  }
}

const CHANNELS = [[7, 2 ** 7], [21, -(2 ** 10)], [34, 2 ** 13]] as const; // biome-ignore format: a table

/** Rows of D numbers with three columns near 2^7, -2^10 and 2^13. */
export function massive(x: Float64Array, D: number): Float64Array {
  const y = x.slice();
  for (let start = 0; start < x.length; start += D)
    for (const [column, size] of CHANNELS) y[start + column] = size * (1.5 + x[start + column] / 8);
  return y;
}

/** Rows of D numbers, one column of which is `value` if one is named. */
function rows(shift: number, times: number, column?: number, value = 0) {
  return (source: HardSource, R: number, D: number): Float32Array =>
    Float32Array.from(source.bell(R * D), (b, i) => (i % D === column ? value : shift + times * b));
}

export const LOGITS = {
  near_ties: rows(20, 1 / 64),
  peaked: rows(0, 2, 7, 25),
  massive: rows(0, 128),
} as const;

export const SCORES = {
  near_ties: rows(1000, 1 / 64),
  sink: rows(0, 2, 0, 20),
  massive: rows(0, 1024),
  flat: rows(0, 1 / 4),
} as const;

/** Four rows of logits of each kind, and a label for each. */
export function hardLogits(kind: keyof typeof LOGITS): { x: Float32Array; labels: Float32Array; V: number } {
  const [source, V] = [new HardSource(3), 32_001];
  const x = LOGITS[kind](source, 4, V);
  const labels = Float32Array.from(source.whole(4, 0, V));
  labels[0] = 7;
  return { x, labels, V };
}

/** Rows for the norms. */
export const ROWS = {
  massive,
  large_mean: (x: Float64Array) => x.map((number) => 1000 + number),
  sink_rows: (x: Float64Array, D: number) => {
    const y = x.slice();
    for (let start = 0; start < x.length; start += 4 * D) {
      y.set(
        massive(
          x.slice(start, start + D).map((number) => 256 * number),
          D,
        ),
        start,
      );
    }
    return y;
  },
} as const;

/** A matrix [N, K] that quantizing changes nothing of: both ends of the range in every block of 32. */
export function coded(
  source: HardSource,
  N: number,
  K: number,
  low: number,
  high: number,
  scale: number,
): Float64Array {
  const codes = source.whole(N * K, low, high + 1);
  return codes.map((code, i) => ((i % K) % 32 === 0 ? low : (i % K) % 32 === 1 ? high : code) * scale);
}

/** Sizes of what activations are given. */
export const RANGES = {
  "near 0": 2 ** -6,
  "below 1": 2 ** -2,
  "below 4": 1,
  "below 16": 4,
  massive: 2 ** 11,
} as const;

/**
 * Holds a kernel's error on a case against PyTorch's. Where that is less than a rounding of the result, the rounding is
 * allowed. Prints both when TOLERANCE_REPORT=1.
 *
 * @param name of the case in errors.json
 * @param inputs as the kernel got them, all of them, in the order of make.py
 * @param exact f64, of those inputs
 */
export function expectAsPyTorch(
  name: string,
  inputs: readonly ArrayLike<number>[],
  actual: ArrayLike<number>,
  exact: ArrayLike<number>,
  label = name,
): void {
  const theirs = errors[name];
  if (!theirs) throw new Error(`errors.json has no case "${name}"`);
  expect(sumOfBits(inputs), `${name}: inputs other than PyTorch's`).toBe(theirs.inputs);
  expect(actual.length).toBe(exact.length);
  let [squares, max, power, largest] = [0, 0, 0, 0];
  for (let i = 0; i < exact.length; i++) {
    const distance = Math.abs(actual[i] - exact[i]);
    squares += distance ** 2 / exact.length;
    power += exact[i] ** 2 / exact.length;
    max = distance <= max ? max : distance; // a NaN stays
    largest = Math.max(largest, Math.abs(exact[i]));
  }
  const rounding = 2 ** -24;
  const rms = Math.sqrt(squares);
  const shares = {
    rms: rms / Math.max(LIMIT * theirs.rms, rounding * Math.sqrt(power)),
    max: max / Math.max(LIMIT * theirs.max, rounding * largest),
  };
  if (process.env.TOLERANCE_REPORT) {
    const figures = (n: number, of: number) =>
      `${n.toExponential(1)} of ${of.toExponential(1)}, ${(n / of).toFixed(2)} x`;
    console.log(`hard: ${label}: rms ${figures(rms, theirs.rms)}; max ${figures(max, theirs.max)}`);
  }
  const [share, kind] = shares.rms > shares.max ? [shares.rms, "rms"] : [shares.max, "max"];
  if (!(share <= 1)) {
    throw new Error(
      `${label}: ${kind} error ${(LIMIT * share).toFixed(2)} times PyTorch's; rms ${rms.toExponential(2)}, ` +
        `PyTorch ${theirs.rms.toExponential(2)}; max ${max.toExponential(2)}, PyTorch ${theirs.max.toExponential(2)}`,
    );
  }
}

function sumOfBits(inputs: readonly ArrayLike<number>[]): number {
  let sum = 0;
  for (const input of inputs) {
    const numbers = input instanceof Float32Array ? input : Float32Array.from(input);
    const bits = new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
    for (let i = 0; i < bits.length; i++) sum = (sum + bits[i]) >>> 0;
  }
  return sum;
}
