/** `npm run kernel:new`: the variant that it makes compiles, is compared with the reference, and is a row of the bench. */

import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { measure } from "../../bench/harness.ts";
// @ts-expect-error: plain JavaScript.
import { missingKernels, readKernels } from "../../scripts/build_kernels.mjs";
import { newVariant, nextSteps } from "../../scripts/new_variant.ts";
import { CASES } from "../../src/tensor/cases/support/all.ts";
import { withCases } from "../../src/tensor/cases/support/group.ts";
import { AWKWARD_SHAPES } from "../../src/tensor/cases/support/shapes.ts";
import { OWN_KERNELS, type OwnOp } from "../../src/tensor/device/own_kernels.ts";
import { kernelOf, parseOverride, plansOf } from "../../src/tensor/device/plan.ts";
import { KERNELS } from "../../src/tensor/kernels.gen.ts";
import { testDevice } from "../device.ts";
import { ALL } from "../rounds.ts";

const device = await testDevice();
const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const TABLE = "src/tensor/device/own_kernels.ts";
const OPS = Object.keys(OWN_KERNELS) as OwnOp[];

/** A copy of what is read and written, removed after the test. */
function copyOfKernels(): string {
  const root = mkdtempSync(join(tmpdir(), "instructblip-kernel-"));
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  cpSync(join(ROOT, "kernels"), join(root, "kernels"), { recursive: true });
  mkdirSync(join(root, "src/tensor/device"), { recursive: true });
  cpSync(join(ROOT, TABLE), join(root, TABLE));
  return root;
}

const kernels = KERNELS as Record<string, string>;
const own = OWN_KERNELS as unknown as Record<OwnOp, readonly string[]>;

/** Runs `run` with the variant in the files of `root`. @param change of the kernel's text */
async function withVariant(
  root: string,
  op: OwnOp,
  variant: string,
  run: () => Promise<void>,
  change = (text: string) => text,
): Promise<void> {
  const path = `rows/${op}_${variant}`;
  const before = own[op];
  try {
    kernels[path] = change(readFileSync(join(root, `kernels/${path}.wgsl`), "utf8"));
    own[op] = JSON.parse(new RegExp(`^  ${op}: (\\[.*\\]),$`, "m").exec(readFileSync(join(root, TABLE), "utf8"))![1]);
    await run();
  } finally {
    delete kernels[path];
    own[op] = before;
  }
}

/** The variant's rows of the bench. */
async function rowsOf(op: OwnOp, variant: string) {
  const groups = CASES[op](AWKWARD_SHAPES, device.caps).slice(0, 3);
  const settings = { rounds: 1, turnMs: 0, slowMs: 1000 };
  const isMine = (name: string) => name.startsWith(`${op} ${variant} `);
  const rows = await withCases(device, groups, isMine, (cases) => measure(device, cases, settings));
  expect(rows).toHaveLength(groups.length);
  return rows;
}

test.each(ALL ? OPS : (["layer_norm", "argmax"] as const))("a variant of %s runs beside the others", async (op) => {
  const root = copyOfKernels();
  expect(newVariant(op, "mine", root)).toEqual([`kernels/rows/${op}_mine.wgsl`, TABLE, "src/tensor/kernels.gen.ts"]);
  expect(readFileSync(join(root, "src/tensor/kernels.gen.ts"), "utf8")).toContain(`"rows/${op}_mine": \``);
  await withVariant(root, op, "mine", async () => {
    const classOf = ["argmax", "cross_entropy", "log_softmax", "top_k"].includes(op) ? "logits" : "row";
    expect(plansOf(op, classOf, device.caps).at(-1)).toEqual(["mine", { [op]: "mine" }]); // which its tests run
    expect(parseOverride(`${op}=mine`)).toEqual({ [op]: "mine" });
    for (const row of await rowsOf(op, "mine")) {
      expect(row.check, row.shape).toEqual({ share: expect.any(Number) });
      expect(row.check!.share).toBeLessThanOrEqual(1);
      expect(row).toMatchObject({ variant: "mine", planned: false, ms: expect.any(Number) });
      expect(row.same_as).toBeUndefined();
    }
  });
});

test.each([
  ["computes something else", "wrong", "+ bias[at]", "- bias[at]", { share: expect.any(Number) }],
  [
    "does not compile",
    "broken",
    "let mean =",
    "let mean = 1u + ",
    { share: null, note: expect.stringMatching(/layer_norm_broken.wgsl:\d+:/) },
  ],
])("one that %s fails its rows, not the run", async (_what, variant, right, wrong, check) => {
  const root = copyOfKernels();
  newVariant("layer_norm", variant, root);
  const change = (text: string) => text.replace(right, wrong);
  await withVariant(
    root,
    "layer_norm",
    variant,
    async () => {
      for (const row of await rowsOf("layer_norm", variant)) {
        expect(row, row.shape).toMatchObject({ check, ms: null });
        expect(row.check!.share ?? 2, row.shape).toBeGreaterThan(1);
      }
    },
    change,
  );
});

describe("refuses", () => {
  const NAMED = [
    ["an op that is none, with the nearest", "layer_nrm", "mine", /no op "layer_nrm"; did you mean layer_norm\?/],
    ["an op that chooses among kernels", "linear", "mine", /linear cannot have .* by hand/],
    ["a name that is no name", "layer_norm", "Mine", /"Mine" cannot be a variant's name/],
    ["a path", "layer_norm", "../mine", /cannot be a variant's name/],
    ["a variant that is", "layer_norm", "subgroup", /has a variant subgroup already: (?!.*(\b\w+\b).*\b\1\b)/],
    ["a kernel that is", "attention", "flash", /attention cannot have/],
  ] as const;

  test.each(NAMED)("%s", (_what, op, variant, message) => {
    expect(() => newVariant(op, variant, join(ROOT, "no/such/folder"))).toThrow(message); // before it is looked at
  });

  test("a second one of the same name", () => {
    const root = copyOfKernels();
    newVariant("rms_norm", "mine", root);
    expect(() => newVariant("rms_norm", "mine", root)).toThrow("there is a kernel rms_norm_mine.wgsl already");
    newVariant("rms_norm", "other", root);
    expect(readFileSync(join(root, TABLE), "utf8")).toContain('  rms_norm: ["mine", "other"],\n');
    expect(missingKernels(readKernels(root), root)).toEqual([]);
    rmSync(join(root, "kernels/rows/rms_norm_mine.wgsl")); // which `npm run kernels` says
    expect(missingKernels(readKernels(root), root)).toEqual([
      expect.stringMatching(/names mine of rms_norm, but there is no rms_norm_mine\.wgsl/),
    ]);
  });

  test("a variant that an op does not have, where another op has it", () => {
    expect(() => kernelOf("rms_norm", { rms_norm: "mine" })).toThrow('rms_norm has no variant "mine"');
    expect(() => parseOverride("rms_norm=mine")).toThrow("rms_norm has one kernel");
  });
});

test("docs/kernels.md has the steps that it prints", () => {
  const docs = readFileSync(join(ROOT, "docs/kernels.md"), "utf8");
  expect(docs).toContain("npm run kernel:new -- layer_norm mine\n");
  for (const step of nextSteps("layer_norm", "mine").split("\n").slice(1)) expect(docs).toContain(`${step.trim()}\n`);
});

test.runIf(ALL)(
  "in a copy of the repository, from the command line to its tests and the bench",
  { timeout: 600_000 },
  () => {
    const root = copyOfKernels();
    const isGolden = (path: string) => path === join(ROOT, "test/golden");
    for (const name of ["src", "scripts", "bench", "test", "package.json", "tsconfig.json", "vitest.config.ts"])
      cpSync(join(ROOT, name), join(root, name), { recursive: true, filter: (path) => !isGolden(path) });
    mkdirSync(join(root, "examples"), { recursive: true });
    for (const link of ["node_modules", "examples/shapes", "test/golden"])
      symlinkSync(join(ROOT, link), join(root, link));
    const run = (...args: string[]) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
      expect({ status, stderr: status === 0 ? "" : stderr + stdout }).toEqual({ status: 0, stderr: "" });
      return stdout;
    };
    expect(run("--import", "tsx", "scripts/kernel_new.ts", "layer_norm", "mine")).toContain(
      "wrote kernels/rows/layer_norm_mine.wgsl",
    );
    expect(run("--import", "tsx", "bench/main.ts", "--quick", "--list", "--filter", "^layer_norm mine")).toMatch(
      /^layer_norm mine /m,
    );
    const tests = ["test/kernels/layer_norm.test.ts", "test/architecture.test.ts"];
    expect(run("node_modules/vitest/vitest.mjs", "run", ...tests, "--reporter", "verbose")).toMatch(
      /layer_norm mine \[/,
    );
  },
);
