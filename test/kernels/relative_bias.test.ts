import { expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { ShapeError } from "../../src/tensor/errors.ts";
import { relativeBias } from "../../src/tensor/ops/relative_bias.ts";
import { relativeBias as reference } from "../../src/tensor/reference/relative_bias.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();

// One element, an encoder, a decoder's first and last step over its cache, primes, and queries beyond the table.
test.each([
  { P: 1, H: 1, T: 1, S: 1, past: 0 },
  { P: 9, H: 4, T: 9, S: 9, past: 0 },
  { P: 16, H: 2, T: 1, S: 16, past: 0 },
  { P: 16, H: 2, T: 1, S: 16, past: 15 },
  { P: 13, H: 3, T: 5, S: 7, past: 4 },
  { P: 3, H: 3, T: 2, S: 11, past: 6 },
])("relative_bias %o", async (sizes) => {
  const { P, H, T, S, past } = sizes;
  const table = new Random(P * H).normal((2 * P - 1) * H);
  const at = device.tensor(Uint32Array.of(past), [1]);
  const y = relativeBias(device.tensor(table, [2 * P - 1, H]), { T, S, past: past > 0 ? at : undefined });
  expect(y.shape).toEqual([1, H, T, S]);
  expectClose(await y.read(), reference(table, sizes), TOLERANCES.exact, `relative_bias ${JSON.stringify(sizes)}`);
});

test("a folded grid reaches every element", async () => {
  const folded = new GpuDevice(
    device.handle,
    { ...device.caps, maxWorkgroupsPerDimension: 3 },
    Number.POSITIVE_INFINITY,
  );
  const sizes = { P: 20, H: 2, T: 12, S: 20, past: 0 };
  const table = new Random(1).normal(39 * 2);
  const y = relativeBias(folded.tensor(table, [39, 2]), { T: sizes.T, S: sizes.S });
  expectClose(await y.read(), reference(table, sizes), TOLERANCES.exact, "relative_bias folded");
});

test("shapes that do not fit are refused", () => {
  expect(() => relativeBias(device.tensor([1, 2], [2, 1]), { T: 1, S: 1 })).toThrow(ShapeError);
  const table = device.tensor([1], [1, 1]);
  expect(() => relativeBias(table, { T: 1, S: 1, past: device.tensor(Uint32Array.of(1, 2), [2]) })).toThrow(ShapeError);
});
