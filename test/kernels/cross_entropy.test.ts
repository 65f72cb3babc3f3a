import { describe, expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { plansOf } from "../../src/tensor/device/plan.ts";
import { crossEntropy, IGNORED_LABEL } from "../../src/tensor/ops/cross_entropy.ts";
import { logSoftmax } from "../../src/tensor/ops/log_softmax.ts";
import { crossEntropy as reference } from "../../src/tensor/reference/cross_entropy.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, hardLogits, LOGITS } from "../hard.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const INF = Number.POSITIVE_INFINITY;

// One element, primes, below, at and above the workgroup size and a thread's run of 32, Flan-T5's and Vicuna's vocabularies.
// biome-ignore format: a table
const SIZES = [
  [1, 1], [3, 2], [5, 7], [5, 63], [5, 64], [5, 65], [3, 131], [2, 2047], [2, 2048], [2, 2049], [3, 4099], [5, 32_001],
  [2, 32_128],
] as const;

describe.each(plansOf("cross_entropy", "logits", device.caps))("%s", (name, plan) => {
  function run(x: ArrayLike<number>, labels: ArrayLike<number>, on = device): Promise<Float32Array> {
    const R = labels.length;
    const xs = on.tensor(Float32Array.from(x), [R, x.length / R]);
    return crossEntropy(xs, on.tensor(Uint32Array.from(labels), [R]), plan).read();
  }

  test.each(SIZES)("crossEntropy [%i, %i]", async (R, V) => {
    const random = new Random(R * 1000 + V);
    for (const [mean, deviation] of [
      [2, 0.1],
      [-3, 4],
      [1e4, 30],
    ]) {
      const x = random.normal(R * V, mean, deviation);
      // The first and the last token, and others between.
      const labels = Array.from({ length: R }, (_, row) => [0, V - 1, V >> 1, V >> 2, V >> 3][row]);
      expectClose(await run(x, labels), reference(x, labels, V), TOLERANCES.log_softmax, `${R}x${V} ${mean}`);
    }
  });

  test.each(Object.keys(LOGITS) as (keyof typeof LOGITS)[])("as exact as PyTorch on %s", async (kind) => {
    const { x, labels, V } = hardLogits(kind);
    const [y, exact] = [await run(x, labels), reference(x, labels, V)];
    expectAsPyTorch(`cross_entropy ${kind}`, [x, labels], y, exact, `cross_entropy ${name} ${kind}`);
  });

  test("minus the label's log probability, to the last bit", async () => {
    const [R, V] = [7, 1009];
    const x = new Random(3).normal(R * V, 0, 3);
    const labels = Array.from({ length: R }, (_, row) => (row * 499) % V);
    const all = await logSoftmax(device.tensor(x, [R, V]), plan).read();
    expect([...(await run(x, labels))]).toEqual(labels.map((label, row) => -all[row * V + label]));
  });

  test("rows with label -100 are 0, whatever is in them, and change no other", async () => {
    const x = new Random(4).normal(4 * 5);
    x.fill(Number.NaN, 5, 10);
    const labels = [1, -100, 4, -100];
    expect(IGNORED_LABEL).toBe(Uint32Array.of(-100)[0]);
    const y = await run(x, labels);
    expect([y[1], y[3]]).toEqual([0, 0]);
    expectClose(y, reference(x, labels, 5), TOLERANCES.log_softmax, "ignored");
  });

  test("a certain label costs nothing, one far below the rest its distance", async () => {
    const x = [90, -90, -90, 1e30, 0, 0, -3e38, 3e38, 3e38, 7, 7, -INF];
    const y = await run(x, [0, 1, 0, 1]);
    expectClose(y, [0, Math.fround(1e30), INF, Math.LN2], TOLERANCES.log_softmax, "extremes");
  });

  test("no loss where there is none: labels out of range, NaN, plus infinity, minus infinity alone", async () => {
    const rows = [
      [1, 2, 3],
      [1, Number.NaN, 3],
      [1, INF, 3],
      [-INF, -INF, -INF],
      [0, -INF, -INF],
      [0, -INF, -INF],
    ];
    expect([...(await run(rows.flat(), [3, 0, 0, 0, 0, 1]))]).toEqual([NaN, NaN, NaN, NaN, 0, INF]);
    expect([...(await run([1, 2, 3], [0xffffffff]))]).toEqual([NaN]);
  });

  test("more rows than one grid dimension, and a folded grid", async () => {
    const x = new Random(2).normal(65_540 * 3);
    const labels = Uint32Array.from({ length: 65_540 }, (_, row) => row % 3);
    expectClose(await run(x, labels), reference(x, labels, 3), TOLERANCES.log_softmax, "65,540 rows");
    const folded = new GpuDevice(device.handle, { ...device.caps, maxWorkgroupsPerDimension: 4 }, INF);
    const [part, few] = [x.subarray(0, 33), labels.subarray(0, 11)];
    expectClose(await run(part, few, folded), reference(part, few, 3), TOLERANCES.log_softmax, "folded");
  });
});

test("strided views are read in their own order; other shapes are refused", async () => {
  const x = device.tensor([1, 10, 2, 20, 3, 30], [3, 2]).permute([1, 0]);
  const labels = device.tensor(Uint32Array.of(2), [1]).expand([2]);
  expectClose(
    await crossEntropy(x, labels).read(),
    reference([1, 2, 3, 10, 20, 30], [2, 2], 3),
    TOLERANCES.log_softmax,
    "strided",
  );
  expect(() => crossEntropy(device.empty([3]), device.empty([3], "u32"))).toThrow("must be [R, V], V > 0, got [3]");
  expect(() => crossEntropy(device.empty([3, 0]), device.empty([3], "u32"))).toThrow("got [3, 0]");
  expect(() => crossEntropy(device.empty([3, 2]), device.empty([2], "u32"))).toThrow("labels must be [3]");
});
