/** A gated linear unit in one launch: the same numbers, and the same names in the file and for observers. */
import { expect, test } from "vitest";
import { GatedLinear } from "../../src/modules/gated_linear.ts";
import { Linear } from "../../src/modules/linear.ts";
import { outputObserver, traceOutputs, withObserver } from "../../src/modules/observer.ts";
import { Weights } from "../../src/modules/weights.ts";
import type { Device } from "../../src/tensor/device/device.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { serializeSafetensors } from "../../src/tensor/files/safetensors_writer.ts";
import { MemorySource } from "../../src/tensor/files/source.ts";
import { activation } from "../../src/tensor/ops/activation.ts";
import { gatedActivation, mul } from "../../src/tensor/ops/gated_activation.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { otherDevice, testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const [F, K] = [7, 12];
const NAMES = { gate: "gate_proj", up: "up_proj" };

/** As a model writes it. */
function glu(layer: GatedLinear, x: Tensor): Tensor {
  const [gate, up] = layer.forward(x);
  return mul(layer.observe(activation(gate, "silu"), "act_fn"), up);
}

async function open(on: Device, dtype?: "f16" | "int8") {
  const random = new Random(3);
  const file = await serializeSafetensors(
    [NAMES.gate, NAMES.up].flatMap((name) => [
      { name: `mlp.${name}.weight`, dtype: "f32", shape: [F, K], data: new Uint8Array(random.normal(F * K).buffer) },
      { name: `mlp.${name}.bias`, dtype: "f32", shape: [F], data: new Uint8Array(random.normal(F).buffer) },
    ]),
  );
  const checkpoint = await Checkpoint.open(new MemorySource("test", file));
  return { weights: Weights.open(checkpoint, on, dtype), checkpoint };
}

test.each([
  [undefined, 0],
  [undefined, 208], // four rows of f32
  ["f16", 0],
  ["f16", 208],
  ["int8", 208],
] as const)("stored as %s, at most %i bytes a binding: what the layers give apart", async (dtype, max_binding) => {
  const on = max_binding ? await otherDevice({ max_binding }) : device;
  const one = await open(on, dtype);
  const gated = new GatedLinear(one.weights.at("mlp"), NAMES, [F, K]);
  await one.weights.load();
  expect(one.weights.leftovers()).toEqual([]);
  if (max_binding) expect(gated.weight.shards.length).toBeGreaterThan(1);
  const apart = await open(on, dtype);
  const [gate, up] = [NAMES.gate, NAMES.up].map((name) => new Linear(apart.weights.at("mlp").at(name), [F, K]));
  await apart.weights.load();

  const x = on.tensor(new Random(1).normal(3 * K), [1, 3, K]);
  const before = on.counts.launches;
  const y = glu(gated, x);
  expect(on.counts.launches - before).toBe(gated.weight.shards.length);
  expect(y.shape).toEqual([1, 3, F]);
  const numbers = await y.read();
  expect(numbers).toEqual(await gatedActivation(gate.forward(x), up.forward(x), "silu").read());

  const { result, outputs } = await traceOutputs(on, () => glu(gated, x));
  expect([...outputs.keys()]).toEqual(["mlp.gate_proj", "mlp.up_proj", "mlp.act_fn"]);
  expect(outputs.get("mlp.gate_proj")!.data).toEqual(await gate.forward(x).read());
  expect(outputs.get("mlp.up_proj")!.data).toEqual(await up.forward(x).read());
  expect(outputs.get("mlp.act_fn")!.data).toEqual(await activation(gate.forward(x), "silu").read());
  expect(await result.read()).toEqual(numbers);

  // What an observer puts in place of a layer's output goes on.
  const other = on.tensor(new Random(2).normal(3 * F), [1, 3, F]);
  for (const name of [NAMES.gate, NAMES.up]) {
    const replaced = withObserver(
      on,
      outputObserver(() => other, `mlp.${name}`),
      () => glu(gated, x),
    );
    const expected = name === NAMES.gate ? [other, up.forward(x)] : [gate.forward(x), other];
    expect(await replaced.read()).toEqual(await gatedActivation(expected[0], expected[1], "silu").read());
  }
  for (const { weights } of [one, apart]) weights.dispose();
  if (on !== device) on.destroy();
});

test("the file's tensors are restored exactly, for every binding limit", async () => {
  for (const max_binding of [112, 208, 4096]) {
    const on = await otherDevice({ max_binding });
    const { weights, checkpoint } = await open(on);
    new GatedLinear(weights.at("mlp"), NAMES, [F, K]);
    await weights.load();
    for (const { name, data } of weights.stored()) {
      const ours: number[] = [];
      for await (const piece of (data as () => AsyncIterable<Uint8Array>)()) ours.push(...piece);
      const theirs: number[] = [];
      for await (const { bytes } of checkpoint.stream([name])) theirs.push(...bytes);
      expect(ours, name).toEqual(theirs);
    }
    weights.dispose();
    on.destroy();
  }
});
