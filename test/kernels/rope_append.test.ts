import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { narrow } from "../../src/tensor/dtype.ts";
import { ShapeError } from "../../src/tensor/errors.ts";
import { kvAppend } from "../../src/tensor/ops/kv_append.ts";
import { rope, ropeTable } from "../../src/tensor/ops/rope.ts";
import { ropeAppend } from "../../src/tensor/ops/rope_append.ts";
import { ropeAppend as reference } from "../../src/tensor/reference/rope_append.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const P = 300;

/** One of everything; grouped heads; heads that fours do not divide; a decoding step of beams; a cache that is too short. */
const SIZES = [
  { B: 1, T: 1, H: 1, Hkv: 1, C: 1, d: 2, rows: 1, past: 0 },
  { B: 2, T: 3, H: 4, Hkv: 2, C: 9, d: 6, rows: 2, past: 5 },
  { B: 1, T: 5, H: 3, Hkv: 3, C: 8, d: 88, rows: 4, past: 3 },
  { B: 5, T: 1, H: 4, Hkv: 1, C: 16, d: 128, rows: 5, past: 15 },
  { B: 2, T: 4, H: 2, Hkv: 2, C: 5, d: 8, rows: 3, past: 3 },
] as const;

type Sizes = Readonly<Record<keyof (typeof SIZES)[number], number>>;

function inputsOf({ B, T, H, Hkv, C, d, rows, past }: Sizes, on = device) {
  const random = new Random(B * T * H * d);
  const data = {
    qkv: random.normal(B * T * (H + 2 * Hkv) * d),
    table: ropeTable(P, d, 10_000),
    positions: Uint32Array.from({ length: B * T }, () => random.int(0, P)),
    keys: random.normal(rows * Hkv * C * d),
    values: random.normal(rows * Hkv * C * d),
  };
  const tensors = {
    table: on.tensor(data.table, [P, d]),
    positions: on.tensor(data.positions, [B, T]),
    keys: on.tensor(data.keys, [rows, Hkv, C, d]),
    values: on.tensor(data.values, [rows, Hkv, C, d]),
    past: on.tensor(Uint32Array.of(past), [1]),
  };
  return { data, tensors, qkv: on.tensor(data.qkv, [B, T, (H + 2 * Hkv) * d]) };
}

const folded = new GpuDevice(device.handle, { ...device.caps, maxWorkgroupsPerDimension: 2 }, Number.POSITIVE_INFINITY);

test.each(SIZES)("rope_append %o", async (sizes) => {
  for (const on of [device, ...(sizes.d === 8 ? [folded] : [])]) {
    const { data, tensors, qkv } = inputsOf(sizes, on);
    const q = ropeAppend(qkv, tensors);
    expect(q.shape).toEqual([sizes.B, sizes.T, sizes.H, sizes.d]);
    const [keys, values] = [Float64Array.from(data.keys), Float64Array.from(data.values)];
    const expected = reference(data.qkv, data.table, data.positions, [keys, values], sizes.past, sizes);
    expectClose(await q.read(), expected, TOLERANCES.rope, "queries");
    expectClose(await tensors.keys.read(), keys, TOLERANCES.rope, "keys"); // untouched places included
    expectClose(await tensors.values.read(), values, TOLERANCES.exact, "values");
  }
});

test.each(SIZES)("rope_append %o is rope and kv_append to the bit", async (sizes) => {
  const { B, T, H, Hkv, d } = sizes;
  const one = inputsOf(sizes);
  const q = await ropeAppend(one.qkv, one.tensors).read();
  const { qkv, tensors } = inputsOf(sizes);
  const [qs, ks, vs] = [
    [0, H],
    [H * d, Hkv],
    [(H + Hkv) * d, Hkv],
  ].map(([start, heads]) => qkv.narrow(2, start, heads * d).unflatten(2, [heads, d]));
  const { table, positions, keys, values, past } = tensors;
  kvAppend(rope(ks, table, positions), keys.narrow(0, 0, B), past);
  kvAppend(vs, values.narrow(0, 0, B), past);
  expect(q).toEqual(await rope(qs, table, positions).read());
  expect(await one.tensors.keys.read()).toEqual(await keys.read());
  expect(await one.tensors.values.read()).toEqual(await values.read());
  expect(q.length).toBe(B * T * H * d);
});

/** Eights, fours only, a decoding step, a cache that is too short. */
test.each([
  { B: 1, T: 5, H: 3, Hkv: 3, C: 8, d: 88, rows: 4, past: 3 },
  { B: 2, T: 3, H: 4, Hkv: 2, C: 9, d: 12, rows: 2, past: 5 },
  { B: 5, T: 1, H: 4, Hkv: 1, C: 16, d: 128, rows: 5, past: 15 },
  { B: 2, T: 4, H: 2, Hkv: 2, C: 5, d: 4, rows: 3, past: 3 },
])("rope_append to an f16 cache %o is rope and kv_append to the bit", async (sizes) => {
  const { B, H, Hkv, C, d, rows } = sizes;
  const { qkv, tensors } = inputsOf(sizes);
  const before = new Random(7).normal(rows * Hkv * C * d);
  const filled = () => device.tensor(new Uint32Array(narrow(before, "f16").buffer), [rows, Hkv, C, d / 2]);
  const [keys, values, otherKeys, otherValues] = [filled(), filled(), filled(), filled()];
  const q = ropeAppend(qkv, { ...tensors, keys, values });
  const heads = (first: number, n: number) => qkv.narrow(2, first * d, n * d).unflatten(2, [n, d]);
  const { table, positions, past } = tensors;
  kvAppend(rope(heads(H, Hkv), table, positions), otherKeys.narrow(0, 0, B), past);
  kvAppend(heads(H + Hkv, Hkv), otherValues.narrow(0, 0, B), past);
  expect(await q.read()).toEqual(await rope(heads(0, H), table, positions).read());
  expect(await keys.read()).toEqual(await otherKeys.read());
  expect(await values.read()).toEqual(await otherValues.read());
  expect(await keys.read()).not.toEqual(await filled().read());
});

test("shapes that do not fit are refused", () => {
  const { qkv, tensors } = inputsOf(SIZES[1]);
  const { keys, values } = tensors;
  expect(() => ropeAppend(qkv.narrow(2, 0, 12), tensors)).toThrow(ShapeError); // no queries are left
  expect(() => ropeAppend(qkv, { ...tensors, keys: keys.narrow(0, 0, 1), values: values.narrow(0, 0, 1) })).toThrow(
    "≥ B",
  );
  expect(() => ropeAppend(qkv, { ...tensors, values: values.narrow(2, 0, 3) })).toThrow("values");
  const of = (width: number) => device.empty([2, 2, 9, width], "u32");
  expect(() => ropeAppend(qkv, { ...tensors, keys: of(3), values: of(3) })).toThrow(
    "d must be a multiple of 4 for an f16 cache, got 6",
  );
  expect(() => ropeAppend(qkv, { ...tensors, values: of(6) })).toThrow("of one dtype");
});
