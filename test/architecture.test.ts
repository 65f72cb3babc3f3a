/** Rules that the compiler does not check: which file may import which, and the files of a kernel. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { OWN_KERNELS } from "../src/tensor/device/own_kernels.ts";

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
/** The layers from below; what lies in none of them (src/index.ts) is above all. */
const LAYERS = ["src/tensor/", "src/modules/", "src/instructblip/"];
const layerOf = (file: string) => {
  const layer = LAYERS.findIndex((folder) => file.startsWith(folder));
  return layer < 0 ? LAYERS.length : layer;
};
/** What rooms that can be read alone import, besides themselves. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  "src/tensor/files/": ["src/tensor/"],
  "src/tensor/cases/": ["src/tensor/"],
  "src/instructblip/model/": ["src/tensor/", "src/modules/", "src/instructblip/config/"],
  "src/instructblip/tokenizer/": ["src/tensor/", "src/instructblip/config/", "src/instructblip/pretrained/platform.ts"],
};

/** `a imports b` for every import of a source that `isWrong`. */
function offences(isWrong: (file: string, target: string) => boolean): string[] {
  return SOURCES.flatMap((file) =>
    importsOf(file)
      .filter((target) => isWrong(file, target))
      .map((target) => `${file} imports ${target}`),
  );
}

test("imports are found at all", () => {
  expect(importsOf("src/tensor/ops/layer_norm.ts")).toContain("src/tensor/shape.ts");
  expect(importsOf("test/architecture.test.ts")).toContain("node:fs");
});

test("nothing is imported from a layer above, or from outside of src", () => {
  const isOutside = (target: string) => /^(test|bench|scripts|examples)\//.test(target);
  const isAbove = (file: string, target: string) => target.startsWith("src/") && layerOf(target) > layerOf(file);
  expect(offences((file, target) => isOutside(target) || isAbove(file, target))).toEqual([]);
});

test.each(Object.entries(ROOMS))("%s imports only what it is made of", (room, allowed) => {
  expect(SOURCES.some((file) => file.startsWith(room))).toBe(true);
  const isAllowed = (target: string) => [room, ...allowed].some((place) => target.startsWith(place));
  expect(offences((file, target) => file.startsWith(room) && target.startsWith("src/") && !isAllowed(target))).toEqual(
    [],
  );
});

test("no import circle, types counted", () => {
  const state = new Map<string, "open" | "done">();
  const circles: string[] = [];
  const visit = (file: string, path: readonly string[]) => {
    if (state.get(file) === "done") return;
    if (state.get(file) === "open") {
      circles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
      return;
    }
    state.set(file, "open");
    for (const target of importsOf(file)) if (target.startsWith("src/")) visit(target, [...path, file]);
    state.set(file, "done");
  };
  for (const file of SOURCES) visit(file, []);
  expect(circles).toEqual([]);
});

test("a folder holds some twenty files, but for ops and references, one for each kernel", () => {
  const counts = new Map<string, number>();
  for (const file of [...SOURCES, ...filesUnder("kernels", ".wgsl")]) {
    counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1);
  }
  const full = [...counts].filter(([folder, count]) => count > 22 && !/\/(ops|reference)$/.test(folder));
  expect(full).toEqual([]);
});

test("only *.node.ts files and main.ts import Node's modules, sharp, webgpu, or each other", () => {
  const needsNode = (target: string) =>
    isBuiltin(target) || target === "sharp" || target === "webgpu" || isNodeFile(target);
  expect(offences((file, target) => !isNodeFile(file) && needsNode(target))).toEqual([]);
});

test("a reference imports nothing, and cases alone import references, or each other", () => {
  const [isReference, isCase] = ["reference", "cases"].map((folder) => (file: string) => {
    return file.startsWith(`src/tensor/${folder}/`);
  });
  expect(offences((file, target) => isReference(file) || (isReference(target) && !isCase(file)))).toEqual([]);
  const mayRun = (file: string) => isCase(file) || file.startsWith("src/instructblip/doctor/");
  expect(offences((file, target) => isCase(target) && !mayRun(file))).toEqual([]);
});

/** Kernels that compute the same by other means share op, reference and test with the first of them. */
const VARIANTS: Record<string, readonly string[]> = {
  softmax: ["softmax_subgroup"],
  // biome-ignore format: a list
  attention: [
    "attention_scores", "attention_values", "attention_flash", "attention_flash_sized", "attention_split",
    "attention_combine", "attention_subgroup",
  ],
  // biome-ignore format: a list
  linear: [
    "matmul_naive", "matmul_tile", "matmul_tile_sized", "matmul_combine", "matmul_register", "matmul_subgroup",
    "matmul_subgroup_matrix", "matvec_workgroup", "matvec_blocks", "matvec_blocks_sized", "matvec_subgroup",
  ],
};
/** Those that `npm run kernel:new` made. */
const OWN = Object.entries(OWN_KERNELS).flatMap(([op, variants]: [string, readonly string[]]) =>
  variants.map((variant) => ({ op, kernel: `${op}_${variant}` })),
);
const stemOf = (kernel: string) =>
  OWN.find((own) => own.kernel === kernel)?.op ??
  Object.keys(VARIANTS).find((stem) => VARIANTS[stem].includes(kernel)) ??
  kernel;

/** Kernels of ops; those in bench/ measure the machine. Parts have no file besides their own. */
const KERNELS = filesUnder("kernels", ".wgsl")
  .filter((file) => !/^kernels\/(lib|bench)\/|\/parts\//.test(file))
  .map((file) => basename(file, ".wgsl"));

/** Folders of kernels, which cases have too. */
const FAMILIES = [...new Set(filesUnder("kernels", ".wgsl").map((file) => file.split("/")[1]))];

test("every kernel has its op, which launches it, its reference, its cases and its test", () => {
  expect(KERNELS.length).toBeGreaterThan(0);
  for (const kernel of KERNELS) {
    const stem = stemOf(kernel);
    const files = [
      `src/tensor/ops/${stem}.ts`,
      `src/tensor/reference/${stem}.ts`,
      `src/tensor/cases/${FAMILIES.find((family) => existsSync(join(ROOT, `src/tensor/cases/${family}/${stem}.ts`)))}/${stem}.ts`,
      `test/kernels/${stem}.test.ts`,
    ];
    expect(
      files.filter((file) => !existsSync(join(ROOT, file))),
      kernel,
    ).toEqual([]);
    const [op, reference, , tests] = files.map((file) => readFileSync(join(ROOT, file), "utf8"));
    if (OWN.some((own) => own.kernel === kernel)) expect(op, kernel).toContain(`kernelOf("${stem}", override)`);
    else expect(op, kernel).toMatch(new RegExp(`["\`]${kernel}["\`]`));
    expect(reference, kernel).toMatch(/^export (function|const) /m);
    expect(tests, kernel).toContain(`ops/${stem}.ts`);
    expect(tests, kernel).toContain(`reference/${stem}.ts`);
  }
});

/** Ops that launch another's kernels: a view that copy moves, a product with an input and an end of its own. */
const BORROWERS = ["unfold", "patch_embedding"];

test("every kernel of one's own has its file", () => {
  expect(OWN.filter(({ kernel }) => !KERNELS.includes(kernel))).toEqual([]);
});

test("no reference or test has lost its kernel", () => {
  const stems = new Set([...KERNELS.map(stemOf), ...BORROWERS]);
  const named = [...filesUnder("src/tensor/reference", ".ts"), ...filesUnder("test/kernels", ".test.ts")];
  const stem = (file: string) => file.replace(/^.*\//, "").replace(/(\.test)?\.ts$/, "");
  expect(named.filter((file) => !stems.has(stem(file)))).toEqual([]);
});
