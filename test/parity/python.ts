/** A Python with PyTorch and transformers, as live parity has it. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const requirements = join(root, "test/golden/requirements.txt");
const venv = join(root, ".venv");
const venvPython = join(venv, process.platform === "win32" ? "Scripts/python.exe" : "bin/python");
const stamp = join(venv, "requirements.txt");

/** One that is there: INSTRUCTBLIP_PYTHON, or .venv with the pinned packages. */
export function pythonThere(): string | undefined {
  const given = process.env.INSTRUCTBLIP_PYTHON;
  if (given) return given;
  return existsSync(venvPython) && readFileOrEmpty(stamp) === readFileOrEmpty(requirements) ? venvPython : undefined;
}

/** The same, or else .venv, made anew. Says what it does; undefined if that fails. */
export function pythonWithPackages(): string | undefined {
  const there = pythonThere();
  if (there) return there;
  const system = ["python3", "python"].find((name) => spawnSync(name, ["--version"]).status === 0);
  if (!system) {
    console.error("error: live parity needs Python 3.10 or later\n    hint: `npm run parity -- --goldens` needs none");
    return undefined;
  }
  console.error("making .venv with PyTorch and transformers (once; some minutes) …");
  const ok =
    execute(system, ["-m", "venv", "--clear", venv]) &&
    execute(venvPython, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]);
  if (!ok) return undefined;
  writeFileSync(stamp, readFileOrEmpty(requirements));
  return venvPython;
}

function readFileOrEmpty(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Runs a program, its output on stderr. @returns whether it succeeded; says so if not */
export function execute(command: string, args: string[]): boolean {
  const { status, error } = spawnSync(command, args, { stdio: ["ignore", 2, "inherit"] });
  if (status !== 0) console.error(`error: ${command} ${args[0]} … failed${error ? `: ${error.message}` : ""}`);
  return status === 0;
}
