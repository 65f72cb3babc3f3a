import { expect, test } from "vitest";
import { ACTIVATIONS, type Activation } from "../../src/tensor/activation.ts";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { gatedActivation } from "../../src/tensor/ops/gated_activation.ts";
import { activation } from "../../src/tensor/reference/activation.ts";
import { gatedActivation as reference } from "../../src/tensor/reference/gated_activation.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource, massive } from "../hard.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

for (const kind of Object.keys(ACTIVATIONS) as Activation[]) {
  test.each([1, 3, 255, 256, 257, 2 * 131])(`gated_activation ${kind}, %i elements`, async (n) => {
    const random = new Random(n);
    const [gate, up] = [random.normal(n, 0, 3), random.normal(n)];
    const y = await gatedActivation(device.tensor(gate, [n]), device.tensor(up, [n]), kind).read();
    expectClose(y, reference(gate, up, activation[kind]), TOLERANCES.activation, `${kind} ${n}`);
  });
}

test.each((Object.keys(ACTIVATIONS) as Activation[]).filter((kind) => kind !== "none"))(
  "gated %s: as exact as PyTorch on massive channels",
  async (kind) => {
    const [source, n] = [new HardSource(5), 256 * 64];
    const gate = Float32Array.from(source.bell(n), (b) => 2 * b);
    const up = Float32Array.from(massive(source.bell(n), 64));
    const y = await gatedActivation(device.tensor(gate, [n]), device.tensor(up, [n]), kind).read();
    expectAsPyTorch(`gated ${kind}`, [gate, up], y, reference(gate, up, activation[kind]));
  },
);

test("extreme gates", async () => {
  const gate = Float32Array.of(88, -88, 1e4, -1e4, 1e-40, 0);
  const up = Float32Array.of(2, 2, -3, -3, 1, -0);
  const y = await gatedActivation(device.tensor(gate, [6]), device.tensor(up, [6]), "silu").read();
  expectClose(y, reference(gate, up, activation.silu), TOLERANCES.activation, "extremes");
});

test("NaN in either comes out", async () => {
  const gate = device.tensor([Number.NaN, 1, 1], [3]);
  const up = device.tensor([1, Number.NaN, 1], [3]);
  const y = await gatedActivation(gate, up, "gelu_tanh").read();
  expect([...y].map(Number.isNaN)).toEqual([true, true, false]);
});

test("strided halves of one tensor", async () => {
  const x = new Random(1).normal(5 * 14);
  const both = device.tensor(x, [5, 14]);
  const y = await gatedActivation(both.narrow(1, 0, 7), both.narrow(1, 7, 7), "silu").read();
  const half = (from: number) => Array.from({ length: 35 }, (_, i) => x[Math.floor(i / 7) * 14 + from + (i % 7)]);
  expectClose(y, reference(half(0), half(7), activation.silu), TOLERANCES.activation, "halves");
});

test.each([
  [false, 6 * 64 * 4 + 5],
  [true, 70_003],
])("a folded grid reaches every element, software %o, %i of them", async (isSoftware, n) => {
  const caps = { ...device.caps, isSoftware, maxWorkgroupsPerDimension: 3 };
  const folded = new GpuDevice(device.handle, caps, Number.POSITIVE_INFINITY);
  const x = Float32Array.from({ length: n }, (_, i) => i + 1);
  const ones = new Float32Array(x.length).fill(1);
  const y = gatedActivation(folded.tensor(x, [x.length]), folded.tensor(ones, [x.length]), "relu");
  expect([...(await y.read())]).toEqual([...x]);
});

test("up of another shape is refused by name", () => {
  const [gate, up] = [device.tensor([1, 2], [2]), device.tensor([1, 2, 3], [3])];
  expect(() => gatedActivation(gate, up, "silu")).toThrow("gatedActivation: up must be [2], got [3]");
});
