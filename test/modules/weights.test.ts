/** Binding parameters to a checkpoint: missing and unused names, storage dtypes, stacked matrices, and disposal. */
import { expect, test } from "vitest";
import { Weights } from "../../src/modules/weights.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { serializeSafetensors } from "../../src/tensor/files/safetensors_writer.ts";
import { MemorySource } from "../../src/tensor/files/source.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { linear as reference } from "../../src/tensor/reference/linear.ts";
import { convert, type Weight } from "../../src/tensor/weight.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
type FileDType = "f32" | "f16" | "bf16" | "f64";

/** Whole numbers, which every dtype of a file holds. */
function numbersOf(name: string, size: number): Float32Array {
  const random = new Random(name.length);
  return Float32Array.from({ length: size }, () => random.int(-8, 9));
}

async function open(
  tensors: Record<string, [FileDType, readonly number[]]>,
  dtype?: Parameters<typeof Weights.open>[2],
) {
  const file = await serializeSafetensors(
    Object.entries(tensors).map(([name, [dtype, shape]]) => {
      const numbers = numbersOf(
        name,
        shape.reduce((size, n) => size * n, 1),
      );
      const bytes = new Uint8Array(numbers.buffer);
      const data = dtype === "f64" ? new Uint8Array(Float64Array.from(numbers).buffer) : convert(bytes, "f32", dtype);
      return { name, dtype, shape, data };
    }),
  );
  return Weights.open(await Checkpoint.open(new MemorySource("test", file)), device, dtype);
}

async function readWeight(weight: Weight): Promise<Float32Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of weight.read()) pieces.push(piece.slice());
  const bytes = new Uint8Array(pieces.flatMap((piece) => [...piece]));
  return new Float32Array(convert(bytes, weight.dtype as "f32", "f32").slice().buffer);
}

test("leftovers are tensors not asked for and not ignored; a tensor asked for twice is loaded once", async () => {
  const weights = await open({ "a.weight": ["f32", [2, 4]], "a.bias": ["f32", [2]], "b.extra": ["f32", [1]] });
  expect(weights.leftovers()).toEqual(["a.bias", "a.weight", "b.extra"]);
  const a = weights.at("a");
  expect(a.matrix("weight", [2, 4])).toBe(weights.matrix("a.weight", [2, 4]));
  expect(a.get("bias", [2])).toBe(weights.get("a.bias", [2]));
  expect([a.path, a.has("bias"), a.has("b.extra")]).toEqual(["a", true, false]);
  expect(weights.leftovers()).toEqual(["b.extra"]);
  expect(a.leftovers([/extra$/])).toEqual([]); // of the whole checkpoint, wherever one stands
  weights.dispose();
});

test("errors name a missing tensor with the nearest name, and a wrong shape with both shapes; nothing is registered", async () => {
  const weights = await open({ "layer.0.weight": ["f32", [2, 4]] });
  const before = device.memory.use.live;
  const refusal = (run: () => unknown) => {
    try {
      run();
    } catch (error) {
      const { code, hint, message } = error as Error & { code: string; hint?: string };
      return `${code} ${message} ${hint}`;
    }
    return "accepted";
  };
  expect(refusal(() => weights.at("layer.1").get("weight", [2]))).toMatch(/^MISSING_TENSORS .*layer\.0\.weight/s);
  expect(refusal(() => weights.at("layer").at(0).matrix("weight", [4, 2]))).toMatch(/\[2, 4\].*transposed/s);
  expect(refusal(() => weights.stackedMatrix({ "layer.0.weight": 2, none: 2 }, 4))).toMatch(/^MISSING_TENSORS none/);
  expect(device.memory.use.live).toBe(before);
  expect(
    weights.missing((asked) => [asked.get("x", [1]), asked.get("layer.0.weight", [9]), asked.at("y").get("z", [1])]),
  ).toEqual(["x", "y.z"]);
  expect(weights.leftovers()).toEqual(["layer.0.weight"]); // asking what is missing is not asking for it
});

test("lossless is auto, or f32 if another dtype was chosen, for that path only", async () => {
  const file: Record<string, [FileDType, readonly number[]]> = { "a.m": ["f16", [2, 32]], "b.m": ["f16", [2, 32]] };
  for (const [dtype, stored, lossless] of [
    [undefined, "f16", "f16"],
    ["auto", "f16", "f16"],
    ["int8", "int8", "f32"],
    [{ a: "int4" }, "int4", "f32"],
  ] as const) {
    const weights = await open(file, dtype as never);
    const plain = await open(file, dtype as never);
    expect(plain.at("a").matrix("m", [2, 32]).dtype).toBe(stored);
    expect(weights.at("a").lossless().matrix("m", [2, 32]).dtype).toBe(lossless);
    expect(weights.at("b").matrix("m", [2, 32]).dtype).toBe(dtype === "int8" ? "int8" : "f16");
    weights.dispose();
    plain.dispose();
  }
});

test("matrices of different dtypes are stacked in the widest, and keep their names", async () => {
  const rows = { q: 3, k: 2, v: 4 };
  const weights = await open({ q: ["f16", [3, 8]], k: ["f32", [2, 8]], v: ["bf16", [4, 8]], after: ["f32", [1]] });
  const whole = weights.stackedMatrix(rows, 8);
  expect([whole.dtype, ...whole.shape]).toEqual(["f32", 9, 8]);
  await weights.load();
  const all: number[] = [];
  for (const [name, N] of Object.entries(rows)) {
    const expected = numbersOf(name, N * 8);
    all.push(...expected);
    expect(await readWeight(weights.parameters.get(name) as Weight)).toEqual(expected);
  }
  const x = new Random(1).normal(8);
  const y = await linear(device.tensor(x, [1, 8]), whole).read();
  expectClose(y, reference(x, all, undefined, [1, 9, 8]), TOLERANCES.linear, "stacked");
  expect(weights.leftovers()).toEqual(["after"]);
  weights.dispose();
});

test("vectors of different dtypes are concatenated in f32; f64 is rounded", async () => {
  const weights = await open({
    a: ["f16", [3]],
    b: ["f64", [4]],
    c: ["bf16", [2]],
    m: ["f64", [2, 4]],
    n: ["f64", [5]],
  });
  const whole = weights.stackedVector({ a: 3, b: 4, c: 2 });
  const [m, n] = [weights.matrix("m", [2, 4]), weights.get("n", [5])];
  const progress: string[] = [];
  await weights.load({ on_progress: ({ name }) => void progress.push(name) });
  expect(await whole.read()).toEqual(Float32Array.of(...numbersOf("a", 3), ...numbersOf("b", 4), ...numbersOf("c", 2)));
  expect(await n.read()).toEqual(numbersOf("n", 5));
  expect(await readWeight(m)).toEqual(numbersOf("m", 8));
  expect(new Set(progress)).toEqual(new Set(["a", "b", "c", "m", "n"]));
  weights.dispose();
});

test.each(["int8", "int4"] as const)(
  "%s: what is quantized on the device is what the host makes of it",
  async (dtype) => {
    const file: Record<string, [FileDType, readonly number[]]> = {
      whole: ["f16", [37, 96]],
      double: ["f64", [5, 64]],
      q: ["f16", [3, 32]],
      k: ["bf16", [2, 32]],
      odd: ["f32", [4, 33]],
      bias: ["f32", [7]],
    };
    const { live } = device.memory.use;
    const bits: Uint32Array[][] = [];
    for (const quantize_on_device of [0, Number.POSITIVE_INFINITY]) {
      const weights = await open(file, dtype);
      const matrices = [
        weights.matrix("whole", [37, 96]),
        weights.matrix("double", [5, 64]),
        weights.stackedMatrix({ q: 3, k: 2 }, 32),
        weights.matrix("odd", [4, 33]),
      ];
      const bias = weights.get("bias", [7]);
      const { launches } = device.counts;
      await weights.load({ quantize_on_device });
      expect(device.counts.launches - launches).toBe(quantize_on_device === 0 ? 4 : 0);
      expect(await bias.read()).toEqual(numbersOf("bias", 7));
      bits.push(await Promise.all(matrices.flatMap(({ shards }) => shards.map((shard) => shard.bits.read()))));
      weights.dispose();
      expect(device.memory.use.live).toBe(live);
    }
    expect(bits[0]).toEqual(bits[1]);
    expect(bits[0].length).toBe(4);
  },
);

test("dispose frees parameters, stacked weights and other resources, once", async () => {
  const before = device.memory.use.live;
  const weights = await open({ a: ["f32", [4]], m: ["f16", [4, 8]], p: ["f32", [2, 8]], q: ["f32", [2, 8]] });
  weights.get("a", [4]);
  weights.matrix("m", [4, 8]);
  weights.stackedMatrix({ p: 2, q: 2 }, 8);
  weights.computed([3], () => Float32Array.of(1, 2, 3));
  let freed = 0;
  weights.onDispose(() => freed++);
  expect(device.memory.use.live).toBeGreaterThan(before);
  weights.dispose();
  expect([device.memory.use.live, freed]).toEqual([before, 1]);
});
