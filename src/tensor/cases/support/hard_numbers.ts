/** Difficult rows for an encoder, by kind. */
import type { Random } from "./random.ts";

const each = (K: number, number: (k: number) => number) => Float32Array.from({ length: K }, (_, k) => number(k));

export const HARD_NUMBERS: Readonly<Record<string, (random: Random, K: number) => Float32Array>> = {
  normal: (random, K) => random.normal(K, 0, 0.02),
  "of one sign": (random, K) => random.uniform(K, 3, 4),
  "all equal": (_, K) => new Float32Array(K).fill(-0.3),
  "nearly equal": (random, K) => random.uniform(K, -1.000_002, -1),
  zeros: (_, K) => new Float32Array(K),
  "zeros of either sign": (_, K) => each(K, (k) => (k % 3 === 0 ? -0 : k % 2)),
  "one outlier": (random, K) => random.normal(K).fill(1000, 0, 1),
  tiny: (random, K) => random.normal(K, 0, 1e-36),
  "at the limit of tiny": (random, K) => random.uniform(K, -(2 ** -100), 2 ** -100),
  subnormal: (random, K) => random.uniform(K, -(2 ** -127), 2 ** -127),
  huge: (random, K) => random.uniform(K, -3e38, 3e38),
  "beyond bf16": (random, K) => random.uniform(K, -3.4028e38, -3.39e38),
  "on the edges between codes": (_, K) => each(K, (k) => (k % 32 === 0 ? 127 : (k % 64) - 31.5)),
  "next to the edges": (random, K) =>
    each(K, (k) => (k % 32 === 0 ? 127 : ((k % 64) - 31.5) * (1 + random.int(-2, 3) * 2 ** -23))),
  "on edges of int4": (random, K) => each(K, (k) => [-7.5, 7.5][k % 32] ?? random.int(-15, 16) / 2),
  "next to edges of int4": (random, K) =>
    each(K, (k) => [-7.5, 7.5][k % 32] ?? (random.int(-15, 16) / 2) * (1 + random.int(-2, 3) * 2 ** -23)),
  "next to an edge at zero": (random, K) =>
    each(K, (k) => [-7.5, 7.5][k % 32] ?? random.uniform(1, -1, 1)[0]! * 2 ** random.int(-30, -20)),
  "of all sizes": (random, K) => each(K, () => random.uniform(1, -1, 1)[0]! * 2 ** random.int(-60, 1)),
  "far below one": (random, K) => random.uniform(K, -(2 ** -29), 2 ** -26).fill(-1, 0, 1),
  "far above zero": (random, K) => random.uniform(K, 2 ** -31, 2 ** -26).fill(1, 0, 1),
  "whole numbers": (random, K) => each(K, () => random.int(-127, 128) / 4096),
  "a NaN": (random, K) => random.normal(K).fill(Number.NaN, K - 1),
  "an infinity": (random, K) => random.normal(K).fill(Number.NEGATIVE_INFINITY, 0, 1),
};
