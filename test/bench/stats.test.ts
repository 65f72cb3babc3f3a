/** The statistics of comparisons against values of scipy 1.17.1, and by simulation with a fixed seed. */
import { expect, test } from "vitest";
import {
  geometricMean,
  leastP,
  leastSignedP,
  mannWhitney,
  ratioOf,
  ratioOfPairs,
  signedRank,
  wilson,
} from "../../bench/stats.ts";
import { Random } from "../../src/tensor/cases/support/random.ts";

/** scipy.stats.mannwhitneyu: method="exact", with ties or 1600 pairs "asymptotic". */
test.each<[string, number[], number[], number]>([
  ["5 and 5, apart", [1.0, 2, 3, 4, 5], [6.0, 7, 8, 9, 10], 0.007936507936507936],
  ["5 and 5, mixed", [1.1, 2.3, 3.2, 4.7, 9.4], [2.9, 4.1, 6.6, 7.5, 8.8], 0.42063492063492064],
  ["3 and 8", [1.5, 2.5, 7.25], [2.0, 3, 4, 5, 6, 7, 8, 9], 0.3757575757575758],
  ["6 and 6, ties", [1.0, 1, 2, 3, 3, 4], [2.0, 3, 4, 4, 5, 6], 0.07296726831346526],
  ["all equal", [2.0, 2.0, 2.0, 2.0, 2.0], [2.0, 2.0, 2.0, 2.0, 2.0], 1.0],
  ["1 and 1", [1.0], [2.0], 1.0],
  [
    "40 and 40",
    [
      10.3456, 10.8216, 10.3304, 8.6968, 10.9054, 10.4464, 9.463, 10.5811, 10.3646, 10.2941, 10.0284, 10.5467, 9.2635,
      9.8371, 9.5179, 10.5988, 10.0397, 9.7075, 9.2181, 9.7428, 10.0081, 9.7244, 11.2941, 11.0067, 7.2888, 8.111,
      9.8252, 9.5778, 10.2136, 10.2173, 12.1178, 8.888, 9.6224, 12.0428, 10.6467, 10.6631, 9.486, 8.3519, 10.1675,
      10.109,
    ],
    [
      9.1726, 9.7168, 10.328, 9.4552, 10.3017, 10.4955, 10.4356, 9.8937, 10.9937, 11.2912, 10.7208, 9.5818, 11.1317,
      9.8986, 11.2792, 9.3282, 11.3145, 10.3799, 9.1513, 10.0861, 10.4541, 10.6728, 9.4178, 9.2926, 10.5996, 9.9333,
      10.6355, 11.1595, 8.7512, 10.6544, 11.6246, 10.1025, 9.5892, 11.1522, 10.6534, 11.2959, 10.0548, 8.9182, 10.29,
      9.9542,
    ],
    0.20921139934785282,
  ],
  [
    "20 and 25",
    [
      10.7753, 10.1936, 8.3692, 8.8048, 10.8838, 10.6798, 9.3598, 9.999, 10.4456, 10.4684, 10.8762, 10.2565, 9.9052,
      9.7412, 11.0557, 7.7491, 9.8613, 10.033, 8.5747, 10.3328,
    ],
    [
      10.3487, 11.8624, 10.8744, 11.6692, 12.2188, 11.3829, 10.1243, 9.4857, 12.7534, 10.8887, 10.3114, 11.1443,
      10.8086, 11.8521, 11.0339, 11.0137, 10.2854, 11.4696, 9.9661, 11.6659, 12.5239, 9.4753, 8.5338, 11.6169, 13.5479,
    ],
    0.0004962119273287475,
  ],
])("Mann-Whitney's p as scipy has it: %s", (_name, a, b, p) => {
  expect(mannWhitney(a, b)).toBeCloseTo(p, 6);
  expect(mannWhitney(b, a)).toBeCloseTo(p, 6);
});

/** By inverting scipy's exact test at every shift of the logarithms. */
test.each<[string, number[], number[], number, number[]]>([
  ["apart", [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 8 / 3, [1.5, 8]],
  ["mixed", [1.1, 2.3, 3.2, 4.7, 9.4], [2.9, 4.1, 6.6, 7.5, 8.8], 1.782608695652174, [0.6170212765957446, 6]],
  ["3 and 8", [1.5, 2.5, 7.25], [2, 3, 4, 5, 6, 7, 8, 9], 1.7888543819998315, [0.5517241379310345, 4.666666666666666]],
])("the ratio and its interval: %s", (_name, a, b, ratio, interval) => {
  const found = ratioOf(a, b, 0.05);
  expect(found.ratio).toBeCloseTo(ratio, 9);
  expect(found.interval![0]).toBeCloseTo(interval[0], 9);
  expect(found.interval![1]).toBeCloseTo(interval[1], 9);
});

test("too few samples have no interval, and no p that is small", () => {
  expect(ratioOf([1, 2, 3], [2, 4, 6], 0.05)).toEqual({ ratio: 2, interval: null });
  expect(ratioOf([2], [3], 0.05).ratio).toBeCloseTo(1.5, 12);
  expect([leastP(1, 1), leastP(3, 3), leastP(5, 5), leastP(0, 9)]).toEqual([1, 0.1, 2 / 252, 1]);
  expect(mannWhitney([], [1])).toBe(1);
});

/** scipy.stats.wilcoxon, method="exact". */
test.each<[number[], number]>([
  [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 0.0078125],
  [[-0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 0.015625],
  [[0.3, -0.2, 0.15, -0.05, 0.6, -0.41, 0.07], 0.6875],
  [[1.5, 2.25, -0.5, 3, -4], 0.8125],
])("the signed-rank test's p as scipy has it: %j", (differences, p) => {
  expect(signedRank(differences)).toBeCloseTo(p, 12);
  expect(signedRank(differences.map((x) => -x))).toBeCloseTo(p, 12);
});

/** By trying every combination of signs. */
test.each<[number[]]>([[[0.1, 0.1, -0.1, 0.3, 0.3, -0.2, 0.7]], [[2, 2, 2, 2]], [[1, -1]], [[0, 0, 0.5, -0.25, 1]]])(
  "the signed-rank test with ties and zeros: %j",
  (differences) => {
    const sizes = differences.filter(Boolean).map(Math.abs);
    const sorted = [...sizes].sort((a, b) => a - b);
    const rank = (size: number) => (sorted.indexOf(size) + sorted.lastIndexOf(size)) / 2 + 1;
    const total = sizes.reduce((sum, size) => sum + rank(size), 0);
    const least = (signs: readonly boolean[]) => {
      const positive = sizes.reduce((sum, size, i) => sum + (signs[i] ? rank(size) : 0), 0);
      return Math.min(positive, total - positive);
    };
    const found = least(differences.filter(Boolean).map((x) => x > 0));
    let as = 0;
    for (let bits = 0; bits < 2 ** sizes.length; bits++)
      as += Number(least(sizes.map((_, i) => Boolean(bits & (1 << i)))) <= found);
    expect(signedRank(differences)).toBeCloseTo(as / 2 ** sizes.length, 12);
  },
);

test("pairs: their ratio, and an interval that has 1 outside when the test sees a difference", () => {
  const logs = [0.1, 0.12, 0.08, 0.11, 0.09, 0.13, 0.07, 0.1];
  const { ratio, interval } = ratioOfPairs(logs, 0.02);
  expect(ratio).toBeCloseTo(Math.exp(0.1), 12);
  expect(interval![0]).toBeCloseTo(Math.exp(0.075), 12); // the second mean: of 0.07 and 0.08
  expect(interval![1]).toBeCloseTo(Math.exp(0.125), 12);
  expect(ratioOfPairs([0.1, 0.2], 0.02)).toEqual({ ratio: expect.closeTo(Math.exp(0.15), 12), interval: null });
  expect([leastSignedP(0), leastSignedP(1), leastSignedP(6), leastSignedP(7)]).toEqual([1, 1, 1 / 32, 1 / 64]);
  const random = new Random(5);
  for (let i = 0; i < 300; i++) {
    const mixed = [...random.normal(8)].map((z) => 0.1 * z + 0.08);
    const [low, high] = ratioOfPairs(mixed, 0.02).interval!;
    expect(low > 1 || high < 1).toBe(signedRank(mixed) < 0.02);
  }
});

test("many samples: the interval is that of the normal distribution, next to the exact one", () => {
  const random = new Random(3);
  const [a, b] = [random.normal(30), random.normal(30)].map((x) => [...x].map((value) => Math.exp(0.1 * value)));
  const exact = ratioOf(a, b, 0.05).interval!; // 900 pairs
  const normal = ratioOf(a, [...b, b[0]], 0.05).interval!;
  for (const i of [0, 1]) expect(Math.abs(Math.log(normal[i] / exact[i]))).toBeLessThan(0.01);
});

test("the geometric mean, and the interval of a share", () => {
  expect(geometricMean([0.5, 2, 8])).toBeCloseTo(2, 12);
  // scipy.stats.binomtest(3, 120).proportion_ci(method="wilson")
  const [low, high] = wilson(3, 120);
  expect(low).toBeCloseTo(0.00853817, 6);
  expect(high).toBeCloseTo(0.07093003, 6);
  expect(wilson(0, 10)[0]).toBe(0);
});
