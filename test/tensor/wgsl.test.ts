/**
 * Every kernel with every two of its parts, or with INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`) every choice of them, through
 * a full WGSL validator without a driver: Dawn's null back end, which has every feature, experimental ones included. Also the order of a kernel file that docs/kernels.md prescribes, and its
 * parser.
 */
import { execFileSync } from "node:child_process";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { ACTIVATIONS } from "../../src/tensor/activation.ts";
import { createGPU } from "../../src/tensor/device/gpu.node.ts";
import { openDevice } from "../../src/tensor/device/open_device.ts";
import { KERNELS } from "../../src/tensor/kernels.gen.ts";
import { assemble, PARAMS_BINDING, type Uses } from "../../src/tensor/wgsl.ts";
import { ALL } from "../rounds.ts";

const gpu = createGPU({ backend: "null", toggles: ["allow_unsafe_apis"] });
const device = await openDevice({ adapter: (await gpu.requestAdapter())! });
afterAll(() => device.destroy());

const kernels = KERNELS as Record<string, string>;
const stemOf = (path: string) => path.replace(/^.*\//, "");
const isPart = (path: string) => /^lib\/|\/parts\//.test(path);
const PATHS = Object.keys(KERNELS).filter((path) => !isPart(path));
const PARTS = new Map(
  Object.keys(KERNELS)
    .filter(isPart)
    .map((path) => [stemOf(path), path]),
);

/** Patches have no norm, and the eight bindings no room for its weight beside their positions. */
const isChoice = ({ norm, epilogue }: Uses) => norm !== "norm_rms" || epilogue !== "epilogue_tokens";

/** Every way to fill the slots of a kernel, those of the chosen parts included: a slot `weight` takes any part `weight_*`. */
function choices(path: string): Uses[] {
  const [whole, rest]: [Uses[], Uses[]] = [[], [{}]];
  for (let uses = rest.pop(); uses; uses = rest.pop()) {
    const slot = emptySlot(path, uses);
    if (slot === undefined && isChoice(uses)) whole.push(uses);
    for (const part of PARTS.keys()) if (part.startsWith(`${slot}_`)) rest.push({ ...uses, [slot!]: part });
  }
  return whole;
}

/** Choices in which every two parts that some choice has together are together once. */
function everyPair(all: readonly Uses[]): Uses[] {
  const met = new Set<string>();
  return all.filter((uses) => {
    const parts = Object.values(uses);
    const { size } = met;
    for (const [i, one] of parts.entries()) for (const other of parts.slice(i)) met.add(`${one} ${other}`);
    return parts.length === 0 || met.size > size;
  });
}

/** A slot of a kernel, or of one of its parts, that is not filled yet. */
function emptySlot(path: string, uses: Uses): string | undefined {
  const visited = new Set<string>();
  const visit = (file: string): string | undefined => {
    if (visited.has(file)) return undefined;
    visited.add(file);
    for (const [, part, fallback] of KERNELS[file].matchAll(/^\/\/ @use (\w+)(?: = (\w+))?$/gm)) {
      if (fallback !== undefined && !(part in uses)) return part;
      const found = visit(PARTS.get(fallback === undefined ? part : uses[part])!);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return visit(path);
}

for (const path of PATHS) {
  const name = stemOf(path);
  const which = ALL ? "every choice" : "every two";
  test(`kernels/${path}.wgsl compiles with ${which} of its parts, and its interface is read whole`, async () => {
    const all = ALL ? choices(path) : everyPair(choices(path));
    for (const uses of all) {
      const { code, bindings, params } = assemble(name, uses);
      // Were one written in a form that the reader does not know, it would be missing.
      expect(bindings.length + (params.length > 0 ? 1 : 0)).toBe(code.match(/@binding\(/g)?.length);
      expect(bindings.filter(({ writable }) => writable).length).toBeGreaterThan(0);
      expect(code.includes(`@group(0) @binding(${PARAMS_BINDING}) var<uniform> params: Params;`)).toBe(
        params.length > 0,
      );
    }
    const activations = assemble(name).overrides.has("ACTIVATION") ? Object.values(ACTIVATIONS) : [];
    await device.prepare([
      ...all.map((uses) => ({ kernel: name, uses })),
      ...activations.map((ACTIVATION) => ({ kernel: name, overrides: { ACTIVATION } })),
    ]);
  });

  test(`kernels/${path}.wgsl keeps the order of kernels/README.md`, () => {
    const lines = KERNELS[path].split("\n");
    const header = lines.slice(
      0,
      lines.findIndex((line) => !line.startsWith("//") || line.startsWith("// @use")),
    );
    expect(header.length, "a header").toBeGreaterThan(1);
    expect(header.join("\n")).toMatch(/^\/\/ Dispatch: .*$/m);
    expect(header.join("\n")).toMatch(/Needs: /);
    for (const [, binding] of KERNELS[path].matchAll(/^@group\(0\).*var<storage.*> (\w+):/gm)) {
      expect(header.join("\n"), `the header gives ${binding}'s shape`).toMatch(new RegExp(`\\b${binding}\\b[^\n]*:`));
    }

    let last = 0;
    for (const [i, line] of lines.entries()) {
      const place = ORDER.findIndex(([, pattern]) => pattern.test(line));
      if (place < 0) continue;
      expect(place, `line ${i + 1}: ${ORDER[place][0]} after ${ORDER[last][0]}`).toBeGreaterThanOrEqual(last);
      last = place;
    }
    expect(ORDER[last][0]).toBe("main");
    expect(lines.filter((line) => /^fn main\(/.test(line))).toHaveLength(1);
  });
}

/** What a line at the left margin begins, in the order in which they stand. */
const ORDER: readonly [string, RegExp][] = [
  ["enable", /^(enable|requires|diagnostic)\b/],
  ["@use", /^\/\/ @use /],
  ["overrides and constants", /^(override|const|alias)\b/],
  ["Params", /^struct Params\b/],
  ["an input", /^@group\(0\).*var<storage, read>/],
  ["an output", /^@group\(0\).*var<storage, read_write>/],
  ["the binding of Params", /^@group\(0\) @binding\(8\) var<uniform> params: Params;$/],
  ["shared memory", /^var<(workgroup|private)>/],
  ["a helper", /^fn (?!main\()/],
  ["main", /^(@compute|fn main\()/],
];

test("src/tensor/kernels.gen.ts is fresh", () => {
  execFileSync(process.execPath, ["scripts/build_kernels.mjs", "--check"], { stdio: "pipe" }); // throws if it is not
});

describe("the reader", () => {
  const MAIN = "@compute @workgroup_size(1)\nfn main() {\n}\n";
  const Y = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n";
  afterEach(() => {
    for (const name of ["sample", "lib/part_a", "lib/part_b", "lib/part_c"]) delete kernels[name];
  });

  test("gives bindings, params, overrides and features", () => {
    kernels.sample =
      "enable f16, subgroups;\noverride WG: u32 = 64;\noverride TILE = 4;\n" +
      "struct Params {\n  rows: u32, // many, it says\n  shift: i32,\n  eps: f32\n}\n" +
      "@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n" +
      "@group(0)\n@binding(0) var<storage, read> x: array<f32>;\n" +
      MAIN;
    const wgsl = assemble("sample");
    expect(wgsl.bindings).toEqual([
      { name: "x", binding: 0, writable: false },
      { name: "y", binding: 1, writable: true },
    ]);
    expect(wgsl.params).toEqual([
      { name: "rows", type: "u32" },
      { name: "shift", type: "i32" },
      { name: "eps", type: "f32" },
    ]);
    expect([...wgsl.overrides]).toEqual(["WG", "TILE"]);
    expect(wgsl.features).toEqual(["shader-f16", "subgroups"]);
  });

  test("appends parts once, fills slots, and finds every line again", () => {
    kernels.sample = `// A sample.\n// @use part = part_a\n// @use math\n${Y}${MAIN}`;
    kernels["lib/part_a"] = "// a\n// @slot part: A\n// @use math\nconst A = 1u;\n";
    kernels["lib/part_b"] = "// b\nconst A = 2u;"; // no newline at the end
    const plain = assemble("sample");
    expect(plain.label).toBe("sample");
    expect(plain.code.match(/fn exp_accurate/g)).toHaveLength(1);
    const chosen = assemble("sample", { part: "part_b" });
    expect(chosen.label).toBe("sample(part_b)");
    expect([plain.slots, chosen.slots]).toEqual([{ part: "part_a" }, { part: "part_b" }]);
    expect([1, 7, 8, 9, 10, 99_999].map(chosen.locate)).toEqual([
      "kernels/sample.wgsl:1",
      "kernels/sample.wgsl:7",
      "kernels/lib/part_b.wgsl:1",
      "kernels/lib/part_b.wgsl:2",
      "kernels/lib/math.wgsl:1",
      "kernels/sample.wgsl",
    ]);
  });

  test("moves the features of chosen parts to the front, and no line", async () => {
    kernels.sample = `// A sample.\nenable f16;\n// @use part = part_a\n${Y}${MAIN}`;
    kernels["lib/part_a"] = "// a\n// @slot part: size() -> u32\nfn size() -> u32 { return 1u; }\n";
    kernels["lib/part_b"] = "// b\n// @use part_c\nenable subgroups;\nfn size() -> u32 { return subgroupAdd(1u); }\n";
    kernels["lib/part_c"] = "enable subgroups, f16;\n";
    expect(assemble("sample").features).toEqual(["shader-f16"]);
    const { code, features, locate } = assemble("sample", { part: "part_b" });
    expect(new Set(features)).toEqual(new Set(["shader-f16", "subgroups"]));
    expect(code).toMatch(/^enable subgroups, f16; \/\/ A sample\.\nenable f16;\n/);
    expect(code.match(/enable/g)).toHaveLength(2);
    expect(locate(code.split("\n").findIndex((line) => line.startsWith("fn size")) + 1)).toBe(
      "kernels/lib/part_b.wgsl:4",
    );
  });

  test.each([
    ["a hole in the numbers", Y.replace("binding(0)", "binding(1)"), "BINDINGS", "must be numbered 0, 1, 2, …"],
    ["a vector in Params", `struct Params {\n  size: vec2<u32>,\n}\n${Y}`, "PARAMS", 'f32 only: "size: vec2<u32>"'],
    ["a feature nobody knows", `enable magic;\n${Y}`, "FEATURE", 'unknown feature "magic"'],
    [
      "a part that does not exist",
      `// @use absent_part\n${Y}`,
      "NO_KERNEL",
      "kernels/lib/absent_part.wgsl does not exist",
    ],
  ])("refuses %s", (_name, text, code, message) => {
    kernels.sample = text + MAIN;
    expect(() => assemble("sample")).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    );
  });
});

describe("a slot", () => {
  const SAMPLE = "// A sample.\n// @use part = part_a\n@compute @workgroup_size(1)\nfn main() {\n}\n";
  const ASKED =
    "// @slot part: x, SIZE, load(at: u32) -> vec4<f32>\n// @slot part: give(p: ptr<function, array<f32, 8>>, n: u32)\n";
  const WHOLE = `@group(0) @binding(0) var<storage, read> x: array<f32>;
const SIZE = 4u;
fn load(place: u32) -> vec4<f32> { return vec4<f32>(x[place]); }
fn give(
  p: ptr<function, array<f32, 8>>,
  count: u32,
) {
  (*p)[0] = x[count];
}
`;
  /** Fills the slot with a part of this text. */
  const fill = (text: string) => {
    kernels.sample = SAMPLE;
    kernels["lib/part_a"] = ASKED + WHOLE;
    kernels["lib/part_b"] = text;
    return assemble("sample", { part: "part_b" });
  };
  afterEach(() => {
    for (const name of ["sample", "lib/part_a", "lib/part_b", "lib/part_c"]) delete kernels[name];
  });

  test("is filled by what its default part states, be it that of a part which the part uses", () => {
    expect(fill(WHOLE).slots).toEqual({ part: "part_b" });
    kernels["lib/part_c"] = "const SIZE = 8u;\n// @use part_b\n";
    expect(fill(`// @use part_c\n${WHOLE.replace("const SIZE = 4u;", "")}`).code).toContain("const SIZE = 8u;");
  });

  test.each([
    ["a function missing", WHOLE.replace("fn load(", "fn unload("), "load(u32) -> vec4<f32> is missing"],
    [
      "a function of other types",
      WHOLE.replace("place: u32", "place: i32"),
      "load(u32) -> vec4<f32> is (i32) -> vec4<f32>",
    ],
    ["a function without its result", WHOLE.replace(" -> vec4<f32> {", " {"), "load(u32) -> vec4<f32> is (u32)"],
    [
      "a parameter too many",
      WHOLE.replace("count: u32,", "count: u32,\n  more: u32,"),
      "give(ptr<function, array<f32, 8>>, u32) is (ptr<function, array<f32, 8>>, u32, u32)",
    ],
    ["no function", WHOLE.replace(/fn load.*/, "const load = 1u;"), "load(u32) -> vec4<f32> is no function"],
    ["a binding and a constant missing", WHOLE.replace(/^@group.*\nconst.*\n/, ""), "x is missing; SIZE is missing"],
    [
      "everything missing",
      "// nothing\n",
      "x is missing; SIZE is missing; load(u32) -> vec4<f32> is missing; give(ptr<function, array<f32, 8>>, u32) is missing",
    ],
  ])("is not filled by a part with %s", (_name, text, missing) => {
    expect(text).not.toBe(WHOLE);
    expect(() => fill(text)).toThrow(
      expect.objectContaining({
        code: "SLOT",
        message:
          `kernels/lib/part_b.wgsl does not fill slot "part" of kernels/sample.wgsl: ${missing}\n` +
          "    hint: kernels/lib/part_a.wgsl states its contract",
      }),
    );
  });

  test("must say what fills it, and its default must", () => {
    kernels.sample = SAMPLE;
    kernels["lib/part_a"] = WHOLE;
    expect(() => assemble("sample")).toThrow(
      'kernels/lib/part_a.wgsl, the default of slot "part" of kernels/sample.wgsl, has no line "// @slot part: …"',
    );
    kernels["lib/part_a"] = ASKED;
    expect(() => assemble("sample")).toThrow(
      'part_a.wgsl does not fill slot "part" of kernels/sample.wgsl: x is missing',
    );
  });

  test("or a part or kernel of a name that is nearly right is meant", () => {
    expect(() => assemble("softmx")).toThrow("kernels/softmx.wgsl does not exist\n    hint: did you mean softmax?");
    expect(() => assemble("embedding", { weight: "weight_in8" })).toThrow("hint: did you mean weight_int8?");
    expect(() => assemble("embedding", { wieght: "weight_int8" })).toThrow(
      'kernels/gather/embedding.wgsl has no line "// @use wieght = …"\n    hint: did you mean weight?',
    );
  });

  /** Slots by name, with the default parts that kernels and parts give them. */
  const defaults = new Map<string, Set<string>>();
  for (const text of Object.values(KERNELS)) {
    for (const [, slot, part] of text.matchAll(/^\/\/ @use (\w+) = (\w+)$/gm)) {
      defaults.set(slot, (defaults.get(slot) ?? new Set()).add(part));
    }
  }

  test("has one default, and no other part states its contract", () => {
    const stated = [...PARTS].flatMap(([stem, path]) => {
      const names = [...KERNELS[path].matchAll(/^\/\/ @slot (\w+): /gm)].map(([, slot]) => slot);
      return [...new Set(names)].map((slot): [string, string[]] => [slot, [stem]]);
    });
    expect(stated.length).toBeGreaterThan(5);
    expect(new Map(stated)).toEqual(new Map([...defaults].map(([slot, parts]) => [slot, [...parts]])));
  });

  // Else a kernel could come to need more than a part was checked for.
  test.each([...defaults])("%s: kernels use nothing of a part but what is stated", (slot, [fallback]) => {
    const path = PARTS.get(fallback)!;
    const stated = [...KERNELS[path].matchAll(/^\/\/ @slot \w+: (.*)$/gm)].map(([, list]) => list).join(" ");
    const names = (text: string) =>
      [...text.matchAll(/^(?:@.*\) )?(?:fn|var(?:<[^>]*>)?|const|override|alias|struct) (\w+)/gm)].map(
        ([, name]) => name,
      );
    const hidden = names(KERNELS[path]).filter((name) => !new RegExp(`\\b${name}\\b`).test(stated));
    const users = PATHS.filter((kernel) => choices(kernel).some((uses) => slot in uses));
    expect(users.length).toBeGreaterThan(0);
    for (const kernel of users) {
      const { code } = assemble(stemOf(kernel));
      const rest = code.replace(KERNELS[path].replace(/^enable .*$/gm, ""), "").replace(/\/\/.*$/gm, "");
      expect(rest.length, kernel).toBeLessThan(code.length - KERNELS[path].length / 2);
      const own = names(rest);
      const used = hidden.filter(
        (name) => !own.includes(name) && new RegExp(`(?<![.\\w])${name}\\b(?! *[:=])`).test(rest),
      );
      expect(used, kernel).toEqual([]);
    }
  });
});
