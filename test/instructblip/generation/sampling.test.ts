/** The generator against Random123's test vectors, and draws against PyTorch's probabilities by chi-squared. */
import { describe, expect, test } from "vitest";
import {
  multinomial,
  multinomialWithoutReplacement,
  philox,
  RandomNumbers,
  type U32x4,
} from "../../../src/instructblip/generation/multinomial.ts";
import { expectFits } from "./chi_squared.ts";
import { floats, GOLDENS, V } from "./golden.ts";

describe("philox", () => {
  // kat_vectors of Random123 1.09, "philox4x32 10".
  const ones = 0xffffffff;
  test.each<[counter: U32x4, key: readonly [number, number], answer: U32x4]>([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [ones, ones, ones, ones],
      [ones, ones],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])("known answer %#", (counter, key, answer) => {
    expect(philox(counter, key)).toEqual(answer);
  });

  test("numbers are within [0, 1) and differ by seed, row, step and draw", () => {
    const at = (seed: number, row: number, step: number, draw: number) => new RandomNumbers(seed).at(row, step, draw);
    const numbers = [
      at(0, 0, 0, 0),
      at(1, 0, 0, 0),
      at(2 ** 32, 0, 0, 0),
      at(0, 1, 0, 0),
      at(0, 0, 1, 0),
      at(0, 0, 0, 1),
    ];
    expect(new Set(numbers).size).toBe(numbers.length);
    for (const x of numbers) expect(x >= 0 && x < 1).toBe(true);
  });
});

const N = 20_000;
/** Cases of one beam with some tokens left to choose from: [scores after the warpers, PyTorch's probabilities]. */
const CASES = GOLDENS.processors
  .filter(({ kwargs }) => kwargs.num_beams === 1 && kwargs.do_sample)
  .map(({ after, probabilities }) => [floats(after).subarray(0, V), floats(probabilities).subarray(0, V)] as const)
  .filter(([, probabilities]) => probabilities.filter((p) => p > 0.01).length >= 5)
  .slice(0, 6);

describe("multinomial", () => {
  test("draws as PyTorch's probabilities say, and never what was dropped", () => {
    expect(CASES).toHaveLength(6);
    const random = new RandomNumbers(1);
    for (const [scores, probabilities] of CASES) {
      const seen = new Array<number>(V).fill(0);
      for (let i = 0; i < N; i++) seen[multinomial(scores, random.at(0, i))]++;
      expectFits(
        seen,
        [...probabilities].map((p) => p * N),
      );
      expect(seen.filter((count, id) => count > 0 && probabilities[id] === 0)).toEqual([]);
    }
  });

  test("the test would notice a temperature of 1.1", () => {
    const [scores, probabilities] = CASES[0];
    const random = new RandomNumbers(1);
    const seen = new Array<number>(V).fill(0);
    for (let i = 0; i < N; i++)
      seen[
        multinomial(
          scores.map((s) => s / 1.1),
          random.at(0, i),
        )
      ]++;
    expect(() =>
      expectFits(
        seen,
        [...probabilities].map((p) => p * N),
      ),
    ).toThrow();
  });
});

describe("multinomialWithoutReplacement", () => {
  test("first and second draws have the probabilities of drawing in turn", () => {
    const probabilities = [0.5, 0.3, 0, 0.15, 0.05];
    const scores = Float32Array.from(probabilities, Math.log);
    const random = new RandomNumbers(3);
    const seen = new Array<number>(25).fill(0);
    for (let i = 0; i < N; i++) {
      const [a, b] = multinomialWithoutReplacement(scores, 2, (draw) => random.at(0, i, draw));
      seen[a * 5 + b]++;
    }
    const expected = probabilities.flatMap((p, a) =>
      probabilities.map((q, b) => (a === b ? 0 : (N * p * q) / (1 - p))),
    );
    expectFits(seen, expected);
    expect(seen.filter((count, i) => count > 0 && expected[i] === 0)).toEqual([]);
  });

  test("goes on with what has no probability when nothing else is left", () => {
    const scores = Float32Array.of(Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY);
    expect(multinomialWithoutReplacement(scores, 3, () => 0.5)).toEqual([1, 0, 2]);
  });
});
