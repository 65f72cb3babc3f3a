import { afterAll, expect, test } from "vitest";
import { setF16Scales } from "../../src/modules/f16_scales.ts";
import { ACTIVATIONS, type Activation } from "../../src/tensor/activation.ts";
import { stored } from "../../src/tensor/cases/support/stored.ts";
import { type Device, GpuDevice } from "../../src/tensor/device/device.ts";
import { type PlanOverride, runnableVariants } from "../../src/tensor/device/plan.ts";
import { TILES, type Tiling, tilesOf } from "../../src/tensor/device/tiling.ts";
import { f16ToNumber, numberToF16, type WeightDType } from "../../src/tensor/dtype.ts";
import type { Epilogue } from "../../src/tensor/fuse.ts";
import { f16Scales } from "../../src/tensor/ops/f16_scales.ts";
import { gatedActivation } from "../../src/tensor/ops/gated_activation.ts";
import { hasBlocks, linear, matmulNaive } from "../../src/tensor/ops/linear.ts";
import { placeholder } from "../../src/tensor/ops/placeholder.ts";
import { activation as activations } from "../../src/tensor/reference/activation.ts";
import { gatedActivation as gatedReference } from "../../src/tensor/reference/gated_activation.ts";
import { linear as reference } from "../../src/tensor/reference/linear.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { compare, expectClose } from "../compare.ts";
import { otherDevice, testDevice } from "../device.ts";
import { coded, expectAsPyTorch, HardSource, massive } from "../hard.ts";
import { Random } from "../random.ts";
import { ALL } from "../rounds.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const limited = (caps: Partial<Device["caps"]>) =>
  new GpuDevice(device.handle, { ...device.caps, ...caps }, Number.POSITIVE_INFINITY);

/** Each kernel with numbers of rows it may get: around the 8 that matvec ends at, around tiles of 8, 32 and 64. */
const FEW = runnableVariants("matvec", device.caps).map((matvec): [string, PlanOverride, number[]] => [
  `matvec ${matvec}`,
  { matvec },
  [1, 2, 3, 5, 8],
]);
/** Matrices of subgroups too, played by threads where the adapter has none. */
const FOR_MANY = new Set([
  ...runnableVariants("linear", device.caps),
  ...(device.caps.subgroups ? (["subgroup_matrix"] as const) : []),
]);
const MANY = [...FOR_MANY].map((variant): [string, PlanOverride, number[]] => [
  `linear ${variant}`,
  { linear: variant },
  [9, 17, 33, 65],
]);

/** What a launch says where rows are not tokens of images. */
const NO_TOKENS = { tokens: 0, height: 0, width: 0 };

/** Shorter than one load, around a tile, the model's own; then those whose rows are not whole groups of four. */
const VEC4 = [[1, 4], [5, 8], [67, 60], [70, 64], [33, 588], [4, 1408]] as const; // biome-ignore format: a table
const SCALAR = [[1, 1], [3, 2], [7, 3], [66, 5], [35, 63], [2, 65], [37, 131]] as const; // biome-ignore format: a table

test("the reference kernel against f64", async () => {
  for (const [M, N, K] of [
    ...[
      [1, 1, 1],
      [3, 7, 5],
      [9, 8, 64],
      [65, 33, 131],
      [8, 67, 1408],
      [1, 524, 3],
    ],
  ] as const) {
    const random = new Random(M * 1009 + K);
    const [x, w, b] = [random.normal(M * K), random.normal(N * K), random.normal(N)];
    const y = await matmulNaive(device.tensor(x, [M, K]), device.tensor(w, [N, K]), device.tensor(b, [N])).read();
    const terms = reference(x.map(Math.abs), w.map(Math.abs), b.map(Math.abs), [M, N, K]);
    const { abs, rel } = TOLERANCES.linear_element;
    const errors = reference(x, w, b, [M, N, K]).map((sum, i) => (y[i] - sum) / (abs + rel * terms[i]));
    expectClose(
      errors,
      errors.map(() => 0),
      { abs: 1 },
      `naive ${M}x${N}x${K}`,
    );
  }
});

test("the reference kernel reads views, and refuses wrong shapes", async () => {
  const [x, w, b] = [
    device.tensor([1, 2, 3, 4, 5, 6], [3, 2]),
    device.tensor([1, 0, 2, 0, 1, 1], [2, 3]),
    device.tensor([10, 20], [2]),
  ];
  expect([...(await matmulNaive(x.permute([1, 0]), w, b).read())]).toEqual([21, 28, 24, 30]);
  expect(() => matmulNaive(x, w, b)).toThrow("matmulNaive: weight must be [2, 2], got [2, 3]");
  expect(() => matmulNaive(b, w, b)).toThrow("matmulNaive: x must be [M, K], got [2]");
});

interface Case {
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly override: PlanOverride;
  readonly dtype?: WeightDType;
  readonly bias?: boolean;
  readonly activation?: Activation;
  readonly on?: Device;
}

/** Runs one case on random numbers and holds every element against a bound that follows Σ|x·w|. */
async function check(
  label: string,
  { M, N, K, override, dtype = "f32", bias = true, activation = "none", on = device }: Case,
) {
  const random = new Random(M * 1_000_003 + N * 1009 + K);
  const [x, w, b] = [random.normal(M * K), random.normal(N * K), random.normal(N)];
  const weight = Weight.from(on, w, [N, K], dtype);
  const y = await linear(
    on.tensor(x, [M, K]),
    weight,
    bias ? on.tensor(b, [N]) : undefined,
    activation,
    override,
  ).read();
  weight.dispose();

  const rounded = stored(w, K, dtype);
  const size = [M, N, K] as const;
  const sums = reference(x, rounded, bias ? b : undefined, size);
  const expected = sums.map(activations[activation]);
  const terms = reference(x.map(Math.abs), rounded.map(Math.abs), bias ? b.map(Math.abs) : undefined, size);
  const { abs, rel } = TOLERANCES.linear_element;
  // No activation is steeper than 1.13, and each has an error of its own.
  const own = activation === "none" ? { abs: 0, rel: 0 } : TOLERANCES.activation;
  const bounds = terms.map((t, i) => 1.13 * (abs + rel * t) + own.abs + own.rel * Math.abs(expected[i]));
  const inBounds = (values: ArrayLike<number>) => bounds.map((bound, i) => values[i] / bound);
  expectClose(inBounds(y), inBounds(expected), { abs: 1 }, label);
  expectClose(y, expected, TOLERANCES.linear, label);
}

/** ViT's width: M rows of inputs, and what the reference kernel gives. Made once for all kernels. */
const wides = new Map<number, ReturnType<typeof makeWide>>();
function wide(M: number): ReturnType<typeof makeWide> {
  const made = wides.get(M) ?? makeWide(M);
  wides.set(M, made);
  return made;
}
async function makeWide(M: number) {
  const [N, K, random] = [1411, 1408, new Random(M)];
  const [x, w, b] = [random.normal(M * K), random.normal(N * K, 0, 0.05), random.normal(N)];
  const [xs, bias] = [device.tensor(x, [M, K]), device.tensor(b, [N])];
  const expected = await matmulNaive(xs, device.tensor(w, [N, K]), bias).read();
  const terms = await matmulNaive(
    device.tensor(x.map(Math.abs), [M, K]),
    device.tensor(w.map(Math.abs), [N, K]),
    device.tensor(b.map(Math.abs), [N]),
  ).read();
  const { abs, rel } = TOLERANCES.linear_element;
  return {
    xs,
    weight: Weight.from(device, w, [N, K]),
    bias,
    expected,
    bounds: terms.map((sum) => abs + 2 * rel * sum),
  };
}
afterAll(async () => {
  for (const made of wides.values()) (await made).weight.dispose();
});

for (const [name, override, rows] of [...FEW, ...MANY]) {
  for (const M of rows) {
    const sizes = [3, 9].includes(M) ? [...VEC4, ...SCALAR] : VEC4;
    test(`${name} M = ${M}`, async () => {
      for (const [N, K] of sizes) {
        await check(`${name} ${M}x${N}x${K}`, { M, N, K, override });
      }
    });
  }

  const M = rows[0] === 1 ? 3 : 9;

  // bf16's loader differs from f16's in one line: with the simplest kernel, and what no adapter here runs as it is, will do.
  const plain = /register|matrix/.test(name) ? (["f16", "bf16"] as const) : (["f16"] as const);
  for (const dtype of plain) {
    test(`${name}: ${dtype} weights`, async () => {
      for (const K of [60, 8]) await check(`${name} ${dtype}`, { M: rows[0], N: 67, K, dtype, override });
    });
  }

  const walks = name === "matvec subgroup" || name.startsWith("matvec workgroup");
  for (const dtype of ["int8", "int4"] as const) {
    test(`${name}: ${dtype} weights`, async () => {
      // matvec_subgroup takes one row of x or two.
      for (const rowsOfX of walks ? [1, 2] : [M]) {
        const shape = { M: rowsOfX, N: 67, dtype, override };
        // Less than a block, whole blocks, an odd number of them, a part at the end.
        for (const K of [20, 64, 96, 588]) await check(`${name} ${dtype} ${K}`, { ...shape, K });
        // Which loads x gets does not depend on the weight's loader, where that does not walk along the row.
        if (!walks && name !== "linear register") continue;
        if (rowsOfX !== 2) for (const K of [257, 67]) await check(`${name} ${dtype} ${K}`, { ...shape, K });
      }
    });
  }

  test(`${name}: every element as the reference kernel gives it, at ViT's width`, async () => {
    const { xs, weight, bias, expected, bounds } = await wide(M);
    const y = await linear(xs, weight, bias, "none", override).read();
    const errors = expected.map((value, i) => (y[i] - value) / bounds[i]);
    expectClose(errors, new Float32Array(expected.length), { abs: 1 }, name);
  });

  test(`${name}: no bias`, () => check(`${name} no bias`, { M, N: 67, K: 60, bias: false, override }));

  test(`${name}: a NaN in a row of x or of the weight stays there`, async () => {
    const [N, random] = [37, new Random(3)];
    for (const K of [5, 8]) {
      const [x, w] = [random.normal(M * K), random.normal(N * K)];
      x.fill(Number.NaN, K, 2 * K);
      w.fill(Number.NaN, 2 * K, 3 * K);
      const y = await linear(
        device.tensor(x, [M, K]),
        Weight.from(device, w, [N, K]),
        undefined,
        "none",
        override,
      ).read();
      const found = Array.from(y, Number.isNaN);
      expect(found).toEqual(Array.from(y, (_, i) => Math.floor(i / N) === 1 || i % N === 2));
    }
  });

  test(`${name}: a sharded weight, and more workgroups than one dimension holds`, async () => {
    // 4 KiB hold 16 rows of 64 numbers.
    const on = limited({ maxBindingBytes: 4096, maxWorkgroupsPerDimension: 4 });
    await check(`${name} sharded`, { M, N: 67, K: 64, override, on });
    await check(`${name} sharded int4`, { M: walks ? 2 : M, N: 67, K: 112, dtype: "int4", override, on });
  });
}

/** As test/golden/hard/make.py draws them; f16 and bf16 hold the numbers of int8. */
const HARD_WEIGHTS = {
  f32: (source: HardSource, N: number, K: number) => source.bell(N * K).map((b) => b / 64),
  int8: (source: HardSource, N: number, K: number) => coded(source, N, K, -127, 127, 2 ** -12),
  int4: (source: HardSource, N: number, K: number) => coded(source, N, K, 0, 15, 2 ** -8).map((w) => w - 2 ** -5),
} as const;
const HARD_INPUTS = {
  /** A bias that outweighs the products: it must come last. */
  bias: (x: Float64Array) => x,
  massive,
  large_mean: (x: Float64Array) => x.map((b) => 16 + b),
} as const;

/** A hard case: what every kernel is given, drawn once. */
const hardCases = new Map<string, ReturnType<typeof makeHardCase>>();
function hardCase(kind: keyof typeof HARD_INPUTS, dtype: "f32" | "f16" | "int8" | "int4", M: number) {
  const key = `${kind} ${dtype} ${M}`;
  const made = hardCases.get(key) ?? makeHardCase(kind, dtype, M);
  hardCases.set(key, made);
  return made;
}
function makeHardCase(kind: keyof typeof HARD_INPUTS, dtype: "f32" | "f16" | "int8" | "int4", M: number) {
  const [source, N, K] = [new HardSource(6), 48, 6144];
  const x = Float32Array.from(HARD_INPUTS[kind](source.bell(M * K), K));
  const w = Float32Array.from(HARD_WEIGHTS[dtype === "f16" ? "int8" : dtype](source, N, K));
  const b = Float32Array.from(source.bell(N), (b) => (kind === "bias" ? 150 + b : b));
  expect(stored(w, K, dtype)).toEqual(w);
  return { x, w, b, weight: Weight.from(device, w, [N, K], dtype), exact: reference(x, w, b, [M, N, K]) };
}
afterAll(() => {
  for (const { weight } of hardCases.values()) weight.dispose();
});

for (const [name, override, rows] of [...FEW, ...MANY]) {
  const [least, more] = rows[0] === 1 ? [1, name === "matvec subgroup" ? 8 : 3] : [9, 40];

  test.each(["f32", "f16", "int8", "int4"] as const)(`${name}: as exact as PyTorch, %s weights`, async (dtype) => {
    const drawn = dtype === "f16" ? "int8" : dtype;
    for (const kind of Object.keys(HARD_INPUTS) as (keyof typeof HARD_INPUTS)[]) {
      for (const M of dtype === "f32" ? [least, more] : [least]) {
        const { x, w, b, weight, exact } = hardCase(kind, dtype, M);
        const [N, K] = [b.length, x.length / M];
        const y = await linear(device.tensor(x, [M, K]), weight, device.tensor(b, [N]), "none", override).read();
        const label = `${name} ${kind} ${dtype} ${M}`;
        expectAsPyTorch(`linear ${kind} ${drawn} ${M}`, [x, w, b], y, exact, label);
      }
    }
  });

  test(`${name}: as exact as PyTorch with what follows the sums`, async () => {
    const [source, M, N, K] = [new HardSource(7), least, 48, 1408];
    const x = source.bell(M * K);
    const [w, up] = [source.bell(N * K), source.bell(N * K)].map((draw) => Float32Array.from(draw, (b) => b / 64));
    const b = Float32Array.from(source.bell(N));
    const residual = Float32Array.from(massive(source.bell(M * N), N));
    const large = Float32Array.from(b, (b) => 150 + b);
    const small = Float32Array.from(x);
    const uneven = Float32Array.from(massive(x, K), (x) => x / 16);
    const weight = Weight.from(device, w, [N, K]);
    const pair = Weight.from(device, Float32Array.from([...w, ...up]), [2 * N, K], "f32", { paired: true });
    const size = [M, N, K] as const;
    const run = (x: Float32Array, weight: Weight, bias: ArrayLike<number>, epilogue: Epilogue) =>
      linear(
        device.tensor(x, [M, K]),
        weight,
        device.tensor(Float32Array.from(bias), [bias.length]),
        epilogue,
        override,
      ).read();

    const gelu = reference(small, w, b, size).map(activations.gelu);
    const label = (end: string) => `${name} ${end} ${M}`;
    const y = await run(small, weight, b, { activation: "gelu" });
    expectAsPyTorch(`linear gelu ${M}`, [small, w, b], y, gelu, label("gelu"));

    const sums = reference(uneven, w, large, size).map((sum, i) => sum + residual[i]);
    const z = await run(uneven, weight, large, { residual: device.tensor(residual, [M, N]) });
    expectAsPyTorch(`linear residual ${M}`, [uneven, w, large, residual], z, sums, label("residual"));

    const products = gatedReference(reference(small, w, b, size), reference(small, up, large, size), activations.silu);
    const g = await run(small, pair, [...b, ...large], { activation: "silu", gated: true });
    expectAsPyTorch(`linear gated ${M}`, [small, w, up, b, large], g, products, label("gated"));
    for (const used of [weight, pair]) used.dispose();
  });
}

for (const activation of Object.keys(ACTIVATIONS) as Activation[]) {
  // The end is the same text in all kernels: the quickest to compile takes them all, the slowest the longest.
  test(`ends in ${activation}`, async () => {
    await check(activation, { M: 1, N: 133, K: 12, activation, override: {} });
    if (activation === "gelu") await check(activation, { M: 9, N: 37, K: 12, activation, override: {} });
  });
}

for (const [label, override, [M]] of [...FEW, ...MANY]) {
  test(`${label} adds a residual to each element once, after the activation, shard by shard`, async () => {
    const [N, K, random] = [67, 12, new Random(M)];
    const small = limited({ maxBindingBytes: Math.max(16 * 48, 16 * Math.ceil((M * N) / 4)) }); // the result fits
    const [x, w, b, r] = [random.normal(M * K), random.normal(N * K), random.normal(N), random.normal(M * N)];
    const weight = Weight.from(small, w, [N, K]);
    expect(weight.shards.length).toBeGreaterThan(1);
    const run = (residual?: Float32Array) =>
      linear(
        small.tensor(x, [M, K]),
        weight,
        small.tensor(b, [N]),
        { activation: "gelu", residual: residual && small.tensor(residual, [M, N]) },
        override,
      ).read();
    const [alone, both] = [await run(), await run(r)];
    expect(both).toEqual(alone.map((y, i) => y + r[i])); // to the bit: f32 additions
    weight.dispose();
  });
}

// Where subgroups have 8 threads: one that is not full, one and a half, three threads, an odd number of them.
test.runIf(device.caps.subgroups).each([4, 12, 3, 72])("subgroups in a workgroup of %i threads", async (WG) => {
  const [M, N, K, random] = [3, 7, 200, new Random(WG)];
  const [x, w, b] = [random.normal(M * K), random.normal(N * K), random.normal(N)];
  const weight = Weight.from(device, w, [N, K]);
  const y = device.empty([M, N]);
  device.launch({
    kernel: "matvec_workgroup",
    uses: { ...weight.uses, column_sums: "column_sums_subgroups", input: "input_vec4" },
    overrides: { WG, TM: M, ACTIVATION: 0 },
    bindings: {
      x: device.tensor(x, [M, K]),
      weight: weight.shards[0].bits,
      bias: device.tensor(b, [N]),
      residual: device.tensor(b, [N]),
      row_scales: placeholder(device),
      weight_scales: placeholder(device),
      y,
    },
    params: { ...{ M, N, K, column0: 0, row0: 0, y_stride: N }, ...{ has_bias: 1, has_residual: 0, ...NO_TOKENS } },
    workgroups: Math.ceil(N / 4),
  });
  expectClose(await y.read(), reference(x, w, b, [M, N, K]), TOLERANCES.linear, `product of ${WG} threads`);
  weight.dispose();
});

// Where subgroups have 8 threads: one for all parts of y, two, three, as many as there are parts, more.
test.runIf(device.caps.subgroups).each(ALL ? [8, 16, 24, 32, 72] : [8, 24, 72])(
  "parts of y among subgroups of %i threads",
  async (WG) => {
    for (const [M, N, K] of [
      [1, 7, 5],
      [67, 131, 37],
    ]) {
      const random = new Random(WG);
      const [x, w, b, r] = [random.normal(M * K), random.normal(N * K), random.normal(N), random.normal(M * N)];
      const weight = Weight.from(device, w, [N, K]);
      const y = device.empty([M, N]);
      device.launch({
        kernel: "matmul_subgroup_matrix",
        uses: { ...weight.uses, matrix: "matrix_threads", input: "input_scalar" },
        overrides: { WG, ACTIVATION: 0 },
        bindings: {
          x: device.tensor(x, [M, K]),
          weight: weight.shards[0].bits,
          bias: device.tensor(b, [N]),
          residual: device.tensor(r, [M, N]),
          row_scales: placeholder(device),
          weight_scales: placeholder(device),
          y,
        },
        params: { ...{ M, N, K, column0: 0, row0: 0, y_stride: N }, ...{ has_bias: 1, has_residual: 1, ...NO_TOKENS } },
        workgroups: Math.ceil(M / 64) * Math.ceil(N / 64),
      });
      const expected = reference(x, w, b, [M, N, K]).map((sum, i) => sum + r[i]);
      expectClose(await y.read(), expected, TOLERANCES.linear, `${M} rows, ${WG} threads`);
      weight.dispose();
    }
  },
);

/** A size of subgroups that the adapter has. */
const A_SIZE = Math.max(device.caps.subgroupMinSize, Math.min(32, device.caps.subgroupMaxSize));

/** A product by a tile of its own choice, K in parts, gated or not; with a large bias, an activation and a residual. */
async function tiled(
  kernel: "matmul_tile" | "matmul_tile_sized",
  { SPLITS, ...tile }: Tiling,
  [M, F, K]: readonly [number, number, number],
  { dtype = "f32", FACTORS = 1 }: { dtype?: WeightDType; FACTORS?: 1 | 2 } = {},
) {
  const [N, random] = [FACTORS * F, new Random(M * 1009 + F)];
  const [x, w, r] = [random.normal(M * K), random.normal(N * K), random.normal(M * F)];
  const b = random.normal(N).map((number) => 150 + number);
  const weight = Weight.from(device, w, [N, K], dtype, { paired: FACTORS === 2 });
  const [parts, y] = [device.empty([SPLITS, M, FACTORS, F]), device.empty([M, F])];
  const bindings = {
    x: device.tensor(x, [M, K]),
    weight: weight.shards[0].bits,
    bias: device.tensor(b, [N]),
    residual: device.tensor(r, [M, F]),
    row_scales: placeholder(device),
    weight_scales: placeholder(device),
    y: SPLITS > 1 ? parts : y,
  };
  const params = {
    ...{ M, N: F, K, column0: 0, row0: 0, y_stride: F },
    ...{ has_bias: 1, has_residual: 1, ...NO_TOKENS },
  };
  const overrides = { SPLITS, FACTORS, ACTIVATION: ACTIVATIONS.relu };
  device.launch({
    kernel,
    uses: { ...weight.uses, input: K % 4 === 0 ? "input_vec4" : "input_scalar" },
    overrides: { ...overrides, ...tile, ...(kernel === "matmul_tile_sized" ? { SG: A_SIZE } : {}) },
    bindings,
    params,
    workgroups: tilesOf(tile, M, N) * SPLITS,
  });
  if (SPLITS > 1) {
    const combined = { ...bindings, x: parts, y };
    const workgroups = Math.ceil(y.size / 64);
    device.launch({ kernel: "matmul_combine", overrides, bindings: combined, params, workgroups });
  }
  const numbers = await y.read();

  const sums = reference(x, stored(w, K, dtype), b, [M, N, K]);
  const half = (part: number) => sums.filter((_, i) => Math.floor(i / F) % FACTORS === part);
  const ended = FACTORS === 1 ? sums.map(activations.relu) : gatedReference(half(0), half(1), activations.relu);
  const expected = ended.map((value, i) => value + r[i]);
  expectClose(numbers, expected, TOLERANCES.linear, `${JSON.stringify(tile)} ${M} ${F} ${K} ${SPLITS} ${dtype}`);
  weight.dispose();
  return numbers;
}

/** One element, primes, around a tile; K behind the last whole part, parts that are empty. How x is loaded is nothing to a tile. */
const TILED = [[1, 1, 4], [17, 67, 36], [89, 131, 68], [45, 33, 300]] as const; // biome-ignore format: a table
const SMALLEST = { TM: 4, WX: 32, WY: 4 };

test.each(TILES)("a tile of $TM rows, $WY threads down, gives what the smallest does to the bit", async (planned) => {
  const { cost: _, ...tile } = planned;
  for (const sizes of TILED) {
    const y = await tiled("matmul_tile", { ...tile, SPLITS: 1 }, sizes);
    expect(y).toEqual(await tiled("matmul_tile", { ...SMALLEST, SPLITS: 1 }, sizes));
  }
});

test.runIf(device.caps.subgroupSizeControl)("a tile in subgroups of a size that is asked for", async () => {
  const [tiling, sizes] = [{ ...SMALLEST, SPLITS: 1 }, [67, 131, 260]] as const;
  expect(await tiled("matmul_tile_sized", tiling, sizes)).toEqual(await tiled("matmul_tile", tiling, sizes));
});

test.each([2, 4, 8])("K in %i parts", async (SPLITS) => {
  for (const sizes of TILED) await tiled("matmul_tile", { ...SMALLEST, SPLITS }, sizes);
});

test.each([
  ["of a quantized weight", { dtype: "int4" }],
  ["of a gated product", { FACTORS: 2 }],
] as const)("K in 2 parts, %s", async (_, options) => {
  await tiled("matmul_tile", { ...SMALLEST, SPLITS: 2 }, [9, 35, 588], options);
});

/** What has workgroups for its few rows has them walk a quantized weight by blocks, where these are whole. */
const BLOCKS: PlanOverride = { matvec: "workgroup" };

test.each([1, 2, 3, 4, 5, 7, 8])("matvec blocks: %i rows", async (M) => {
  // A tail of threads without a block, more blocks than threads, one more than whole rounds; int8 as far as it differs.
  for (const [N, K] of [[1, 128], [67, 768], [5, 2304]]) await check("blocks", { M, N, K, dtype: "int4", override: BLOCKS }); // biome-ignore format: a table
  if (M === 1 || M === 5) for (const [N, K] of [[1, 256], [67, 768]]) await check("blocks", { M, N, K, dtype: "int8", override: BLOCKS }); // biome-ignore format: a table
});

test("matvec blocks: a weight has them where its rows are whole loads", () => {
  const has = (dtype: WeightDType, ...sizes: number[]) => sizes.map((K) => hasBlocks(dtype, K));
  expect(has("int4", 128, 96, 120, 1408)).toEqual([true, false, false, true]);
  expect(has("int8", 256, 128, 224, 1408)).toEqual([true, false, true, false]);
  expect(has("f32", 256)).toEqual([false]);
});

test("matvec blocks: a sharded weight, more workgroups than one dimension holds, a NaN, what follows the sums", async () => {
  // 4 KiB hold 24 rows of 256 numbers.
  const on = limited({ maxBindingBytes: 4096, maxWorkgroupsPerDimension: 2 });
  const [M, N, K, random] = [3, 34, 256, new Random(8)];
  await check("blocks sharded", { M, N: 67, K, dtype: "int4", override: BLOCKS, on });
  const [x, w] = [random.normal(M * K), random.normal(2 * N * K)];
  x.fill(Number.NaN, K, K + 1);
  w.fill(Number.NaN, 2 * K + 7, 2 * K + 8);
  const [b, r] = [random.normal(2 * N), random.normal(M * N)];
  const pair = Weight.from(on, w, [2 * N, K], "int4", { paired: true });
  const epilogue = { activation: "silu", gated: true, residual: on.tensor(r, [M, N]) } as const;
  const run = (override: PlanOverride) =>
    linear(on.tensor(x, [M, K]), pair, on.tensor(b, [2 * N]), epilogue, override).read();
  const [y, z] = [await run(BLOCKS), await run({ matvec: "register" })];
  const found = Array.from(y, Number.isNaN);
  expect(found).toEqual(Array.from(y, (_, i) => Math.floor(i / N) === 1 || i % N === 2));
  const known = (values: Float32Array) => values.filter((_, i) => !found[i]);
  expectClose(known(y), known(z), TOLERANCES.linear, "blocks gated");
  pair.dispose();
});

test.runIf(device.caps.subgroupSizeControl)("matvec blocks: in subgroups of a size that is asked for", async () => {
  const [M, N, K, random] = [2, 7, 384, new Random(9)];
  const [x, w, b] = [random.normal(M * K), random.normal(N * K), random.normal(N)];
  const weight = Weight.from(device, w, [N, K], "int4");
  const y = device.empty([M, N]);
  device.launch({
    kernel: "matvec_blocks_sized",
    uses: { blocks: "blocks_int4" },
    overrides: { TM: M, WG: 64, LANES: 16, SG: A_SIZE, ACTIVATION: 0, FACTORS: 1 },
    bindings: {
      x: device.tensor(x, [M, K]),
      weight: weight.shards[0].bits,
      bias: device.tensor(b, [N]),
      residual: device.tensor(b, [N]),
      row_scales: placeholder(device),
      weight_scales: placeholder(device),
      y,
    },
    params: { ...{ M, N, K, column0: 0, row0: 0, y_stride: N }, ...{ has_bias: 1, has_residual: 0, ...NO_TOKENS } },
    workgroups: Math.ceil(N / 16),
  });
  expectClose(await y.read(), reference(x, stored(w, K, "int4"), b, [M, N, K]), TOLERANCES.linear, "blocks sized");
  weight.dispose();
});

/** One column, odd numbers of them, around a tile's; whole groups of four and others. */
const PAIRS = [[1, 1], [5, 8], [33, 63], [67, 60]] as const; // biome-ignore format: a table

for (const [label, override, [few, , more]] of [...FEW, ...MANY]) {
  /** A gated product against f64, and to the bit against what the same matrices give as two, or in a buffer of one. */
  const checkPair = async (on: Device, M: number, [F, K]: readonly [number, number], dtype: WeightDType) => {
    const random = new Random(M * 1009 + F);
    const [x, w] = [random.normal(M * K), random.normal(2 * F * K)];
    const [b, r] = [random.normal(2 * F), random.normal(M * F)];
    const pair = Weight.from(on, w, [2 * F, K], dtype, { paired: true });
    const stack = Weight.from(on, w, [2 * F, K], dtype);
    const [xs, bias, residual] = [on.tensor(x, [M, K]), on.tensor(b, [2 * F]), on.tensor(r, [M, F])];
    const run = (residual?: Tensor) => linear(xs, pair, bias, { activation: "silu", gated: true, residual }, override);
    expect(run().shape).toEqual([M, F]);
    const both = linear(xs, stack, bias, "none", override);
    const gated = gatedActivation(both.narrow(1, 0, F), both.narrow(1, F, F), "silu");
    expect(await run().read()).toEqual(await gated.read());
    expect(await linear(xs, pair, bias, "none", override).read()).toEqual(await both.read());

    const sums = reference(x, stored(w, K, dtype), b, [M, 2 * F, K]);
    const half = (part: number) => sums.filter((_, i) => Math.floor(i / F) % 2 === part);
    const expected = gatedReference(half(0), half(1), activations.silu).map((value, i) => value + r[i]);
    expectClose(await run(residual).read(), expected, TOLERANCES.linear, `${label} ${M} ${F} ${K} ${dtype}`);
    for (const weight of [pair, stack]) weight.dispose();
    return pair.shards.length;
  };

  test(`${label}: a gated product`, async () => {
    for (const sizes of PAIRS) {
      // How x is loaded and how many rows are computed at once are nothing to each other: both in turn.
      for (const M of ALL || sizes[1] % 4 === 0 ? [few, more] : [few]) await checkPair(device, M, sizes, "f32");
    }
    // 5 KiB hold the result of 9 rows, and of any weight 64 rows at most.
    const on = limited({ maxBindingBytes: 5120, maxWorkgroupsPerDimension: 6 });
    // Loaders see rows, whatever these are paired for: the plainest and the one whose rows are longest to find will do.
    for (const dtype of ["f32", "int4"] as const) {
      expect(await checkPair(on, few, [67, 60], dtype)).toBeGreaterThan(1);
    }
  });
}

// --- products with f16 inputs ----------------------------------------------------------------------------------------------

/** Matrices of subgroups played by threads here, too. */
const F16_VARIANTS = [
  "f16_tile" as const,
  ...(device.caps.f16 && device.caps.subgroups ? (["f16_subgroup_matrix"] as const) : []),
];

/** A number as f16 has it, if to nearest. */
const half = (x: number) => f16ToNumber(numberToF16(x));
const rms = (errors: ArrayLike<number>) => Math.hypot(...Array.from(errors)) / Math.sqrt(errors.length);

/** A product with f16 inputs against f64, each element by Σ|x·w|, which is what x and W are rounded by. @returns y */
async function checkHalves(
  label: string,
  x: Float32Array,
  w: Float32Array,
  [M, N, K]: readonly [number, number, number],
  { dtype = "f32", override, on = device }: { dtype?: WeightDType; override: PlanOverride; on?: Device },
) {
  const weight = Weight.from(on, w, [N, K], dtype, { compute_dtype: "f16" });
  await setF16Scales([weight]);
  const y = await linear(on.tensor(x, [M, K]), weight, undefined, "none", override).read();
  weight.dispose();
  const rounded = stored(w, K, dtype);
  const expected = reference(x, rounded, undefined, [M, N, K]);
  const terms = reference(x.map(Math.abs), rounded.map(Math.abs), undefined, [M, N, K]);
  const inBounds = (values: ArrayLike<number>) =>
    terms.map((t, i) => values[i] / (TOLERANCES.linear_f16_element.rel * t));
  expectClose(inBounds(y), inBounds(expected), { abs: 1 }, label);
  expectClose(y, expected, TOLERANCES.linear_f16, label);
  return { y, expected };
}

/** The error of PyTorch's float16 on a hard case of nine rows, which rounds x, W and y. Computed once for all kernels. */
const halfErrors = new Map<string, number>();
function halfError(kind: keyof typeof HARD_INPUTS, dtype: "f32" | "f16"): number {
  const { x, w, b, exact } = hardCase(kind, dtype, 9);
  const made =
    halfErrors.get(`${kind} ${dtype}`) ??
    rms(
      reference(x.map(half), w.map(half), b.map(half), [9, b.length, x.length / 9]).map(
        (sum, i) => half(sum) - exact[i],
      ),
    );
  halfErrors.set(`${kind} ${dtype}`, made);
  return made;
}

for (const variant of F16_VARIANTS) {
  const override: PlanOverride = { linear_f16: variant };
  const label = `linear ${variant}`;

  test.each([9, 17, 65])(`${label}, M = %i`, async (M) => {
    for (const [N, K] of M === 9 ? [...VEC4, ...SCALAR] : VEC4) {
      const random = new Random(M * 1_000_003 + N * 1009 + K);
      const name = `${label} ${M}x${N}x${K}`;
      const { y, expected } = await checkHalves(name, random.normal(M * K), random.normal(N * K), [M, N, K], {
        override,
      });
      // Were it f32, nothing would be tested here.
      if (M * N > 500) expect(compare(y, expected, {}).nmse).toBeGreaterThan(1e-9);
    }
  });

  test.each(["f16", "int4"] as const)(`${label}: %s weights`, async (dtype) => {
    const [M, N, random] = [9, 67, new Random(3)];
    for (const K of [64, 588]) {
      await checkHalves(`${label} ${dtype} ${K}`, random.normal(M * K), random.normal(N * K), [M, N, K], {
        dtype,
        override,
      });
    }
  });

  test(`${label}: rows of x and of the weight beyond f16's range, below it, and of both`, async () => {
    const [M, N, K, random] = [12, 36, 64, new Random(4)];
    const sizes = [1, 65_505, 1e5, 1e7, 1e10, 1e15, 1e-5, 1e-8, 1e-12, 1e-15, 1, 7e4];
    const sized = (numbers: Float32Array) => numbers.map((value, i) => value * sizes[Math.floor(i / K) % sizes.length]);
    const [x, w] = [sized(random.normal(M * K)), sized(random.normal(N * K, 0, 0.05))];
    for (let m = 0; m < 2; m++) x[(10 + m) * K + 3] = 3e5;
    const weight = Weight.from(device, w, [N, K], "f32", { compute_dtype: "f16" });
    await setF16Scales([weight]);
    const y = await linear(device.tensor(x, [M, K]), weight, undefined, "none", override).read();
    weight.dispose();
    // Every element by itself: the largest rows have no say in the others.
    const expected = reference(x, w, undefined, [M, N, K]);
    const terms = reference(x.map(Math.abs), w.map(Math.abs), undefined, [M, N, K]);
    const inBounds = (values: ArrayLike<number>) =>
      terms.map((t, i) => values[i] / (TOLERANCES.linear_f16_element.rel * t));
    expectClose(inBounds(y), inBounds(expected), { abs: 1 }, label);
  });

  test(`${label}: at most the error of PyTorch's float16, which rounds x, W and y`, async () => {
    for (const kind of Object.keys(HARD_INPUTS) as (keyof typeof HARD_INPUTS)[]) {
      for (const dtype of ["f32", "f16"] as const) {
        const [M, { x, w, b, exact }] = [9, hardCase(kind, dtype, 9)];
        const [N, K] = [b.length, x.length / M];
        const weight = Weight.from(device, w, [N, K], dtype, { compute_dtype: "f16" });
        const y = await linear(device.tensor(x, [M, K]), weight, device.tensor(b, [N]), "none", override).read();
        weight.dispose();
        const error = rms(exact.map((value, i) => y[i] - value));
        expect(error, `${label} ${kind} ${dtype}`).toBeLessThanOrEqual(halfError(kind, dtype));
        expect(error).toBeGreaterThan(0);
      }
    }
  });

  test(`${label}: a NaN or an infinity in a row of x or of the weight stays there`, async () => {
    const [M, N, random] = [9, 37, new Random(3)];
    for (const K of [5, 8]) {
      const [x, w] = [random.normal(M * K), random.normal(N * K)];
      x[K + 1] = Number.NaN;
      x[3 * K] = Number.POSITIVE_INFINITY;
      w.fill(Number.NaN, 2 * K, 3 * K);
      const weight = Weight.from(device, w, [N, K], "f32", { compute_dtype: "f16" });
      const y = await linear(device.tensor(x, [M, K]), weight, undefined, "none", override).read();
      const isIn = (i: number) => [1, 3].includes(Math.floor(i / N)) || i % N === 2;
      expect(Array.from(y, (value) => !Number.isFinite(value))).toEqual(Array.from(y, (_, i) => isIn(i)));
    }
  });

  test(`${label}: sharded, folded, with what follows the sums, gated or not, to the bit`, async () => {
    const [M, F, K, random] = [17, 67, 60, new Random(7)];
    const on = limited({ maxBindingBytes: 10_240, maxWorkgroupsPerDimension: 5 });
    const [x, w] = [random.normal(M * K), random.normal(2 * F * K)];
    const [b, r] = [random.normal(2 * F), random.normal(M * F)];
    const make = (on: Device, data: Float32Array, N: number, paired = false) =>
      Weight.from(on, data, [N, K], "f32", { compute_dtype: "f16", paired });
    const [pair, stack, one] = [make(on, w, 2 * F, true), make(on, w, 2 * F), make(device, w, 2 * F)];
    expect(pair.shards.length).toBeGreaterThan(1);
    const [xs, bias, residual] = [on.tensor(x, [M, K]), on.tensor(b, [2 * F]), on.tensor(r, [M, F])];
    const both = linear(xs, stack, bias, "none", override);
    const whole = await linear(device.tensor(x, [M, K]), one, device.tensor(b, [2 * F]), "none", override).read();
    expect(await both.read()).toEqual(whole);
    const gated = gatedActivation(both.narrow(1, 0, F), both.narrow(1, F, F), "silu");
    const ended = await linear(xs, pair, bias, { activation: "silu", gated: true, residual }, override).read();
    expect(ended).toEqual((await gated.read()).map((value, i) => value + r[i]));
    for (const weight of [pair, stack, one]) weight.dispose();
  });

  test(`${label}: within WebGPU's default limits`, async () => {
    const [small, random] = [await otherDevice({ default_limits: true }), new Random(5)];
    for (const M of [9, 33]) {
      await checkHalves(label, random.normal(M * 60), random.normal(67 * 60), [M, 67, 60], { override, on: small });
    }
    small.destroy();
  });
}

test.runIf(device.caps.f16 && device.caps.subgroups).each(["16x16x16", "8x16x16", "8x8x8"])(
  "f16 inputs in matrices of %s, emulated by subgroups of a workgroup of any size",
  async (sides) => {
    for (const WG of ALL ? [8, 24, 128] : [24]) {
      // One run of sums, and two.
      for (const [M, N, K] of [
        [67, 131, 37],
        [9, 35, 2090],
      ]) {
        const random = new Random(WG + K);
        const [x, w, b, r] = [random.normal(M * K), random.normal(N * K), random.normal(N), random.normal(M * N)];
        const weight = Weight.from(device, w, [N, K], "f32", { compute_dtype: "f16" });
        const [xs, y] = [device.tensor(x, [M, K]), device.empty([M, N])];
        device.launch({
          kernel: "matmul_subgroup_matrix",
          uses: {
            ...weight.uses,
            matrix: "matrix_threads",
            staged: "staged_f16",
            sides: `sides_${sides}`,
            input: "input_scalar",
          },
          overrides: { WG, ACTIVATION: 0 },
          bindings: {
            x: xs,
            weight: weight.shards[0].bits,
            bias: device.tensor(b, [N]),
            residual: device.tensor(r, [M, N]),
            row_scales: f16Scales(xs),
            weight_scales: weight.shards[0].f16_scales!,
            y,
          },
          params: {
            ...{ M, N, K, column0: 0, row0: 0, y_stride: N },
            ...{ has_bias: 1, has_residual: 1, ...NO_TOKENS },
          },
          workgroups: Math.ceil(M / 64) * Math.ceil(N / 64),
        });
        const expected = reference(x, w, b, [M, N, K]).map((sum, i) => sum + r[i]);
        expectClose(await y.read(), expected, TOLERANCES.linear_f16, `${sides}, ${WG} threads`);
        weight.dispose();
      }
    }
  },
);

test("few rows are multiplied as f32, whatever their weight says, and many where the plan says so", async () => {
  const [M, N, K, random] = [9, 37, 64, new Random(6)];
  const [x, w] = [random.normal(M * K), random.normal(N * K)];
  const [full, f16] = (["f32", "f16"] as const).map((compute_dtype) =>
    Weight.from(device, w, [N, K], "f32", { compute_dtype }),
  );
  const run = (rows: number, weight: Weight, override?: PlanOverride) =>
    linear(device.tensor(x.subarray(0, rows * K), [rows, K]), weight, undefined, "none", override).read();
  for (const rows of [1, 8]) expect(await run(rows, f16)).toEqual(await run(rows, full));
  expect(await run(M, f16, { linear_f16: "f32" })).toEqual(await run(M, full));
  expect(await run(M, f16, { linear_f16: "f16_tile" })).not.toEqual(await run(M, full));
});

test("a gated product of a weight that is no pair is refused", () => {
  const weight = Weight.from(device, new Float32Array(16), [4, 4]);
  const x = device.tensor(new Float32Array(4), [1, 4]);
  expect(() => linear(x, weight, undefined, { gated: true })).toThrow("linear: a gated product needs a paired weight");
});

test("a residual of another shape is refused", () => {
  const weight = Weight.from(device, new Float32Array(12), [3, 4]);
  const [x, residual] = [device.tensor(new Float32Array(8), [2, 4]), device.tensor(new Float32Array(3), [1, 3])];
  expect(() => linear(x, weight, undefined, { residual })).toThrow("residual");
});

test("the kernels meant for GPUs fit WebGPU's default limits", async () => {
  const small = await otherDevice({ default_limits: true });
  for (const matvec of ["workgroup", "workgroup_subgroups"] as const) {
    if (matvec === "workgroup_subgroups" && !small.caps.subgroups) continue;
    const override = { linear: "tile", matvec } as const;
    for (const M of [4, 8, 33]) await check(`default limits ${M}`, { M, N: 67, K: 60, override, on: small });
  }
  for (const M of [5, 8]) {
    await check(`default limits ${M}`, { M, N: 67, K: 256, dtype: "int4", override: BLOCKS, on: small });
  }
  for (const M of small.caps.subgroups ? [9, 33] : []) {
    await check(`default limits ${M}`, { M, N: 67, K: 60, override: { linear: "subgroup_matrix" }, on: small });
  }
  small.destroy();
});

test("rows permuted give rows permuted; rows alone give what they give together", async () => {
  const [M, N, K, random] = [11, 37, 64, new Random(5)];
  const [x, weight] = [random.normal(M * K), Weight.from(device, random.normal(N * K), [N, K])];
  const y = await linear(device.tensor(x, [M, K]), weight).read();
  const row = (m: number, of: Float32Array, width: number) => of.subarray(m * width, (m + 1) * width);
  const permuted = Float32Array.from({ length: M * K }, (_, i) => x[((Math.floor(i / K) * 4) % M) * K + (i % K)]);
  const z = await linear(device.tensor(permuted, [M, K]), weight).read();
  for (let m = 0; m < M; m++) {
    expect(row(m, z, N)).toEqual(row((m * 4) % M, y, N));
    const alone = await linear(device.tensor(row(m, x, K).slice(), [K]), weight).read();
    // Another kernel, another order of summation.
    expectClose(alone, row(m, y, N), TOLERANCES.linear, `row ${m}`);
  }
});

test("a strided x, leading dimensions, no rows", async () => {
  const random = new Random(6);
  const [wide, w] = [random.normal(3 * 10), random.normal(4 * 6)];
  const weight = Weight.from(device, w, [4, 6]);
  const y = linear(device.tensor(wide, [1, 3, 10]).narrow(2, 2, 6), weight);
  expect(y.shape).toEqual([1, 3, 4]);
  const x = wide.filter((_, i) => i % 10 >= 2 && i % 10 < 8);
  expectClose(await y.read(), reference(x, w, undefined, [3, 4, 6]), TOLERANCES.linear, "strided");
  expect((await linear(device.empty([0, 6]), weight).read()).length).toBe(0);
});

test("wrong shapes are refused by name", () => {
  const weight = Weight.from(device, new Float32Array(6), [2, 3]);
  expect(() => linear(device.tensor([1, 2], [1, 2]), weight)).toThrow(
    "linear: x must be [..., 3] for a weight of [2, 3], got [1, 2]",
  );
  const bias = device.tensor([1, 2, 3], [3]);
  expect(() => linear(device.tensor([1, 2, 3], [3]), weight, bias)).toThrow("linear: bias must be [2], got [3]");
});
