import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { rope, ropeTable } from "../../src/tensor/ops/rope.ts";
import { rope as reference } from "../../src/tensor/reference/rope.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource, massive } from "../hard.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

test.each([
  [1, 1, 1, 2],
  [2, 3, 5, 6],
  [1, 7, 3, 128],
  [3, 11, 2, 64],
  [2, 1, 4, 22],
])("rope of [%i, %i, %i, %i]", async (B, T, H, d) => {
  const P = 2048;
  const random = new Random(B * T * H * d);
  const x = random.normal(B * T * H * d);
  const table = ropeTable(P, d, 10_000);
  const positions = Uint32Array.from({ length: B * T }, () => random.int(0, P));
  const y = rope(device.tensor(x, [B, T, H, d]), device.tensor(table, [P, d]), device.tensor(positions, [B, T]));
  expect(y.shape).toEqual([B, T, H, d]);
  expectClose(await y.read(), reference(x, table, positions, H, d), TOLERANCES.rope, `[${B}, ${T}, ${H}, ${d}]`);
});

test("position 0 changes nothing; extreme numbers turn as others do", async () => {
  const table = ropeTable(4, 8, 10_000);
  const x = Float32Array.of(1e4, -1e4, 88, -88, 1e-30, 0, 3e37, -0);
  const run = (position: number) =>
    rope(device.tensor(x, [1, 1, 1, 8]), device.tensor(table, [4, 8]), device.tensor(Uint32Array.of(position), [1, 1]));
  expectClose(await run(0).read(), x, TOLERANCES.exact, "position 0");
  // 1e4 and 88 turn into each other, so one's rounding shows beside the other's result.
  expectClose(await run(3).read(), reference(x, table, [3], 1, 8), { abs: 2e-3, rel: 1e-6 }, "extremes");
});

test("as exact as PyTorch on massive channels", async () => {
  const [source, T, H, d] = [new HardSource(9), 16, 4, 128];
  const x = Float32Array.from(massive(source.bell(T * H * d), H * d));
  const [cosines, sines] = [source.bell((T * d) / 2), source.bell((T * d) / 2)].map((x) => x.map((b) => b / 4));
  const table = Float32Array.from({ length: T * d }, (_, i) => {
    const [token, j] = [Math.floor(i / d), i % d];
    return j < d / 2 ? cosines[(token * d) / 2 + j] : sines[(token * d) / 2 + j - d / 2];
  });
  const positions = Uint32Array.from({ length: T }, (_, t) => t);
  const [xs, turns] = [device.tensor(x, [1, T, H, d]), device.tensor(table, [T, d])];
  const y = await rope(xs, turns, device.tensor(positions, [1, T])).read();
  expectAsPyTorch("rope massive", [x, table], y, reference(x, table, positions, H, d));
});

test("a view into a fused projection: offset and strides of its own", async () => {
  const [B, T, H, d, P] = [2, 3, 4, 6, 16];
  const random = new Random(1);
  const qkv = random.normal(B * T * 3 * H * d);
  const positions = Uint32Array.from({ length: B * T }, () => random.int(0, P));
  const table = ropeTable(P, d, 10_000);
  const k = device
    .tensor(qkv, [B, T, 3 * H * d])
    .narrow(2, H * d, H * d)
    .unflatten(2, [H, d]);
  const plain = Float32Array.from({ length: B * T * H * d }, (_, i) => {
    const token = Math.floor(i / (H * d));
    return qkv[token * 3 * H * d + H * d + (i % (H * d))];
  });
  const y = await rope(k, device.tensor(table, [P, d]), device.tensor(positions, [B, T])).read();
  expectClose(y, reference(plain, table, positions, H, d), TOLERANCES.rope, "fused");
});

test("heads before tokens: [B, H, T, d] seen as [B, T, H, d]", async () => {
  const [T, H, d] = [3, 2, 4];
  const x = new Random(2).normal(T * H * d);
  const table = ropeTable(T, d, 10_000);
  const view = device.tensor(x, [1, H, T, d]).permute([0, 2, 1, 3]);
  const y = await rope(view, device.tensor(table, [T, d]), device.tensor(Uint32Array.of(0, 1, 2), [1, T])).read();
  const plain = Float32Array.from({ length: T * H * d }, (_, i) => {
    const [t, h] = [Math.floor(i / (H * d)), Math.floor(i / d) % H];
    return x[(h * T + t) * d + (i % d)];
  });
  expectClose(y, reference(plain, table, [0, 1, 2], H, d), TOLERANCES.rope, "permuted");
});

test("positions beyond the table count as its last", async () => {
  const table = ropeTable(5, 4, 10_000);
  const x = device.tensor([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], [1, 3, 1, 4]);
  const positions = device.tensor(Uint32Array.of(4, 5, 2 ** 32 - 1), [1, 3]);
  const y = await rope(x, device.tensor(table, [5, 4]), positions).read();
  expect([...y.subarray(4, 8)]).toEqual([...y.subarray(0, 4)]);
  expect([...y.subarray(8)]).toEqual([...y.subarray(0, 4)]);
});

test("a folded grid reaches every pair", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const T = 64 * 6 + 1;
  const x = Float32Array.from({ length: T * 2 }, (_, i) => i);
  const y = rope(
    folded.tensor(x, [1, T, 1, 2]),
    folded.tensor([1, 0], [1, 2]),
    folded.tensor(new Uint32Array(T), [1, T]),
  );
  expect([...(await y.read())]).toEqual([...x]);
});

/** LlamaRotaryEmbedding of transformers 5.18 on PyTorch 2.13: 8 cosines, then 8 sines, of one position; d = 16. */
// biome-ignore format: a table
const GOLDEN = [
  { p: 2047, theta: 10_000, factor: 1, row: [
    0.249715254, 0.98874855, -0.879267335, -0.323264688, -0.0496266708, 0.982004762, -0.458408684, 0.797703862,
    -0.968319297, 0.14958711, -0.476328611, 0.946308613, 0.998767853, 0.188856319, 0.888741493, 0.603049397,
  ] },
  { p: 999, theta: 500_000, factor: 1, row: [
    0.999649823, 0.497650445, 0.991472542, 0.538460791, 0.157340556, 0.962703347, 0.99858892, 0.999946952,
    -0.0264607519, -0.867377698, -0.13031593, 0.842650592, 0.987544417, 0.270559281, 0.0531047806, 0.0103028892,
  ] },
  { p: 16001, theta: 10_000, factor: 4, row: [
    -0.538153112, -0.478608519, -0.503866673, 0.670942426, -0.668797731, 0.996513247, -0.653454125, 0.301061988,
    -0.842847109, 0.878028393, -0.863781452, 0.741509438, 0.743444383, 0.083434619, -0.756966114, 0.953604579,
  ] },
];

for (const { p, theta, factor, row } of GOLDEN) {
  test(`ropeTable agrees with PyTorch at position ${p}, theta ${theta}, factor ${factor}`, () => {
    const table = ropeTable(p + 1, 16, theta, factor);
    // One rounding of f32: PyTorch's cosine is within 1 ULP of the exact one.
    expectClose(table.subarray(p * 16), row, { abs: 6e-8 }, `position ${p}`);
  });
}

test("other shapes are refused by name", () => {
  const [x, table, positions] = [device.empty([1, 2, 1, 4]), device.empty([8, 4]), device.empty([1, 2], "u32")];
  expect(() => rope(device.empty([1, 2, 4]), table, positions)).toThrow("rope: x must be [B, T, H, d]");
  expect(() => rope(device.empty([1, 2, 1, 3]), table, positions)).toThrow("rope: x must be [B, T, H, d]");
  expect(() => rope(device.empty([1, 2, 4, 2]).permute([0, 1, 3, 2]), table, positions)).toThrow(
    "got [1, 2, 2, 4] with strides [16, 8, 1, 2]",
  );
  expect(() => rope(x, device.empty([8, 6]), positions)).toThrow("rope: table must be [8, 4], got [8, 6]");
  expect(() => rope(x, table, device.empty([2, 1], "u32"))).toThrow("rope: positions must be [1, 2], got [2, 1]");
  expect(() => ropeTable(4, 7, 10_000)).toThrow("the head dimension must be even, got 7");
});
