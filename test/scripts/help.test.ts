/** Every npm script explains itself, says what it does not know, and lets its reader go. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { scripts: Record<string, string> };

/** Runs a script with arguments as npm does, but for the set-up in front of it. */
function npmRun(name: string, args: string) {
  const command = scripts[name].split(" && ").at(-1);
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
