import { afterEach, expect, test, vi } from "vitest";
import type { Caps } from "../../src/tensor/gpu.ts";
import { type Op, parseOverride, plan, VARIANTS } from "../../src/tensor/plan.ts";

const GPU: Caps = {
  vendor: "nvidia",
  architecture: "hopper",
  description: "a GPU",
  isSoftware: false,
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  f16: true,
  timestamps: true,
  maxBindingBytes: 2 ** 31,
  maxBufferBytes: 2 ** 32,
  maxInvocations: 1024,
  maxWorkgroupStorageBytes: 49_152,
  maxWorkgroupsPerDimension: 65_535,
};
const SOFTWARE: Caps = { ...GPU, isSoftware: true, subgroupMinSize: 8, subgroupMaxSize: 8 };
const ADAPTERS: Record<string, Caps> = {
  GPU,
  SOFTWARE,
  "a GPU of varying subgroups": { ...GPU, subgroupMinSize: 8 },
  "a GPU of none": { ...GPU, subgroups: false },
  "software of varying subgroups": { ...SOFTWARE, subgroupMinSize: 4 },
  "software of none": { ...SOFTWARE, subgroups: false },
};
const OPS = Object.keys(VARIANTS) as Op[];

afterEach(() => vi.unstubAllEnvs());

test.each(Object.keys(ADAPTERS))("%s: every op has a variant, and one that runs there", (name) => {
  const caps = ADAPTERS[name];
  for (const op of OPS) {
    const variant = plan(op, caps, {});
    expect(VARIANTS[op]).toContain(variant);
    if (variant.includes("subgroup"))
      expect(caps.subgroups && caps.subgroupMinSize === caps.subgroupMaxSize).toBe(true);
  }
});

test("rows go to a workgroup on a GPU, to an invocation on a software driver", () => {
  expect(plan("row", GPU, {})).toBe("workgroup");
  expect(plan("row", SOFTWARE, {})).toBe("invocation");
});

test("products and attention take subgroups on software that has them fixed, shared memory on a GPU", () => {
  const choices = (caps: Caps) => (["linear", "matvec", "attention"] as const).map((op) => plan(op, caps, {}));
  expect(choices(GPU)).toEqual(["tile", "workgroup", "fused"]);
  expect(choices(SOFTWARE)).toEqual(["subgroup", "subgroup", "subgroup"]);
  expect(choices({ ...SOFTWARE, subgroups: false })).toEqual(["register", "register", "composed"]);
});

test("an override wins, for its op alone", () => {
  for (const op of OPS) {
    for (const variant of VARIANTS[op]) {
      expect(plan(op, GPU, { [op]: variant })).toBe(variant);
      expect(plan(op, SOFTWARE, { [op]: variant })).toBe(variant);
    }
  }
  expect(plan("row", GPU, { attention: "composed" })).toBe("workgroup");
});

test("INSTRUCTBLIP_PLAN is read", async () => {
  vi.stubEnv("INSTRUCTBLIP_PLAN", "row=invocation");
  vi.resetModules(); // it is read once
  const fresh = await import("../../src/tensor/plan.ts");
  expect(fresh.plan("row", GPU)).toBe("invocation");
});

test("INSTRUCTBLIP_PLAN is checked", () => {
  expect(parseOverride("")).toEqual({});
  expect(parseOverride("row=workgroup, attention = composed")).toEqual({ row: "workgroup", attention: "composed" });
  expect(() => parseOverride("rows=workgroup")).toThrow('INSTRUCTBLIP_PLAN: there is no op "rows"');
  expect(() => parseOverride("row=workgrup")).toThrow(/row has no variant "workgrup"\n +hint: workgroup/);
  expect(() => parseOverride("row")).toThrow("row has no variant");
});
