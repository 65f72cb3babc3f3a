import { expect, test } from "vitest";
import { ACTIVATIONS, type Activation } from "../../src/tensor/activation.ts";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { activation } from "../../src/tensor/ops/activation.ts";
import { erf, erfc, activation as reference } from "../../src/tensor/reference/activation.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource, RANGES } from "../hard.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const KINDS = Object.keys(ACTIVATIONS) as Activation[];

for (const kind of KINDS) {
  test(`${kind} over -20 … 20 in steps of 1/4096`, async () => {
    const x = Float32Array.from({ length: 40 * 4096 + 1 }, (_, i) => i / 4096 - 20);
    const y = await activation(device.tensor(x, [x.length]), kind).read();
    expectClose(y, Float64Array.from(x, reference[kind]), TOLERANCES.activation, kind);
  });

  test(`${kind} near zero keeps its relative accuracy, subnormals apart`, async () => {
    const magnitudes = Array.from({ length: 36 }, (_, i) => 10 ** -(i + 1));
    const x = Float32Array.from([0, -0, ...magnitudes, ...magnitudes.map((m) => -m)]);
    const y = await activation(device.tensor(x, [x.length]), kind).read();
    // The relative part of TOLERANCES.activation alone; below the smallest normal number a driver may give 0.
    expectClose(y, Float64Array.from(x, reference[kind]), { abs: 1.2e-38, rel: 2e-6 }, kind);
  });

  if (kind !== "none") {
    test.each(Object.entries(RANGES))(`${kind} of numbers %s: as exact as PyTorch`, async (range, size) => {
      const x = Float32Array.from(new HardSource(4).bell(65_536), (b) => size * b);
      const y = await activation(device.tensor(x, [x.length]), kind).read();
      expectAsPyTorch(`${kind} ${range}`, [x], y, Float64Array.from(x, reference[kind]));
    });
  }

  test(`${kind} at ±88, ±1e4, ±3e38 is finite and right`, async () => {
    const x = Float32Array.from([87.3, 88, 88.7, 89, 100, 1e4, 1e20, 3e38].flatMap((v) => [v, -v]));
    const y = await activation(device.tensor(x, [x.length]), kind).read();
    // f64 keeps tails (1e-37) that f32 may flush to 0, and x³ overflows in neither.
    expectClose(y, Float64Array.from(x, reference[kind]), TOLERANCES.activation, kind);
  });
}

test.each([1, 2, 3, 5, 255, 256, 257, 1023])("%i elements: nothing is left out", async (n) => {
  const x = new Float32Array(n).fill(2);
  const y = await activation(device.tensor(x, [n]), "relu").read();
  expect([...y]).toEqual([...x]);
});

test("a strided view is read in its own order", async () => {
  const x = device.tensor([-1, 2, -3, 4, -5, 6], [2, 3]).permute([1, 0]);
  expect([...(await activation(x, "relu").read())]).toEqual([0, 4, 2, 0, 0, 6]);
});

// The second size gives each invocation several groups of four on a software driver.
test.each([6 * 64 * 4 + 5, 20_003])("a folded grid reaches every one of %i elements", async (n) => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const x = Float32Array.from({ length: n }, (_, i) => i + 1);
  expect([...(await activation(folded.tensor(x, [x.length]), "relu").read())]).toEqual([...x]);
});

test("an unknown name is refused, not taken for none", () => {
  const x = device.tensor([1], [1]);
  for (const kind of ["swish", "toString"])
    expect(() => activation(x, kind as never)).toThrow(`no activation "${kind}"`);
});

test("none is no launch", () => {
  const x = device.tensor([1], [1]);
  expect(activation(x, "none")).toBe(x);
});

test("NaN comes out as NaN, by bits", async () => {
  const bits = Uint32Array.of(0x7fc00000, 0xffc00001, 0x3f800000);
  for (const kind of KINDS) {
    const y = await activation(device.tensor(new Float32Array(bits.buffer), [3]), kind).read();
    expect([...y].map(Number.isNaN), kind).toEqual([true, true, false]);
  }
});

test("erf and erfc of the reference agree with mpmath", () => {
  // biome-ignore format: a table
  const ERF = [
    [1e-5, 1.1283791670579e-5], [0.1, 0.1124629160182849], [0.5, 0.5204998778130465], [1, 0.8427007929497149],
    [2, 0.9953222650189527], [2.5, 0.999593047982555], [3, 0.9999779095030014],
  ];
  for (const [x, y] of ERF) expectClose([erf(x), erf(-x)], [y, -y], { rel: 1e-13 }, `erf(${x})`);
  // biome-ignore format: a table
  const ERFC = [
    [2.25, 1.462716586681152e-3], [2.5, 4.06952017444959e-4], [2.75, 1.006219221196368e-4], [4, 1.541725790028002e-8],
    [6, 2.151973671249891e-17], [10, 2.088487583762545e-45], [20, 5.395865611607901e-176],
  ];
  for (const [x, y] of ERFC) expectClose([erfc(x)], [y], { rel: 1e-12 }, `erfc(${x})`);
});
