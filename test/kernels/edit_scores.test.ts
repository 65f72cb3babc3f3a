import { expect, test } from "vitest";
import { badWords, repetitionPenalty, scoreEdits, suppress } from "../../src/instructblip/generation/logits_process.ts";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { editScores } from "../../src/tensor/ops/edit_scores.ts";
import { editScores as reference } from "../../src/tensor/reference/edit_scores.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const INF = Number.POSITIVE_INFINITY;

async function run(
  x: ArrayLike<number>,
  V: number,
  penalty: number,
  penalised: number[][],
  banned: number[][],
  on = device,
): Promise<Float32Array> {
  const scores = on.tensor(Float32Array.from(x), [x.length / V, V]);
  return editScores(scores, { penalty, penalised, banned }).read();
}

/** About half of `count` ids below V, all different. */
const ids = (random: Random, V: number, count: number) => [
  ...new Set(Array.from({ length: Math.ceil(count / 2) }, () => random.int(0, V))),
];

// One element, below, at and above the workgroup size, a vocabulary with a whole prompt penalised.
test.each([
  [1, 1, 1],
  [3, 2, 4],
  [5, 131, 64],
  [4, 257, 128],
  [5, 32_001, 600],
])("editScores [%i, %i], up to %i ids of each kind in a row", async (R, V, count) => {
  const random = new Random(R * 1000 + V);
  const x = random.normal(R * V, 0, 5);
  const penalised = Array.from({ length: R }, () => ids(random, V, count));
  const banned = Array.from({ length: R }, () => ids(random, V, count / 4));
  for (const penalty of [1.5, 0.7, 1]) {
    const y = await run(x, V, penalty, penalised, banned);
    const expected = reference(x, V, Math.fround(penalty), penalised, banned);
    expectClose(y, expected, TOLERANCES.elementwise, `penalty ${penalty}`);
    const changed = x.reduce((sum, value, i) => sum + Number(value !== y[i]), 0);
    const named = penalised.map((row, r) => new Set(penalty === 1 ? banned[r] : [...row, ...banned[r]]).size);
    expect(changed).toBe(named.reduce((a, b) => a + b));
  }
});

test("gives what the processors on the host give, bit for bit on this driver", async () => {
  const V = 97;
  const rows = [
    [3, 5, 3, 96, 200],
    [0, 1, 5, 7, 8],
  ];
  const processors = [repetitionPenalty(1.3), badWords([[8, 5], [1]]), suppress([0, 96, 500])];
  const x = new Random(4).normal(rows.length * V, 0, 3);
  const y = x.slice();
  const views = rows.map((_, r) => y.subarray(r * V, (r + 1) * V));
  for (const process of processors) process(rows, views);
  const { penalty, penalised, banned } = scoreEdits(processors, rows, V)!;
  const edited = await run(x, V, penalty, penalised as number[][], banned as number[][]);
  expectClose(edited, y, TOLERANCES.elementwise, "processors");
  expect(edited.filter((value) => value === -INF)).toHaveLength(7);
});

test("a ban wins over the penalty, zero is not negative, infinities and NaN stay", async () => {
  const x = [2, -2, 0, -0, INF, -INF, Number.NaN, 4];
  const y = await run(x, 8, 2, [[0, 1, 2, 3, 4, 5, 6, 7]], [[7]]);
  expect([...y]).toEqual([1, -4, 0, -0, INF, -INF, Number.NaN, -INF]);
});

test("nothing to do is no launch", async () => {
  const { launches } = device.counts;
  expect([...(await run([1, 2], 1, 1, [[0], [0]], [[], []]))]).toEqual([1, 2]);
  expect([...(await run([1, 2], 1, 2, [[], []], [[], []]))]).toEqual([1, 2]);
  expect(device.counts.launches).toBe(launches);
});

test("a folded grid reaches every place", async () => {
  const folded = new GpuDevice(device.handle, { ...device.caps, maxWorkgroupsPerDimension: 3 }, INF);
  const n = 6 * 64 + 5;
  const all = [Array.from({ length: n }, (_, i) => i)];
  const y = await run(new Array(n).fill(3), n, 1.5, all, [[]], folded);
  expect([...y]).toEqual(new Array(n).fill(2));
});

test("a strided view is read in its own order, and what is given stays as it is", async () => {
  const given = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
  const y = editScores(given.permute([1, 0]), { penalty: 2, penalised: [[1], [], [0]], banned: [[], [1], []] });
  expect([...(await y.read())]).toEqual([1, 2, 2, -INF, 1.5, 6]);
  expect([...(await given.read())]).toEqual([1, 2, 3, 4, 5, 6]);
});

test("other ranks, and lists for other rows, are refused", () => {
  const none = { penalty: 1, penalised: [[], []], banned: [[], []] };
  expect(() => editScores(device.empty([2]), none)).toThrow("editScores: x must be [R, V], with R lists of each kind");
  expect(() => editScores(device.empty([3, 2]), none)).toThrow("got [3, 2], 2 and 2 lists");
});
