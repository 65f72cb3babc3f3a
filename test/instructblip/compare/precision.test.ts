/** The search for modules that need more bits, on errors that add up. */
import { describe, expect, test } from "vitest";
import { findPrecision, type PrecisionSearch } from "../../../src/instructblip/compare/precision.ts";
import { type StorageDType, storageOf } from "../../../src/modules/storage_dtype.ts";

/** Effects on the logits as int4; a hundredth as int8, nothing as f16 or f32. */
const EFFECTS: Readonly<Record<string, number>> = {
  "vision_model.a": 1,
  "vision_model.b": 8,
  projection: 4,
  "language_model.a": 2,
  "language_model.b": 16,
};
const SHARE: Readonly<Record<string, number>> = { int4: 1, int8: 0.01, bf16: 0.001, f16: 0, f32: 0 };

function search(
  gate: number,
  more: Partial<PrecisionSearch> = {},
): PrecisionSearch & { readonly tried: StorageDType[] } {
  const tried: StorageDType[] = [];
  return {
    tried,
    dtype: "int4",
    parts: ["vision_model", "projection", "language_model"],
    modules: async () => Object.entries(EFFECTS).map(([path, effect]) => ({ path, error: 1, effect })),
    loaded: () => "f32",
    gate,
    errorOf: async (dtype) => {
      tried.push(dtype);
      const share = (path: string) => SHARE[storageOf(dtype, `${path}.weight`, "f32")];
      return Object.entries(EFFECTS).reduce((sum, [path, effect]) => sum + effect * share(path), 0);
    },
    ...more,
  };
}

describe("findPrecision", () => {
  test("takes those of the largest effect, and no more than are needed", async () => {
    const { found, before, tries } = await findPrecision(search(7.3));
    expect(before).toBe(31);
    expect(found).toMatchObject({ more: "int8", modules: [{ path: "language_model.b" }, { path: "vision_model.b" }] });
    expect(found!.error).toBeCloseTo(7.24);
    expect(found!.dtype).toEqual({
      vision_model: "int4",
      projection: "int4",
      language_model: "int4",
      "language_model.b": "int8",
      "vision_model.b": "int8",
    });
    expect(tries).toBeLessThanOrEqual(5);
  });

  test.each([
    [0.31, "int8", 5],
    [0.3, "f16", 5],
    [30.9, "int8", 1],
  ])("for the gate %f stores %s, %i modules", async (gate, more, count) => {
    const { found } = await findPrecision(search(gate));
    expect(found).toMatchObject({ more });
    expect(found!.modules).toHaveLength(count);
    expect(found!.error).toBeLessThanOrEqual(gate);
  });

  test("looks for nothing where the gate is met", async () => {
    const given = search(31, { modules: () => Promise.reject(new Error("not needed")) });
    expect(await findPrecision(given)).toEqual({ gate: 31, before: 31, tries: 1 });
  });

  test("finds nothing where the error is not of the weights, or NaN", async () => {
    expect(await findPrecision(search(1, { errorOf: async () => 5 }))).toEqual({ gate: 1, before: 5, tries: 4 });
    expect((await findPrecision(search(1, { errorOf: async () => Number.NaN }))).found).toBeUndefined();
  });

  test("leaves alone what has as many bits already", async () => {
    const dtype = { vision_model: "bf16", language_model: "int4" } as const;
    const { found } = await findPrecision(search(0.2, { dtype }));
    expect(found).toMatchObject({
      more: "int8",
      modules: [{ path: "language_model.b" }, { path: "language_model.a" }],
    });
    expect(found!.dtype).toEqual({ ...dtype, "language_model.b": "int8", "language_model.a": "int8" });
  });
});
