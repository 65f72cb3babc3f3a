import { describe, expect, test } from "vitest";
import { topIndices } from "../../src/instructblip/generation/arithmetic.ts";
import { type Device, GpuDevice } from "../../src/tensor/device/device.ts";
import { plansOf } from "../../src/tensor/device/plan.ts";
import { rowMaximum, topK } from "../../src/tensor/ops/top_k.ts";
import { topK as reference } from "../../src/tensor/reference/top_k.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const INF = Number.POSITIVE_INFINITY;
const NONE = 0xffffffff;

interface Found {
  readonly sums: number[];
  readonly places: number[];
}

function expected(x: Float32Array, scores: readonly number[], rows: number, K: number): Found {
  const { sums, places } = reference(x, Float32Array.from(scores), x.length / scores.length, rows, K);
  return { sums: [...sums], places: [...places] };
}

// Prompts, rows of each, V, K: one element, primes, around a chunk of 4096, more winners than a row has numbers, all there are, and
// the vocabularies of Flan-T5, OPT and Vicuna at 5 beams.
// biome-ignore format: a table
const SIZES = [
  [1, 1, 1, 1], [2, 1, 2, 2], [2, 3, 7, 6], [3, 2, 61, 8], [1, 5, 67, 10], [1, 1, 4095, 4], [1, 1, 4096, 4],
  [1, 1, 4097, 4], [2, 3, 4099, 16], [1, 3, 1009, 1500], [1, 2, 33, 66], [2, 2, 32_128, 4], [1, 5, 32_001, 10],
  [1, 5, 50_272, 48],
] as const;

describe.each(plansOf("top_k", "logits", device.caps))("%s", (_name, plan) => {
  async function run(
    x: ArrayLike<number>,
    scores: readonly number[],
    rows: number,
    K: number,
    { on = device, chunk }: { on?: Device; chunk?: number } = {},
  ): Promise<Found> {
    const R = scores.length;
    const xs = on.tensor(Float32Array.from(x), [R, x.length / R]);
    const y = topK(xs, on.tensor(Float32Array.from(scores), [R]), rows, K, chunk, plan);
    expect(y.shape).toEqual([2, R / rows, K]);
    const found = await y.read();
    const half = found.length / 2;
    return { sums: [...new Float32Array(found.buffer, 0, half)], places: [...found.subarray(half)] };
  }

  test.each(SIZES)("topK of %i prompts of %i rows of %i, the best %i", async (P, rows, V, K) => {
    const random = new Random(P * 1000 + V);
    const x = random.normal(P * rows * V, -10, 3);
    const scores = [...random.uniform(P * rows, -5, 0)];
    const best = expected(x, scores, rows, K);
    // The adapter's own, and that of GPUs; one that is smaller than K and no multiple of the workgroup.
    for (const chunk of [undefined, 4096, ...(V < 100 ? [3] : [])])
      expect(await run(x, scores, rows, K, { chunk })).toEqual(best);
  });

  test("gives what the host's search gives", async () => {
    const [rows, V, K] = [4, 1009, 8];
    const x = new Random(5).normal(rows * V, -8, 2);
    const scores = [0, -1e9, -0.5, -1e9].map(Math.fround);
    const sums = x.map((value, i) => value + scores[Math.floor(i / V)]);
    const { places } = await run(x, scores, rows, K);
    expect(places).toEqual(topIndices(sums, K));
  });

  test("of equals the lowest places win, wherever they stand, over rows and chunks", async () => {
    for (const [rows, V, K] of [
      [3, 67, 10],
      [2, 5003, 12],
      [3, 4096, 7],
    ]) {
      // Five values: far more ties than winners. Two rows have the same score.
      const x = new Random(V).uniform(rows * V).map((v) => Math.round(2 * v));
      const scores = [-1, -1, -2].slice(0, rows);
      for (const chunk of [undefined, 1000]) {
        expect(await run(x, scores, rows, K, { chunk })).toEqual(expected(x, scores, rows, K));
        const flat = await run(new Array(rows * V).fill(-3), new Array(rows).fill(0), rows, K, { chunk });
        expect(flat.places).toEqual(Array.from({ length: K }, (_, i) => i));
      }
    }
  });

  test("sums are rounded to f32, so that small differences vanish beside -1e9 and ties go to the lowest", async () => {
    const found = await run([-3, -1, -2, -9, -5, -7], [-1e9, 0], 2, 6);
    expect(found.places).toEqual([4, 5, 3, 0, 1, 2]);
    expect(found.sums.slice(3)).toEqual([-1e9, -1e9, -1e9]);
  });

  test("NaN is first and stays NaN, minus infinity last; zeros are equal whatever their sign", async () => {
    const x = [-INF, 3, Number.NaN, -0, 0, -INF, Number.NaN, 1];
    expect(await run(x, [0], 1, 8)).toEqual({
      sums: [Number.NaN, Number.NaN, 3, 1, 0, 0, -INF, -INF],
      places: [2, 6, 1, 7, 3, 4, 0, 5],
    });
    const first = new Float32Array(2 * 5000).fill(-1); // at the first place of a row, and far behind an infinity
    first[0] = first[9999] = Number.NaN;
    first[5000] = INF;
    for (const chunk of [undefined, 1000]) {
      const found = await run(first, [-2, 0], 2, 4, { chunk });
      expect(found).toEqual({ sums: [Number.NaN, Number.NaN, INF, -1], places: [0, 9999, 5000, 5001] });
    }
    // A row of nothing else, beside one that wins.
    const wide = new Float32Array(2 * 3000).fill(-INF);
    wide[5999] = -4;
    for (const chunk of [undefined, 1000])
      expect(await run(wide, [0, -1], 2, 3, { chunk })).toEqual({ sums: [-5, -INF, -INF], places: [5999, 0, 1] });
  });

  test("fewer numbers than K: minus infinity at no place follows", async () => {
    expect(await run([1, 2, 5, 4], [0, 0], 1, 3)).toEqual({
      sums: [2, 1, -INF, 5, 4, -INF],
      places: [1, 0, NONE, 0, 1, NONE],
    });
    // Chunks shorter than K, of minus infinity: what fills these up must not come before it.
    const x = new Float32Array(2 * 13).fill(-INF);
    const places = [...Array.from({ length: 26 }, (_, i) => i), NONE, NONE];
    for (const chunk of [undefined, 4]) expect((await run(x, [0, 0], 2, 28, { chunk })).places).toEqual(places);
  });

  test("a folded grid reaches every prompt and chunk", async () => {
    const folded = new GpuDevice(device.handle, { ...device.caps, maxWorkgroupsPerDimension: 6 }, INF);
    const x = new Random(3).normal(7 * 2 * 5000);
    const scores = [...new Random(4).uniform(14)];
    expect(await run(x, scores, 2, 4, { on: folded, chunk: 4096 })).toEqual(expected(x, scores, 2, 4));
  });
});

test("a strided view is read in its own order", async () => {
  const x = device.tensor([1, 9, 5, 2, 7, 8], [2, 3]).permute([1, 0]); // rows 1 2, 9 7, 5 8
  const y = await topK(x, device.tensor([0, 0, 0], [3]), 3, 2).read();
  expect([...y.subarray(2)]).toEqual([2, 5]);
});

test("rowMaximum is the largest of each row, of one number or many, and NaN where there is one", async () => {
  const x = device.tensor([-3, -1, -2, 0.5, Number.NaN, 7, 4, 4, -0.25], [3, 3]);
  expect(await rowMaximum(x).read()).toEqual(Float32Array.of(-1, Number.NaN, 4));
  expect(await rowMaximum(device.tensor([-5, 6], [2, 1])).read()).toEqual(Float32Array.of(-5, 6));
});

test("shapes that do not fit are refused", () => {
  const x = device.empty([4, 3]);
  for (const [scores, rows, K] of [
    [[4], 3, 2],
    [[3], 2, 2],
    [[4], 0, 2],
    [[4], 2, 0],
  ] as const) {
    expect(() => topK(x, device.empty(scores), rows, K)).toThrow("topK: x must be [P * n, V] and scores [P * n]");
  }
});
