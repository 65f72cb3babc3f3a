/** Every npm script has --help, refuses unknown arguments, and handles a closed stdout. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
// @ts-expect-error: plain JavaScript.
import { readKernels } from "../../scripts/build_kernels.mjs";
import { show } from "../../scripts/show_kernel.ts";
import { EngineError } from "../../src/tensor/errors.ts";
import { withCompiled } from "../compiled.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { scripts: Record<string, string> };

/** Runs a script with arguments as npm does, but for the set-up in front of it, and compiled. */
function npmRun(name: string, args: string) {
  const command = withCompiled(scripts[name].split(" && ").at(-1)!);
  const PATH = `${join(ROOT, "node_modules/.bin")}${delimiter}${process.env.PATH}`;
  return spawnSync("bash", ["-c", `${command} ${args}`], {
    cwd: ROOT,
    encoding: "utf8",
    env: { ...process.env, PATH },
  });
}

test.each(Object.keys(scripts))("npm run %s -- --help", (name) => {
  const { status, stdout } = npmRun(name, "--help");
  expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringMatching(/usage/i) });
});

const OURS = Object.keys(scripts).filter((name) => !["check", "format"].includes(name));

test.each(OURS)("npm run %s -- --no-such-option", (name) => {
  const { status, stdout, stderr } = npmRun(name, "--no-such-option");
  expect({ stdout, refused: status === 1 || status === 2 }, stderr).toEqual({ stdout: "", refused: true });
  expect(stderr).toContain("--no-such-option");
  expect(stderr).not.toMatch(/^ {4}at /m);
});

test("npm test names its stages, its options, and what it was given wrong", () => {
  const { stdout } = npmRun("test", "-h");
  for (const part of ["kernels", "tsc", "biome", "vitest", "-t", "--testTimeout", "--bail", "--all", "test:all"]) {
    expect(stdout).toContain(part);
  }
  const wrong = npmRun("test:all", "test/kernels --bail");
  expect(wrong).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining(stdout) });
  expect(wrong.stderr).toMatch(/^error: .*--bail/);
});

describe("npm run kernels -- show", () => {
  test("prints a kernel and its parts under marks, filled and set as asked for", () => {
    const { status, stdout, stderr } = npmRun(
      "kernels",
      "show kernels/matmul/matvec_workgroup.wgsl weight=weight_int4 WG=32",
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const marks = [...stdout.matchAll(/^\/\/ ==== (.*)$/gm)].map(([, file]) => file);
    expect(marks[0]).toBe("kernels/matmul/matvec_workgroup.wgsl");
    expect(marks).toContain("kernels/lib/weight_int4.wgsl");
    expect(marks).not.toContain("kernels/lib/weight_f32.wgsl");
    expect(stdout).toContain("// slot weight = weight_int4; or weight_bf16, weight_f16, weight_f32, weight_int8\n");
    expect(stdout).toMatch(/^override WG: u32 = 32; \/\/ a power of two$/m);
    expect(stdout).toMatch(/^override TM: u32 = 1;/m);
    // Each file whole, but for the numbers that were set.
    for (const file of marks) {
      const text = readFileSync(join(ROOT, file), "utf8").replace("WG: u32 = 256", "WG: u32 = 32");
      expect(stdout).toContain(`// ==== ${file}\n${text}`);
    }
  });

  test.each([
    ["", "which kernel? "],
    ["sofmax", "did you mean softmax?"],
    ["softmax reduc=reduce_tree", "did you mean reduce?"],
    ["softmax wg=8", "did you mean WG?"],
    ["softmax WQ=8", "did you mean WG?"],
    ["softmax reduce=reduce_three", "did you mean reduce_tree?"],
    ["softmax reduce=weight_f32", "sum_over_threads(u32, f32) -> f32 is missing"],
    ["softmax WG=many", 'WG must be a number, got "many"'],
    ["softmax WG", '"WG" is neither slot=part nor OVERRIDE=VALUE'],
  ])("refuses %j by name", (args, message) => {
    const refused = () => show(args.split(" ").filter(Boolean), readKernels());
    expect(refused).toThrow(EngineError);
    expect(refused).toThrow(message);
  });

  test.each([
    ["sofmax", "did you mean softmax?"],
    ["softmax --wide", "unknown argument: --wide"],
  ])("prints why it refuses %j", (args, message) => {
    const { status, stdout, stderr } = npmRun("kernels", `show ${args}`);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^ {4}at /m);
  });

  test("may lose its reader", () => {
    const { stdout, stderr } = npmRun("kernels", "show softmax > >(exec 0<&-; sleep 0.1); echo $? >&2");
    expect({ stdout, stderr }).toEqual({ stdout: "", stderr: "141\n" });
  });
});

describe("a pipe", () => {
  test.each(["bench", "parity", "quality", "browser", "instructblip"])(
    "of npm run %s may be closed by its reader",
    (name) => {
      // The reader has gone before anything is written.
      const { stdout, stderr } = npmRun(name, "--help > >(exec 0<&-; sleep 0.1); echo $? >&2");
      expect(stdout).toBe("");
      expect(stderr).toBe("141\n");
    },
  );
});
