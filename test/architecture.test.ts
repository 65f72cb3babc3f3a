/** The rules of the house that a compiler does not hold: which file may import which, and what belongs to a kernel. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Paths of a folder's files, from the repository's root. */
function filesUnder(folder: string, ending: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(ending))
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)))
    .sort();
}

/** What a file imports: packages as they are called, files from the repository's root. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), "utf8").replace(/^\s*(\/\/|\/?\*).*$/gm, "");
  const specifiers = [...text.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)"([^"]+)"/g)].map(([, specifier]) => specifier);
  return specifiers.map((s) => (s.startsWith(".") ? relative(ROOT, join(ROOT, dirname(file), s)) : s));
}

const SOURCES = filesUnder("src", ".ts");
const isNodeFile = (file: string) => file.endsWith(".node.ts") || file === "src/instructblip/cli/main.ts";
/** The floors from below; what lies in none of them (src/index.ts) is the roof. */
const FLOORS = ["src/tensor/", "src/modules/", "src/instructblip/"];
const floorOf = (file: string) => {
  const floor = FLOORS.findIndex((folder) => file.startsWith(folder));
  return floor < 0 ? FLOORS.length : floor;
};

test("imports are found at all", () => {
  expect(importsOf("src/tensor/ops/layer_norm.ts")).toContain("src/tensor/shape.ts");
  expect(importsOf("test/architecture.test.ts")).toContain("node:fs");
});

test.each(SOURCES)("%s imports nothing from a floor above", (file) => {
  for (const target of importsOf(file).filter((target) => target.startsWith("src/"))) {
    expect(floorOf(target), `${target} is above`).toBeLessThanOrEqual(floorOf(file));
  }
  expect(importsOf(file).filter((target) => /^(test|bench|scripts|examples)\//.test(target))).toEqual([]);
});

test("only *.node.ts files and main.ts import Node's modules, sharp, webgpu, or each other", () => {
  const offences = SOURCES.filter((file) => !isNodeFile(file)).flatMap((file) =>
    importsOf(file)
      .filter((target) => isBuiltin(target) || target === "sharp" || target === "webgpu" || isNodeFile(target))
      .map((target) => `${file} imports ${target}`),
  );
  expect(offences).toEqual([]);
});

test("a reference imports nothing, and no part of the program imports a reference", () => {
  for (const file of SOURCES) {
    const imports = importsOf(file);
    if (file.startsWith("src/tensor/reference/")) expect(imports, file).toEqual([]);
    expect(
      imports.filter((target) => target.startsWith("src/tensor/reference/")),
      file,
    ).toEqual([]);
  }
});

/** Kernels that compute the same by other means share op, reference and test with the first of them. */
const VARIANTS: Record<string, readonly string[]> = {
  layer_norm: ["layer_norm_invocation", "layer_norm_subgroup"],
  rms_norm: ["rms_norm_invocation", "rms_norm_subgroup"],
  softmax: ["softmax_invocation", "softmax_subgroup"],
  // biome-ignore format: a list
  attention: [
    "attention_scores", "attention_values", "attention_fused", "attention_split", "attention_combine",
    "attention_subgroup",
  ],
  // biome-ignore format: a list
  linear: [
    "matmul_naive", "matmul_tile", "matmul_register", "matmul_subgroup", "matmul_subgroup_matrix", "matvec_workgroup",
    "matvec_subgroup",
  ],
};
const stemOf = (kernel: string) => Object.keys(VARIANTS).find((stem) => VARIANTS[stem].includes(kernel)) ?? kernel;

const KERNELS = filesUnder("kernels", ".wgsl")
  .map((file) => file.slice("kernels/".length, -".wgsl".length))
  .filter((kernel) => !kernel.includes("/"));

test.each(KERNELS)("kernels/%s.wgsl has its op, which launches it, its reference and its test", (kernel) => {
  const stem = stemOf(kernel);
  const doors = [`src/tensor/ops/${stem}.ts`, `src/tensor/reference/${stem}.ts`, `test/kernels/${stem}.test.ts`];
  expect(doors.filter((door) => !existsSync(join(ROOT, door)))).toEqual([]);
  const [op, reference, tests] = doors.map((door) => readFileSync(join(ROOT, door), "utf8"));
  expect(op).toMatch(new RegExp(`["\`]${kernel}["\`]`));
  expect(reference).toMatch(/^export (function|const) /m);
  expect(tests).toContain(`ops/${stem}.ts`);
  expect(tests).toContain(`reference/${stem}.ts`);
});

/** Ops that launch another's kernels: a view that copy moves, a product with an input and an end of its own. */
const BORROWERS = ["unfold", "patch_embedding"];

test("no reference or test has lost its kernel", () => {
  const stems = new Set([...KERNELS.map(stemOf), ...BORROWERS]);
  const named = [...filesUnder("src/tensor/reference", ".ts"), ...filesUnder("test/kernels", ".test.ts")];
  const stem = (file: string) => file.replace(/^.*\//, "").replace(/(\.test)?\.ts$/, "");
  expect(named.filter((file) => !stems.has(stem(file)))).toEqual([]);
});
