import { expect, test } from "vitest";
import { layerNorm } from "../../src/tensor/ops/layer_norm.ts";
import { layerNorm as reference } from "../../src/tensor/reference/layer_norm.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

/** One element, primes, below, at and above the workgroup size, the model's widths; each eps the model uses. */
const SIZES = [
  [1, 1], [1, 2], [3, 7], [5, 63], [5, 64], [5, 65], [2, 131], [7, 768], [3, 1408],
] as const;

for (const [R, D] of SIZES) {
  for (const eps of [1e-6, 1e-12]) {
    test(`layer_norm [${R}, ${D}] eps ${eps}`, async () => {
      const random = new Random(R * 1000 + D);
      const [x, weight, bias] = [random.normal(R * D), random.normal(D, 1, 0.1), random.normal(D)];
      const y = layerNorm(device.tensor(x, [R, D]), device.tensor(weight, [D]), device.tensor(bias, [D]), eps);
      // With one element the distance from the mean is 0 exactly: no special case is needed.
      expectClose(await y.read(), reference(x, weight, bias, eps), TOLERANCES.layer_norm, `layer_norm ${R}x${D}`);
    });
  }
}

test("a large mean does not eat the variance", async () => {
  const random = new Random(1);
  const [R, D] = [3, 257];
  const x = random.normal(R * D, 1000, 1);
  const ones = new Float32Array(D).fill(1);
  const zeros = new Float32Array(D);
  const y = await layerNorm(device.tensor(x, [R, D]), device.tensor(ones, [D]), device.tensor(zeros, [D]), 1e-6).read();
  // f32 near 1000 has steps of 6e-5, and the mean's rounding shifts a whole row by as much.
  expectClose(y, reference(x, ones, zeros, 1e-6), { abs: 2e-4 }, "large mean");
});

test("equal elements give the bias, not NaN", async () => {
  const x = new Float32Array(2 * 96).fill(3.25);
  const ones = new Float32Array(96).fill(1);
  const bias = new Random(2).normal(96);
  const y = await layerNorm(device.tensor(x, [2, 96]), device.tensor(ones, [96]), device.tensor(bias, [96]), 1e-12).read();
  expectClose(y, [...bias, ...bias], TOLERANCES.exact, "equal rows");
});

test("more rows than one grid dimension", async () => {
  const [R, D] = [65_537 + 3, 2];
  const x = new Random(3).normal(R * D);
  const ones = new Float32Array(D).fill(1);
  const zeros = new Float32Array(D);
  const y = await layerNorm(device.tensor(x, [R, D]), device.tensor(ones, [D]), device.tensor(zeros, [D]), 1e-2).read();
  expectClose(y, reference(x, ones, zeros, 1e-2), TOLERANCES.layer_norm, "65,540 rows");
});

test("weight of another width is refused by name", () => {
  const x = device.tensor([1, 2], [1, 2]);
  const three = device.tensor([1, 2, 3], [3]);
  expect(() => layerNorm(x, three, three, 1e-6)).toThrow("layerNorm: weight must be [2], got [3]");
});
