/** The tuner's choices, on invented times. */
import { expect, test } from "vitest";
import type { Measured } from "../../bench/harness.ts";
import { fastest, groupsByClass, renderChoices, tunedPlanFrom } from "../../bench/tune.ts";
import { CASES } from "../../src/tensor/cases/support/all.ts";
import type { Group } from "../../src/tensor/cases/support/group.ts";
import { MODEL_SHAPES, QUICK_SHAPES } from "../../src/tensor/cases/support/shapes.ts";
import type { Caps } from "../../src/tensor/device/caps.ts";
import { sizeClasses } from "../../src/tensor/device/plan.ts";
import { testDevice } from "../device.ts";
import { row } from "./row.ts";

const { caps } = await testDevice();
const SOME_GPU: Caps = { ...caps, isSoftware: false, subgroups: true, subgroupMinSize: 16, subgroupMaxSize: 32 };

/** Rows of variants at shapes, by their CPU milliseconds; null: not timed. */
function rows(times: Record<string, Record<string, number | null>>): Measured[] {
  return Object.entries(times).flatMap(([shape, variants]) =>
    Object.entries(variants).map(([variant, cpu_ms]) => row({ kernel: "k", shape, variant, cpu_ms, basis: "cpu" })),
  );
}

test("the variant with the best mean over shapes is chosen, though it be slower at one", () => {
  const found = fastest("a", rows({ x: { a: 8, b: 1, c: 3 }, y: { a: 1, b: 2, c: 1 }, z: { a: 1, b: 1, c: 1 } }));
  expect(found).toMatchObject({ byRule: "a", chosen: "b" });
  expect(found.gain).toBeCloseTo(4 ** (1 / 3), 12);
});

test.each([
  ["hardly faster", { x: { a: 1, b: 0.96 } }],
  ["slower", { x: { a: 1, b: 2 } }],
  ["not timed somewhere", { x: { a: 1, b: 0.1 }, y: { a: 1, b: null } }],
  ["to be compared with nothing", { x: { a: null, b: 0.1 } }],
])("the rule stays if another is %s", (_name, times) => {
  expect(fastest("a", rows(times))).toEqual({ byRule: "a", chosen: "a", gain: 1 });
});

test("a variant that ran as another at some shape has the other's time there", () => {
  const times = rows({ x: { a: 4, b: 1, c: 2 }, y: { a: 4, b: 5, c: null } });
  const twin = times.map((row) => (row.variant === "c" && row.shape === "y" ? { ...row, same_as: "b" } : row));
  expect(fastest("a", times)).toMatchObject({ chosen: "b" });
  const slow = (row: Measured) => (row.shape === "x" && row.variant === "b" ? { ...row, cpu_ms: 9 } : row);
  expect(fastest("a", times.map(slow))).toMatchObject({ chosen: "a" });
  expect(fastest("a", twin.map(slow))).toMatchObject({ chosen: "c" });
});

test("GPU times count where there are any", () => {
  const on = (variant: string, gpu_ms: number, ms: number) => row({ variant, gpu_ms, ms, basis: "gpu" });
  expect(fastest("a", [on("a", 2, 1), on("b", 1, 9)])).toMatchObject({ chosen: "b", gain: 2 });
});

test("choices become a plan and a table", () => {
  const choices = [
    { op: "matvec", sizes: "M <= 1", byRule: "workgroup", chosen: "register", gain: 1.256 },
    { op: "matvec", sizes: "M > 1", byRule: "workgroup", chosen: "workgroup", gain: 1 },
  ] as const;
  expect(tunedPlanFrom(choices)).toEqual({ matvec: { "M <= 1": "register", "M > 1": "workgroup" } });
  expect(renderChoices(choices)).toBe(
    [
      "op      sizes   by rule    chosen    gain",
      "matvec  M <= 1  workgroup  register  1.26 x",
      "matvec  M > 1   workgroup  the same  1.00 x",
    ].join("\n"),
  );
});

const allGroups = (shapes: typeof MODEL_SHAPES, on: Caps): Group[] =>
  Object.values(CASES).flatMap((groups) => groups(shapes, on));

test("every op has a class that is measured, and within a class the rules take one variant", async () => {
  for (const on of [caps, SOME_GPU, { ...SOME_GPU, subgroups: false }]) {
    const classes = groupsByClass([...allGroups(MODEL_SHAPES, on), ...allGroups(QUICK_SHAPES, on)], () => true);
    const named = [...classes.keys()];
    for (const op of ["linear", "matvec", "attention", "row"] as const) {
      const known = sizeClasses(op).map((sizes) => `${op} ${sizes}`);
      expect(named.filter((name) => known.includes(name)).length).toBeGreaterThan(0);
    }
    for (const [name, groups] of classes) {
      expect(new Set(groups.map(({ planned }) => planned)).size, name).toBe(1);
    }
  }
});

test("of what is filtered, all variants are compared", async () => {
  const classes = groupsByClass(await allGroups(QUICK_SHAPES, caps), (name) => /^rms_norm invocation/.test(name));
  const [[name, groups], ...rest] = classes;
  expect({ name, rest, kernels: groups.map(({ kernel }) => kernel) }).toEqual({
    ...{ name: "row M <= 64", rest: [], kernels: ["rms_norm"] },
  });
  expect(groups[0].variants).toContain("workgroup");
});
