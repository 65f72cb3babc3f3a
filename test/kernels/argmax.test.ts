import { describe, expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { plansOf } from "../../src/tensor/device/plan.ts";
import { argmax } from "../../src/tensor/ops/argmax.ts";
import { argmax as reference } from "../../src/tensor/reference/argmax.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
/** With as many loads in flight as on a GPU. */
const hardware = new GpuDevice(device.handle, { ...device.caps, isSoftware: false }, Number.POSITIVE_INFINITY);

describe.each(plansOf("argmax", "logits", device.caps))("%s", (_name, plan) => {
  /** Indices, then which of them are of no finite number. */
  async function runAll(x: ArrayLike<number>, V: number, on = device): Promise<number[]> {
    return [...(await argmax(on.tensor(Float32Array.from(x), [x.length / V, V]), plan).read())];
  }
  /** Indices, with one load in flight and with many. */
  const run = async (x: ArrayLike<number>, V: number) => {
    const indices = (await runAll(x, V)).slice(0, x.length / V);
    expect((await runAll(x, V, hardware)).slice(0, x.length / V)).toEqual(indices);
    return indices;
  };

  // One element, primes, below, at and above the workgroup size, Flan-T5's and Vicuna's vocabularies.
  test.each([
    [1, 1],
    [3, 2],
    [5, 7],
    [5, 63],
    [5, 64],
    [5, 65],
    [2, 131],
    [2, 32_128],
    [1, 32_001],
  ])("argmax [%i, %i]", async (R, V) => {
    const x = new Random(R * 1000 + V).normal(R * V);
    for (const on of [device, hardware]) expect(await runAll(x, V, on)).toEqual([...reference(x, V)]);
  });

  test("the winner may stand anywhere", async () => {
    const V = 131;
    const x = new Float32Array(V * V);
    for (let i = 0; i < V; i++) x[i * V + i] = 1;
    expect(await run(x, V)).toEqual(Array.from({ length: V }, (_, i) => i));
  });

  test("of equals the lowest index wins, wherever they stand", async () => {
    const x = new Random(1).uniform(9 * 257).map((v) => Math.round(v * 2)); // five values only
    expect(await runAll(x, 257)).toEqual([...reference(x, 257)]);
    expect(await run(new Array(200).fill(-3), 200)).toEqual([0]);
    const row = new Float32Array(200);
    row[70] = 5;
    row[6] = 5; // the same thread of 64
    row[68] = 5;
    expect(await run(row, 200)).toEqual([6]);
  });

  test("rows of very negative numbers and infinities", async () => {
    const lowest = -3.4028234663852886e38;
    const inf = Number.POSITIVE_INFINITY;
    const rows = [
      [-1e38, -1e37, -1e38],
      [lowest, lowest, -3.4e38],
      [lowest, lowest, lowest],
      [-inf, -inf, lowest],
      [-inf, -inf, -inf],
      [1, inf, inf],
      [-2, -1, -3],
    ];
    expect(await runAll(rows.flat(), 3)).toEqual([1, 2, 0, 2, 0, 1, 1, /* not finite: */ 0, 0, 0, 0, 1, 1, 0]);
  });

  test("zeros are equal whatever their sign, subnormals are not zero", async () => {
    const rows = [
      [-1, -0, 0],
      [0, -0, 1e-45],
      [-1e-45, -1e-44, -1],
      [-1e-45, -0, -1],
    ];
    expect(await run(rows.flat(), 3)).toEqual([1, 2, 0, 1]);
  });

  test("the first NaN wins, whatever its bits, and is told", async () => {
    const [quiet, negative, signalling, one, infinity] = [0x7fc00000, 0xffc00001, 0x7f800001, 0x3f800000, 0x7f800000];
    const bits = Uint32Array.of(
      one,
      quiet,
      negative,
      infinity,
      one,
      signalling,
      negative,
      infinity,
      quiet,
      one,
      one,
      one,
    );
    const y = await argmax(device.tensor(new Float32Array(bits.buffer), [4, 3]), plan).read();
    expect([...y]).toEqual([1, 2, 0, 0, 1, 1, 1, 0]);
    // One among many, in the last turn of the last thread.
    const x = new Random(6).normal(2 * 32_001);
    x[32_000] = Number.NaN;
    for (const on of [device, hardware]) expect(await runAll(x, 32_001, on)).toEqual([...reference(x, 32_001)]);
  });

  test("more rows than one grid dimension, and a folded grid", async () => {
    const x = new Random(2).normal(65_540 * 3);
    expect(await runAll(x, 3)).toEqual([...reference(x, 3)]);
    const folded = new GpuDevice(
      device.handle,
      { ...device.caps, maxWorkgroupsPerDimension: 4 },
      Number.POSITIVE_INFINITY,
    );
    expect(await runAll(x.subarray(0, 33), 3, folded)).toEqual([...reference(x.subarray(0, 33), 3)]);
  });

  test("a strided view is read in its own order", async () => {
    const x = device.tensor([1, 9, 5, 2, 7, 8], [2, 3]).permute([1, 0]);
    expect([...(await argmax(x, plan).read())]).toEqual([1, 0, 1, 0, 0, 0]);
  });
});

test("other ranks and empty rows are refused", () => {
  expect(() => argmax(device.empty([3]))).toThrow("argmax: x must be [R, V], V > 0, got [3]");
  expect(() => argmax(device.empty([3, 0]))).toThrow("argmax: x must be [R, V], V > 0, got [3, 0]");
});

// Where subgroups have 8 threads: one that is not full, one and a half, a single thread, an odd number of them.
test.runIf(device.caps.subgroups).each([4, 12, 1, 72, 256])("subgroups in a workgroup of %i threads", async (WG) => {
  const [R, V] = [31, 300];
  const x = new Random(WG).uniform(R * V).map((v) => Math.round(40 * v)); // each number about eight times
  const y = device.empty([2, R], "u32");
  device.launch({
    kernel: "argmax",
    uses: { reduce: "reduce_subgroups" },
    overrides: { WG },
    bindings: { x: device.tensor(x, [R, V]), y },
    params: { rows: R, V },
    workgroups: R,
  });
  expect([...(await y.read())]).toEqual([...reference(x, V)]);
});
