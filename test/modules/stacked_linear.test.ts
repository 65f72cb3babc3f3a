/** Layers computed as one: the same numbers, and the same names in the file and for observers. */
import { expect, test } from "vitest";
import { Linear } from "../../src/modules/linear.ts";
import { outputObserver, traceOutputs, withObserver } from "../../src/modules/observer.ts";
import { StackedLinear } from "../../src/modules/stacked_linear.ts";
import { Weights } from "../../src/modules/weights.ts";
import { WeightError } from "../../src/tensor/errors.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { serializeSafetensors } from "../../src/tensor/files/safetensors_writer.ts";
import { MemorySource } from "../../src/tensor/files/source.ts";
import { add } from "../../src/tensor/ops/add.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const K = 12;
const SIZES = { q_proj: 8, k_proj: 4, v_proj: 4 };

async function open(dtype?: "f16" | "int8") {
  const random = new Random(3);
  const file = await serializeSafetensors(
    Object.entries(SIZES).flatMap(([name, N]) => [
      { name: `attn.${name}.weight`, dtype: "f32", shape: [N, K], data: new Uint8Array(random.normal(N * K).buffer) },
      { name: `attn.${name}.bias`, dtype: "f32", shape: [N], data: new Uint8Array(random.normal(N).buffer) },
    ]),
  );
  const checkpoint = await Checkpoint.open(new MemorySource("test", file));
  return { weights: Weights.open(checkpoint, device, dtype), checkpoint };
}

test.each([undefined, "f16", "int8"] as const)("stored as %s: equals the separate layers", async (dtype) => {
  const one = await open(dtype);
  const stacked = new StackedLinear(one.weights.at("attn"), SIZES, K);
  await one.weights.load();
  expect(one.weights.leftovers()).toEqual([]);
  const apart = await open(dtype);
  const layers = Object.entries(SIZES).map(([name, N]) => new Linear(apart.weights.at("attn").at(name), [N, K]));
  await apart.weights.load();

  const x = device.tensor(new Random(1).normal(2 * 3 * K), [2, 3, K]);
  const y = await stacked.forward(x).read();
  const parts = await Promise.all(layers.map((layer) => layer.forward(x).read()));
  const rows = Array.from({ length: 6 }, (_, row) =>
    parts.flatMap((part) => [...part.subarray((row * part.length) / 6, ((row + 1) * part.length) / 6)]),
  );
  expect([...y]).toEqual(rows.flat());

  const { result, outputs } = await traceOutputs(device, () => stacked.forward(x));
  expect([...outputs.keys()]).toEqual(["attn.q_proj", "attn.k_proj", "attn.v_proj"]);
  expect(outputs.get("attn.k_proj")!.data).toEqual(parts[1]);
  expect(await result.read()).toEqual(y);
  // What an observer puts in place of a layer's output goes on.
  const zeros = outputObserver(() => device.tensor(new Float32Array(24), [2, 3, 4]), "attn.k_proj");
  const replaced = await withObserver(device, zeros, () => stacked.forward(x)).read();
  expect([...replaced]).toEqual(rows.flatMap((row) => [...row.slice(0, 8), 0, 0, 0, 0, ...row.slice(12)]));
  one.weights.dispose();
  apart.weights.dispose();
});

test("a missing tensor of the file is named; tensors are restored exactly", async () => {
  const { weights, checkpoint } = await open();
  const missing = () => new StackedLinear(weights.at("attn"), { q_proj: 8, gate_proj: 4 }, K);
  expect(missing).toThrow(WeightError);
  expect(missing).toThrow("attn.gate_proj.weight");
  new StackedLinear(weights.at("attn"), SIZES, K);
  await weights.load();
  for (const { name, data } of weights.stored()) {
    const ours: number[] = [];
    for await (const piece of (data as () => AsyncIterable<Uint8Array>)()) ours.push(...piece);
    const theirs: number[] = [];
    for await (const { bytes } of checkpoint.stream([name])) theirs.push(...bytes);
    expect(ours, name).toEqual(theirs);
  }
  weights.dispose();
});

test("a residual is fused, or added separately if the product is observed", async () => {
  const { weights } = await open();
  const layer = new Linear(weights.at("attn").at("q_proj"), [8, K]);
  await weights.load();
  const [x, residual] = [
    device.tensor(new Random(1).normal(2 * K), [2, K]),
    device.tensor(new Random(2).normal(16), [2, 8]),
  ];
  const before = device.counts.launches;
  const y = await add(residual, layer.forward(x)).read();
  expect(device.counts.launches - before).toBe(1);
  const product = layer.forward(x);
  const alone = await product.read();
  expect(y).toEqual(await add(residual, product).read());
  expect(device.counts.launches - before).toBe(3);
  const { result, outputs } = await traceOutputs(device, () => add(residual, layer.forward(x)));
  expect(await result.read()).toEqual(y);
  expect(outputs.get("attn.q_proj")!.data).toEqual(alone);
  weights.dispose();
});
