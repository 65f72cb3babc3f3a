import { expect, test } from "vitest";
import { RandomCheckpoint } from "../../bench/random_checkpoint.ts";
import {
  fillRandom,
  randomNumbers,
  randomWeight,
  sampleRows,
  takeSample,
} from "../../src/tensor/cases/support/data.ts";
import { widen } from "../../src/tensor/dtype.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { embedding } from "../../src/tensor/ops/embedding.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { testDevice } from "../device.ts";

test.each(["f32", "f16", "bf16"] as const)("the random sequence is the same in %s, wherever one begins", (dtype) => {
  const bytes = new Uint8Array(2000 * (dtype === "f32" ? 4 : 2));
  const first = 1_000_003 - 700; // the block ends on the way
  fillRandom(bytes, first, dtype);
  expect(widen(bytes, dtype)).toEqual(randomNumbers(2000, first));
  expect(randomNumbers(1300, first + 700)).toEqual(randomNumbers(1300, 1_000_003));
  expect(new Set(randomNumbers(2000)).size).toBeGreaterThan(200);
});

test("a random weight's row n holds the sequence from n·K on, over several writes too", async () => {
  const device = await testDevice();
  const [N, K] = [43, 100_000]; // a write holds 41 rows
  const weight = randomWeight(device, [N, K], "f32");
  const rows = await embedding(device.tensor(Uint32Array.of(42, 1), [2]), weight).read();
  weight.dispose();
  expect(rows.subarray(0, K)).toEqual(randomNumbers(K, 42 * K));
  expect(rows.subarray(K)).toEqual(randomNumbers(K, K));
});

test.each(["int8", "int4"] as const)(
  "a random weight of %s is what quantizing its rows gives, kept or not",
  async (dtype) => {
    const device = await testDevice();
    const [N, K] = [5, 96];
    const expected = Weight.from(device, randomNumbers(N * K), [N, K], dtype);
    const kept = new Map();
    const weights = [undefined, kept, kept].map((kept) => randomWeight(device, [N, K], dtype, false, "f32", kept));
    const bytesOf = async (weight: Weight) => (await weight.read().next()).value;
    for (const weight of weights) expect(await bytesOf(weight)).toEqual(await bytesOf(expected));
    expect(kept.size).toBe(1);
    for (const weight of [expected, ...weights]) weight.dispose();
  },
);

test("samples hold the first row and the last, each once, in order", () => {
  expect(sampleRows(3, 8)).toEqual([0, 1, 2]);
  const rows = sampleRows(1000, 8);
  expect(rows).toHaveLength(8);
  expect([rows[0], rows[7]]).toEqual([0, 999]);
  expect([...new Set(rows)].sort((a, b) => a - b)).toEqual(rows);
  expect([...takeSample([0, 1, 10, 11, 20, 21], [0, 2], 2)]).toEqual([0, 1, 20, 21]);
});

test("a checkpoint that nobody has written reads like any other", async () => {
  const source = new RandomCheckpoint({ "norm.weight": [8], "dense.weight": [3, 4], "dense.bias": [3] });
  const checkpoint = await Checkpoint.open(source);
  expect([...checkpoint.tensors.keys()].sort()).toEqual(["dense.bias", "dense.weight", "norm.weight"]);
  for (const name of checkpoint.tensors.keys()) {
    const { data, shape } = source.tensor(name)!;
    expect(checkpoint.tensors.get(name)!.shape).toEqual(shape);
    expect(widen(await checkpoint.read(name), "f16")).toEqual(data);
  }
  expect(source.tensor("absent")).toBeUndefined();
  const norm = source.tensor("norm.weight")!.data;
  expect(Math.min(...norm)).toBeGreaterThan(0.7);
  expect(new Set(norm).size).toBeGreaterThan(4);

  const whole = new Uint8Array(source.size);
  await source.read(0, whole);
  const part = new Uint8Array(source.size - 30);
  await source.read(10, part.subarray(0, source.size - 30));
  expect(part).toEqual(whole.subarray(10, source.size - 20));
  await expect(source.read(source.size - 2, new Uint8Array(4))).rejects.toThrow("cannot read 4 bytes");
});
