/** Every op has its cases, which compare it with its reference, in every variant of the plan. */
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { CASES } from "../../src/tensor/cases/support/all.ts";
import { MODEL_SHAPES, QUICK_SHAPES, type Shapes } from "../../src/tensor/cases/support/shapes.ts";
import { plansOf, runnableVariants } from "../../src/tensor/device/plan.ts";
import { testDevice } from "../device.ts";

const { caps } = await testDevice();
const stems = (folder: string, ending: string) =>
  readdirSync(new URL(folder, import.meta.url))
    .filter((name) => name.endsWith(ending))
    .map((name) => name.slice(0, -ending.length));

/** Not ops: the placeholder of an absent tensor. */
const NO_OPS = ["placeholder"];
const OPS = stems("../../src/tensor/ops/", ".ts").filter((stem) => !NO_OPS.includes(stem));
const CASES_FOLDER = new URL("../../src/tensor/cases/", import.meta.url);
/** `family/stem` of every file. */
const PATHS = readdirSync(CASES_FOLDER)
  .filter((family) => family !== "support")
  .flatMap((family) => stems(`../../src/tensor/cases/${family}/`, ".ts").map((stem) => `${family}/${stem}`));
const FILES = PATHS.map((path) => path.split("/")[1]);

test("as many files of cases as ops, all of them in the list", () => {
  expect(FILES.sort()).toEqual(OPS.sort());
  expect(Object.keys(CASES).sort()).toEqual(OPS);
});

const groupsOf = (stem: string, shapes: Shapes) => CASES[stem](shapes, caps);

test.each(PATHS)("src/tensor/cases/%s.ts holds its op against its reference", async (path) => {
  const stem = path.split("/")[1];
  const text = readFileSync(new URL(`${path}.ts`, CASES_FOLDER), "utf8");
  expect(text).toContain(`../ops/${stem}.ts`);
  expect(text).toContain(`../reference/${stem}.ts`);
  for (const shapes of [MODEL_SHAPES, QUICK_SHAPES]) {
    const groups = groupsOf(stem, shapes);
    expect(groups.length).toBeGreaterThan(0);
    expect(new Set(groups.map(({ shape }) => shape)).size).toBe(groups.length);
    for (const { kernel, variants, planned } of groups) {
      expect(kernel).toBe(stem);
      expect(variants).toContain(planned);
    }
  }
});

test("every variant of every op is measured, as far as the adapter can run it", async () => {
  expect(MODEL_SHAPES.matmul.some(({ dtype }) => dtype === "f32")).toBe(true);
  for (const shapes of [MODEL_SHAPES, QUICK_SHAPES]) {
    const variantsOf = async (stem: string) => [...new Set(groupsOf(stem, shapes).flatMap((g) => g.variants))].sort();
    for (const stem of ["layer_norm", "rms_norm", "softmax"] as const)
      expect(await variantsOf(stem)).toEqual(
        plansOf(stem, "row", caps)
          .map(([name]) => name)
          .sort(),
      );
    expect(await variantsOf("attention")).toEqual(runnableVariants("attention", caps).sort());
    const products = (["linear", "linear_f16", "matvec"] as const).flatMap((op) => runnableVariants(op, caps));
    const naive = shapes.matmul.some(({ dtype }) => dtype === "f32") ? ["naive"] : [];
    expect(await variantsOf("linear")).toEqual([...new Set([...naive, ...products])].sort());
  }
});
