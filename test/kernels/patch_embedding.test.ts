import { expect, test } from "vitest";
import { stored } from "../../src/tensor/cases/support/stored.ts";
import { type Device, GpuDevice } from "../../src/tensor/device/device.ts";
import { type PlanOverride, runnableVariants } from "../../src/tensor/device/plan.ts";
import type { WeightDType } from "../../src/tensor/dtype.ts";
import { contiguous } from "../../src/tensor/ops/copy.ts";
import { patchEmbedding } from "../../src/tensor/ops/patch_embedding.ts";
import { patchEmbedding as reference } from "../../src/tensor/reference/patch_embedding.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource, massive } from "../hard.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

interface Case {
  /** [B, C, H, W] */
  readonly image: readonly [number, number, number, number];
  readonly P: number;
  readonly D: number;
  readonly dtype?: WeightDType;
  readonly on?: Device;
}

/** Runs one case on random numbers, against f64. */
async function check({ image, P, D, dtype = "f32", on = device }: Case, override: PlanOverride) {
  const [B, C, H, W] = image;
  const [N, K] = [Math.floor(H / P) * Math.floor(W / P), C * P * P];
  const random = new Random(H * 1009 + W);
  const [pixels, w, b] = [random.normal(B * C * H * W), random.normal(D * K), random.normal(D)];
  const [token, places] = [random.normal(D), random.normal((N + 1) * D)];
  const weight = Weight.from(on, w, [D, K], dtype);
  const x = on.tensor(pixels, image);
  const parameters = {
    weight,
    bias: on.tensor(b, [D]),
    class_token: on.tensor(token, [1, 1, D]),
    positions: on.tensor(places, [1, N + 1, D]),
  };
  const y = patchEmbedding(x, P, parameters, override);
  expect(y.shape).toEqual([B, N + 1, D]);
  const label = `${image} by ${P}, ${D} wide, ${dtype}, ${JSON.stringify(override)}`;
  const numbers = await y.read();
  const expected = reference(pixels, image, P, stored(w, K, dtype), b, token, places);
  expectClose(numbers, expected, TOLERANCES.linear, label);
  // With more rows than matvec kernels take, to the bit what the steps give one by one.
  if (B * N > 8) {
    const composed = patchEmbedding(x, P, parameters, { ...override, patch_embedding: "composed" });
    expect(numbers, label).toEqual(await composed.read());
  }
  weight.dispose();
}

/** As in linear.test.ts: matrices of subgroups are played by threads where the adapter has none. */
const PRODUCTS = new Set([
  ...runnableVariants("linear", device.caps),
  ...(device.caps.subgroups ? (["subgroup_matrix"] as const) : []),
]);

/** One pixel; one patch; odd patches; what fills no patch; oblong; the patches of ViT; a batch, as of a video. */
const CASES: readonly Case[] = [
  { image: [1, 1, 1, 1], P: 1, D: 1 },
  { image: [1, 2, 3, 5], P: 3, D: 5 },
  { image: [1, 3, 11, 17], P: 3, D: 33 },
  { image: [2, 1, 13, 5], P: 1, D: 7 },
  { image: [1, 4, 3, 40], P: 3, D: 36 },
  { image: [1, 3, 42, 30], P: 14, D: 66 },
  { image: [4, 3, 29, 43], P: 14, D: 8 },
];

for (const patch_embedding of runnableVariants("patch_embedding", device.caps)) {
  for (const variant of PRODUCTS) {
    const override = { patch_embedding, linear: variant };
    test(`${patch_embedding}, ${variant}: images of every size`, async () => {
      for (const one of CASES) await check(one, override);
    });

    test(`${patch_embedding}, ${variant}: as exact as PyTorch where biases and positions are large`, async () => {
      const [source, image, P, D] = [new HardSource(11), [2, 3, 42, 42] as const, 14, 48];
      const K = 3 * P * P;
      const pixels = Float32Array.from(source.bell(2 * 3 * 42 * 42));
      const w = Float32Array.from(source.bell(D * K), (b) => b / 16);
      const bias = Float32Array.from(source.bell(D), (b) => 150 + b);
      const token = Float32Array.from(source.bell(D));
      const positions = Float32Array.from(massive(source.bell(10 * D), D));
      const weight = Weight.from(device, w, [D, K]);
      const parameters = {
        weight,
        bias: device.tensor(bias, [D]),
        class_token: device.tensor(token, [1, 1, D]),
        positions: device.tensor(positions, [1, 10, D]),
      };
      const y = await patchEmbedding(device.tensor(pixels, image), P, parameters, override).read();
      const exact = reference(pixels, image, P, w, bias, token, positions);
      const label = `patch_embedding ${patch_embedding} ${variant}`;
      expectAsPyTorch("patch_embedding", [pixels, w, bias, token, positions], y, exact, label);
      weight.dispose();
    });

    test(`${patch_embedding}, ${variant}: a sharded weight, and more workgroups than one dimension holds`, async () => {
      // 4 KiB hold the pixels, the tokens, and 36 rows of the weight.
      const caps = { ...device.caps, maxBindingBytes: 4096, maxWorkgroupsPerDimension: 6 };
      const on = new GpuDevice(device.handle, caps, Number.POSITIVE_INFINITY);
      await check({ image: [1, 3, 13, 13], P: 3, D: 57, on }, override);
    });
  }

  test.each(["f16", "bf16", "int8", "int4"] as const)(`${patch_embedding}: %s weights`, async (dtype) => {
    // Rows of whole blocks and groups, and neither.
    for (const [P, C] of [
      [4, 2],
      [3, 3],
    ] as const) {
      // biome-ignore format: a table
      await check({ image: [2, C, 17, 16], P, D: 35, dtype }, { patch_embedding });
    }
  });

  test(`${patch_embedding}: an image of which nothing is a number leaves the class token as it is`, async () => {
    const [P, D] = [2, 3];
    const pixels = new Float32Array(2 * 3 * 16).fill(Number.NaN, 0, 3 * 16);
    const weight = Weight.from(device, new Random(1).normal(D * 12), [D, 12]);
    const parameters = {
      weight,
      bias: device.tensor([1, 2, 3], [D]),
      class_token: device.tensor([4, 5, 6], [1, 1, D]),
      positions: device.tensor(
        Float32Array.from({ length: 5 * D }, (_, i) => i),
        [1, 5, D],
      ),
    };
    const y = await patchEmbedding(device.tensor(pixels, [2, 3, 4, 4]), P, parameters, { patch_embedding }).read();
    expect([...y.subarray(0, D)]).toEqual([4, 6, 8]);
    expect(y.subarray(D, 5 * D).every(Number.isNaN)).toBe(true);
    expect([...y.subarray(5 * D, 7 * D)]).toEqual([4, 6, 8, 4, 6, 8]);
    weight.dispose();
  });
}

test("an image that is a view is read as it looks", async () => {
  const [P, D, random] = [2, 5, new Random(4)];
  const weight = Weight.from(device, random.normal(D * 4), [D, 4]);
  const [b, token, places] = [random.normal(D), random.normal(D), random.normal(13 * D)];
  const parameters = {
    weight,
    bias: device.tensor(b, [D]),
    class_token: device.tensor(token, [1, 1, D]),
    positions: device.tensor(places, [1, 13, D]),
  };
  const wide = device.tensor(random.normal(6 * 10), [1, 1, 6, 10]).narrow(3, 1, 8);
  const copied = contiguous(wide);
  const fused = { patch_embedding: "fused" } as const;
  const [y, expected] = [wide, copied].map((x) => patchEmbedding(x, P, parameters, fused).read());
  expect(await y).toEqual(await expected);
  weight.dispose();
});

test("wrong shapes are refused by name", () => {
  const parameters = {
    weight: Weight.from(device, new Float32Array(2 * 12), [2, 12]),
    bias: device.empty([2]),
    class_token: device.empty([1, 1, 2]),
    positions: device.empty([1, 5, 2]),
  };
  const run = (pixels: number[], P: number, other = {}) =>
    patchEmbedding(device.empty(pixels), P, { ...parameters, ...other });
  expect(() => run([1, 3, 1, 4], 2)).toThrow("H and W at least 2, got [1, 3, 1, 4]");
  expect(() => run([1, 1, 4, 4], 2)).toThrow("patchEmbedding: weight must be [2, 4], got [2, 12]");
  expect(() => run([1, 3, 4, 6], 2)).toThrow("patchEmbedding: positions must be [1, 7, 2], got [1, 5, 2]");
  expect(() => run([1, 3, 4, 4], 2, { bias: device.empty([3]) })).toThrow("patchEmbedding: bias must be [2], got [3]");
  expect(() => run([1, 3, 4, 4], 2, { class_token: device.empty([2]) })).toThrow("class_token must be [1, 1, 2]");
  parameters.weight.dispose();
});
