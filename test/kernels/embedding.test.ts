import { expect, test } from "vitest";
import { stored } from "../../src/tensor/cases/support/stored.ts";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import type { WeightDType } from "../../src/tensor/dtype.ts";
import { embedding } from "../../src/tensor/ops/embedding.ts";
import { embedding as reference } from "../../src/tensor/reference/embedding.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { expectClose } from "../compare.ts";
import { otherDevice, testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const DTYPES: WeightDType[] = ["f32", "f16", "bf16", "int8", "int4"];

for (const dtype of DTYPES) {
  // One number, widths that four does not divide, a vocabulary of one, Q-Former's width.
  test.each([
    [1, 1],
    [7, 3],
    [13, 8],
    [5, 131],
    [31, 65],
    [101, 768],
  ])(`embedding ${dtype}, table [%i, %i]`, async (V, D) => {
    const random = new Random(V * 1000 + D);
    const table = random.normal(V * D);
    const ids = Uint32Array.from({ length: 37 }, () => random.int(0, V));
    const y = embedding(device.tensor(ids, [37]), Weight.from(device, table, [V, D], dtype));
    expect(y.shape).toEqual([37, D]);
    // Widening is exact, and so is a code times its scale: nothing may differ at all.
    expectClose(await y.read(), reference(ids, stored(table, D, dtype), D), TOLERANCES.exact, `${dtype} [${V}, ${D}]`);
  });

  test(`embedding ${dtype}: shards of a table write the rows they hold, ids beyond it give zeros`, async () => {
    const small = await otherDevice({ max_binding: 2 ** 20 });
    const [V, D] = [1201, 1022];
    const random = new Random(1);
    const table = random.normal(V * D);
    const weight = Weight.from(small, table, [V, D], dtype);
    expect(weight.shards.length).toBe({ f32: 5, f16: 3, bf16: 3, int8: 2, int4: 1 }[dtype]);
    const edges = weight.shards.flatMap(({ firstRow, rows }) => [firstRow, firstRow + rows - 1]);
    const ids = Uint32Array.from([...edges, V, V + 1, 2 ** 31, 2 ** 32 - 1, ...edges.map(() => random.int(0, V))]);
    const out = small.empty([ids.length, D]);
    small.write(out, new Float32Array(out.size).fill(7)); // dirt in the pool: every place must be written
    out.dispose();
    const y = await embedding(small.tensor(ids, [ids.length]), weight).read();
    expectClose(y, reference(ids, stored(table, D, dtype), D), TOLERANCES.exact, `${dtype} shards`);
    small.destroy();
  });
}

test("ids of any shape, also strided", async () => {
  const table = Weight.from(device, Float32Array.of(0, 1, 10, 11, 20, 21), [3, 2]);
  const ids = device.tensor(Uint32Array.of(0, 1, 2, 2, 1, 0), [2, 3]).permute([1, 0]);
  const y = embedding(ids, table);
  expect(y.shape).toEqual([3, 2, 2]);
  expect([...(await y.read())]).toEqual([0, 1, 20, 21, 10, 11, 10, 11, 20, 21, 0, 1]);
});

test("a folded grid reaches every id", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const ids = Uint32Array.from({ length: 64 * 6 + 1 }, (_, i) => i);
  const table = Weight.from(folded, Float32Array.from(ids), [ids.length, 1]);
  expect([...(await embedding(folded.tensor(ids, [ids.length]), table).read())]).toEqual([...ids]);
});

test("no ids give no rows", async () => {
  const table = Weight.from(device, Float32Array.of(1, 2), [1, 2]);
  expect(await embedding(device.tensor(new Uint32Array(0), [0]), table).read()).toHaveLength(0);
});
