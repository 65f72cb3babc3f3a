import { describe, expect, test } from "vitest";
import { logSoftmaxInPlace } from "../../src/instructblip/generation/arithmetic.ts";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { plansOf } from "../../src/tensor/device/plan.ts";
import { logSoftmax } from "../../src/tensor/ops/log_softmax.ts";
import { logSoftmax as reference } from "../../src/tensor/reference/log_softmax.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, hardLogits, LOGITS } from "../hard.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const INF = Number.POSITIVE_INFINITY;
const LOWEST = -3.4028234663852886e38;

/** What the host computes in a search that reads its logits back. */
function host(x: Float32Array, V: number): Float32Array {
  const y = x.slice();
  for (let start = 0; start < y.length; start += V) logSoftmaxInPlace(y.subarray(start, start + V));
  return y;
}

// One element, primes, below, at and above the workgroup size and a thread's run of 32, Flan-T5's and Vicuna's vocabularies.
// biome-ignore format: a table
const SIZES = [
  [1, 1], [3, 2], [5, 7], [5, 63], [5, 64], [5, 65], [3, 131], [2, 2047], [2, 2048], [2, 2049], [3, 4099], [5, 32_001],
  [2, 32_128],
] as const;

describe.each(plansOf("log_softmax", "logits", device.caps))("%s", (name, plan) => {
  function run(x: ArrayLike<number>, V: number, on = device): Promise<Float32Array> {
    return logSoftmax(on.tensor(Float32Array.from(x), [x.length / V, V]), plan).read();
  }

  test.each(SIZES)("logSoftmax [%i, %i]", async (R, V) => {
    for (const deviation of [0.1, 4, 30]) {
      const x = new Random(R * 1000 + V).normal(R * V, 2, deviation);
      const y = await run(x, V);
      expectClose(y, reference(x, V), TOLERANCES.log_softmax, `logSoftmax ${R}x${V} ${deviation}`);
      expectClose(y, host(x, V), TOLERANCES.log_softmax, `against the host ${R}x${V} ${deviation}`);
    }
  });

  test("the logarithm: n equal numbers give -ln n within 1 ULP", async () => {
    // The sum is n exactly, so that the logarithm's error is all there is. Row n has n numbers, the rest are left out.
    const V = 1100;
    const x = Float32Array.from({ length: V * V }, (_, i) => (i % V <= Math.floor(i / V) ? -7 : -INF));
    const y = await run(x, V);
    const far = Array.from({ length: V }, (_, row) => row).filter((row) => {
      const expected = Math.log(row + 1);
      const ulp = 2 ** (Math.floor(Math.log2(expected)) - 23);
      return !(Math.abs(-y[row * V] - expected) <= (row === 0 ? 0 : ulp));
    });
    expect(far).toEqual([]);
    for (const n of [32_001, 32_768, 50_272]) {
      const all = await run(new Float32Array(n).fill(-7), n);
      expect(Math.abs(-all[n - 1] - Math.log(n))).toBeLessThan(2 ** -20); // 1 ULP from 8 to 16
    }
  });

  test("the logarithm just above 1 and up to 2: pairs of numbers", async () => {
    const x = Float32Array.from({ length: 4002 }, (_, i) => (i % 2 === 0 ? 0 : -i / 160));
    expectClose(await run(x, 2), reference(x, 2), TOLERANCES.log_softmax, "pairs");
  });

  test.each(Object.keys(LOGITS) as (keyof typeof LOGITS)[])("as exact as PyTorch on %s", async (kind) => {
    const { x, V } = hardLogits(kind);
    expectAsPyTorch(`log_softmax ${kind}`, [x], await run(x, V), reference(x, V), `log_softmax ${name} ${kind}`);
  });

  test("large numbers of either sign, and what is far below the rest", async () => {
    const rows = [
      [88, 87, -88, 0, 1],
      [1e4, -1e4, 9999, 9998, 0],
      [3e38, 1e38, 0, 1, 3e38],
      [-3e38, -3e38, -3e38, -3e38, -3e38],
      [LOWEST, LOWEST, LOWEST, LOWEST, LOWEST],
      [0, -0, 0, 1e-40, -1e-40],
    ];
    const x = Float32Array.from(rows.flat());
    expectClose(await run(x, 5), reference(x, 5), TOLERANCES.log_softmax, "large");
  });

  test("minus infinity stays; a row of nothing else, or with a NaN or infinity, is NaN, and no other row", async () => {
    const rows = [
      [1, -INF, 1],
      [-INF, -INF, LOWEST],
      [-INF, -INF, -INF],
      [0, Number.NaN, 1],
      [0, INF, 1],
      [2, 2, -INF],
    ];
    const half = Math.fround(-Math.LN2);
    const none = [Number.NaN, Number.NaN, Number.NaN];
    const expected = [[half, -INF, half], [-INF, -INF, 0], none, none, none, [half, half, -INF]].flat();
    const y = await run(rows.flat(), 3);
    expect([...y]).toEqual(expected);
    expect([...host(Float32Array.from(rows.flat()), 3)]).toEqual(expected);
  });

  test("more rows than one grid dimension, and a folded grid", async () => {
    const x = new Random(2).normal(65_540 * 3);
    expectClose(await run(x, 3), reference(x, 3), TOLERANCES.log_softmax, "65,540 rows");
    const folded = new GpuDevice(device.handle, { ...device.caps, maxWorkgroupsPerDimension: 4 }, INF);
    const part = x.subarray(0, 33);
    expectClose(await run(part, 3, folded), reference(part, 3), TOLERANCES.log_softmax, "folded");
  });
});

test("a strided view is read in its own order; other ranks and empty rows are refused", async () => {
  const x = device.tensor([1, 10, 2, 20, 3, 30], [3, 2]).permute([1, 0]);
  expectClose(await logSoftmax(x).read(), reference([1, 2, 3, 10, 20, 30], 3), TOLERANCES.log_softmax, "strided");
  expect(() => logSoftmax(device.empty([3]))).toThrow("logSoftmax: x must be [R, V], V > 0, got [3]");
  expect(() => logSoftmax(device.empty([3, 0]))).toThrow("got [3, 0]");
});
