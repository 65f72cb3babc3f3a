/** What weights take on the device, by their headers; `npm run browser:check` has a model refused before its download. */
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText } from "../../../src/index.node.ts";
import { expectFits, weightBytes, withSizes } from "../../../src/instructblip/pretrained/checkpoint/fit.ts";
import { DeviceError } from "../../../src/tensor/errors.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import type { Device } from "../../../src/tensor/tensor.ts";
import { testDevice } from "../../device.ts";

const EMBEDDED = fileURLToPath(new URL("../../../examples/shapes/checkpoint", import.meta.url));
const checkpoint = await openCheckpoint(EMBEDDED);
afterAll(() => checkpoint.close());
const left = (bytes: number) => ({ memory: { left: bytes } }) as Device;
const refusal = (call: () => void): DeviceError => {
  try {
    call();
  } catch (error) {
    return error as DeviceError;
  }
  return expect.unreachable();
};

test.each(["auto", "int4"] as const)("%s is what a loaded model takes, to 3 %", async (dtype) => {
  const device = await testDevice();
  const before = device.memory.use.live;
  const model = await AutoModelForImageTextToText.from_pretrained(EMBEDDED, { device, dtype, compile: false });
  const taken = device.memory.use.live - before;
  model.dispose();
  expect(Math.abs(weightBytes(checkpoint, dtype) / taken - 1)).toBeLessThan(0.03);
});

describe("a refusal", () => {
  test.each([
    ["f32", weightBytes(checkpoint, "f16"), 'dtype: "f16" takes'],
    ["auto", weightBytes(checkpoint, "int8"), 'dtype: "int8" takes'],
    ["auto", weightBytes(checkpoint, "int8") - 1, 'dtype: "int4" takes'],
    ["int4", 1000, "too large in every dtype"],
  ] as const)("of %s with %i bytes left proposes what fits", (dtype, bytes, hint) => {
    const error = refusal(() => expectFits(checkpoint, left(bytes), dtype));
    expect(error).toMatchObject({ code: "BUDGET", hint: expect.stringContaining(hint) });
    expect(error.message).toMatch(/the memory budget has .* left\n.*INSTRUCTBLIP_MEMORY_BUDGET/);
    expect(() => expectFits(checkpoint, left(weightBytes(checkpoint, dtype)), dtype)).not.toThrow();
  });

  test("of the GPU's names a smaller dtype; other errors stay", () => {
    const error = withSizes(new DeviceError("GPU_OOM", "no"), checkpoint, "f16");
    expect(error).toMatchObject({ code: "GPU_OOM", hint: expect.stringContaining('dtype: "int8"') });
    const other = new DeviceError("BUDGET", "no");
    expect(withSizes(other, checkpoint, "f16")).toBe(other);
  });
});
