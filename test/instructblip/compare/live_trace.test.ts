/** Traces of a pass that is run for them: its tensors, and what the device holds of them. */
import { expect, test } from "vitest";
import { LiveTrace, type LiveTraceOptions } from "../../../src/instructblip/compare/live_trace.ts";
import { Module } from "../../../src/modules/module.ts";
import { scale } from "../../../src/tensor/ops/scale.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { testDevice } from "../../device.ts";

const device = await testDevice();
const SIZE = 64; // numbers: 256 bytes

class Double extends Module {
  forward(x: Tensor): Tensor {
    return this.observe(scale(this.observeInput(x), 2));
  }
}

const layers = ["a", "b", "c"].map((path) => new Double({ path }));

/** a, b and c in turn, then a again, on what no module has returned. */
async function pass() {
  const output = device.scope(() => {
    let x = device.tensor(new Float32Array(SIZE).fill(1), [1, SIZE]);
    for (const layer of layers) x = layer.forward(x);
    return { last: layers[0].forward(scale(x, 10)), first: x };
  });
  return { results: { result: output.last }, output };
}

const given = { ids: { shape: [1, 2], data: Uint32Array.of(5, 6) } };
const open = (more: Partial<LiveTraceOptions> = {}) =>
  LiveTrace.open({ label: "live", device, given, run: pass, ...more });
const ORDER = ["ids", "input:a", "a", "b", "c", "input:a#2", "a#2", "result"];
const VALUES = { "input:a": 1, a: 2, b: 4, c: 8, "input:a#2": 80, "a#2": 160, result: 160 };

test.each([
  ["all at once", 1 << 20, 1],
  ["two at a time", 600, 4],
  ["one at a time, though one is more than is allowed", 1, 8],
])("tensors are read %s", async (_, windowBytes, passes) => {
  const before = device.memory.use.live;
  const trace = await open({ windowBytes });
  expect(trace.order).toEqual(ORDER);
  expect(Object.fromEntries(trace.inputs)).toEqual({ a: "input:a", b: "a", c: "b", "a#2": "input:a#2" });
  for (const [name, value] of Object.entries(VALUES)) {
    expect(trace.shape(name)).toEqual([1, SIZE]);
    expect(new Set(await trace.read(name)), name).toEqual(new Set([value]));
    expect(device.memory.use.live - before).toBeLessThanOrEqual(Math.max(windowBytes, 4 * SIZE));
  }
  expect(await trace.read("ids")).toEqual(Uint32Array.of(5, 6));
  expect([trace.dtype("ids"), trace.dtype("a"), trace.passes]).toEqual(["u32", "f32", passes]);
  trace.close();
  expect(device.memory.use.live).toBe(before);
});

test("tensors are kept in the order in which they are expected", async () => {
  const trace = await open({ windowBytes: 600 });
  const names = Object.keys(VALUES).toReversed();
  trace.expect(names);
  for (const name of names) expect((await trace.read(name))[0], name).toBe(VALUES[name as keyof typeof VALUES]);
  expect(trace.passes).toBeLessThanOrEqual(5);
  trace.close();
});

test("a replaced tensor is what the pass goes on with, but not what is read", async () => {
  const seven = new Float32Array(SIZE).fill(7);
  const trace = await open({ replace: (name) => (name === "b" || name === "input:a#2" ? seven : undefined) });
  expect((await trace.read("b"))[0]).toBe(4);
  expect((await trace.read("c"))[0]).toBe(14);
  expect((await trace.read("input:a#2"))[0]).toBe(140);
  expect((await trace.read("a#2"))[0]).toBe(14);
  expect(trace.inputs.get("c")).toBe("b");
  trace.close();
});

test("results alone are recorded when no module is asked for", async () => {
  const trace = await open({ only: "results" });
  expect(trace.order).toEqual(["ids", "result"]);
  trace.close();
});

test("what a pass throws is thrown, and nothing stays", async () => {
  const before = device.memory.use.live;
  const run = async () => {
    await pass();
    throw new Error("no");
  };
  await expect(open({ run })).rejects.toThrow("no");
  expect(device.observers).toEqual([]);
  expect(device.memory.use.live - before).toBeLessThanOrEqual(8 * SIZE); // the pass's own results
});
