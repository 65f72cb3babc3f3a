/** Observers: what they see, in which order, and the effect of replacements. */
import { expect, test } from "vitest";
import { Module } from "../../src/modules/module.ts";
import {
  observedStates,
  observeStates,
  outputObserver,
  traceOutputs,
  withObserver,
} from "../../src/modules/observer.ts";
import { scale } from "../../src/tensor/ops/scale.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();
const vector = (...numbers: number[]) => device.tensor(numbers, [numbers.length]);

class Double extends Module {
  forward(x: Tensor): Tensor {
    this.observeState("hidden_states", x);
    return this.observe(scale(x, 2));
  }
}

const layers = [0, 1, 12].map((i) => new Double({ path: `encoder.layer.${i}` }));
const run = () => layers.reduce((x, layer) => layer.forward(x), vector(1, 2));

test("outputs are observed in call order under their paths, a second call as #2", async () => {
  const { result, outputs } = await traceOutputs(device, () => [run(), layers[0].forward(vector(5))]);
  expect([...outputs.keys()]).toEqual(["encoder.layer.0", "encoder.layer.1", "encoder.layer.12", "encoder.layer.0#2"]);
  expect([...outputs.get("encoder.layer.1")!.data]).toEqual([4, 8]);
  expect([...(await result[0].read())]).toEqual([8, 16]);
});

test.each([
  ["encoder.layer.1", ["encoder.layer.1"]],
  ["encoder.layer.*", ["encoder.layer.0", "encoder.layer.1", "encoder.layer.12"]],
  ["encoder.layer.1*", ["encoder.layer.1", "encoder.layer.12"]],
  ["**.12", ["encoder.layer.12"]],
  ["encoder.*", []], // * stays within a name
  ["encoder.**", ["encoder.layer.0", "encoder.layer.1", "encoder.layer.12"]],
  ["encoder?layer?1", []], // nothing but * is special
  [[], []],
  [
    ["**.0", "**.12"],
    ["encoder.layer.0", "encoder.layer.12"],
  ],
])("the pattern %s", async (paths, seen) => {
  const { outputs } = await traceOutputs(device, run, undefined, paths);
  expect([...outputs.keys()]).toEqual(seen);
});

test("a replacement is used, and the next observer sees it", async () => {
  const seen: Tensor[] = [];
  const zero = outputObserver(() => vector(0, 1), "**.1");
  const look = outputObserver((_, output) => void seen.push(output as Tensor), "**.1");
  const y = withObserver(device, zero, () => withObserver(device, look, run));
  expect([...(await y.read())]).toEqual([0, 2]);
  expect([...(await seen[0].read())]).toEqual([0, 1]);
  expect(device.observers).toEqual([]);
});

test("observers are removed after an error, a rejection, or the end of a call", async () => {
  const observer = outputObserver(() => undefined);
  const broken = () => {
    throw new Error("inside");
  };
  expect(() => withObserver(device, observer, broken)).toThrow("inside");
  expect(device.observers).toEqual([]);
  await expect(withObserver(device, observer, async () => broken())).rejects.toThrow("inside");
  expect(device.observers).toEqual([]);
  await expect(traceOutputs(device, broken)).rejects.toThrow("inside");
  expect(device.observers).toEqual([]);
});

test("states that no observer requests are not computed", () => {
  const [layer] = layers;
  const compute = () => {
    throw new Error("computed");
  };
  expect(layer.observeIfWanted(device, compute)).toBeUndefined();
  const elsewhere = outputObserver(() => undefined, "elsewhere");
  withObserver(device, elsewhere, () => {
    expect(layer.observeIfWanted(device, compute)).toBeUndefined();
    layer.observeState("attentions", vector(1), compute);
  });
  withObserver(
    device,
    outputObserver(() => undefined),
    () => {
      expect(() => layer.observeIfWanted(device, compute)).toThrow("computed");
    },
  );
});

test("states are kept by kind and path until they are taken, else freed", async () => {
  const before = device.memory.use.live;
  const [first, all] = device.scope(() =>
    observeStates(device, { output_hidden_states: true }, () => {
      run();
      expect(observedStates(device, "attentions", "encoder")).toBeUndefined();
      const first = observedStates(device, "hidden_states", "encoder.layer.1")!; // not layer.12's
      run();
      return [first, observedStates(device, "hidden_states", "encoder")!];
    }),
  );
  expect(await Promise.all(first.map((x) => x.read()))).toEqual([Float32Array.of(2, 4)]);
  expect(all.length).toBe(5); // two of the first run, three of the second
  for (const x of [...first, ...all]) x.dispose();
  expect(device.memory.use.live).toBe(before);
  device.scope(() => observeStates(device, { output_hidden_states: true }, () => void run()));
  expect(device.memory.use.live).toBe(before);
  expect(observedStates(device, "hidden_states", "encoder")).toBeUndefined();
  const unasked = observeStates(device, { output_attentions: false }, () => device.observers.length);
  expect(unasked).toBe(0);
});
