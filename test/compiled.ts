/**
 * The repository's programs as JavaScript, compiled once for what src, bench and the others hold: a child that starts through
 * tsx spends a quarter to a whole second on it, and compiling them all takes one.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
/** Copies by what they were made of; git ignores it. */
const MADE = join(ROOT, ".cache/compiled");
/** The folders with programs in them. */
const SOURCES = ["src", "bench", "scripts", "examples", "test/parity", "test/fuzz", "test/soak"];
/** What programs look for beside themselves. */
const LINKS = [
  "package.json",
  "kernels",
  "docs",
  "scripts/setup.mjs",
  "scripts/setup",
  "examples/shapes",
  "test/golden",
];
const DAY_MS = 86_400_000;

/** The environment of a child that computes: test/patient.mjs has the reason. */
export const PATIENT = { NODE_OPTIONS: `--import ${new URL("patient.mjs", import.meta.url).href}` };

let made: string | undefined;

/** A program's path, from the repository's root, in the folder of those that are compiled. */
export function compiled(program: string): string {
  made ??= compile();
  return join(made, program.replace(/\.ts$/, ".js"));
}

/** A command of package.json's that starts the compiled program, if it starts one through tsx. */
export const withCompiled = (command: string): string =>
  command.replace(/--import tsx (\S+\.ts)/, (_, program: string) => compiled(program));

function compile(): string {
  // All of test but the tests: what parity and the others import from there is compiled with them.
  const files = ["src", "bench", "scripts", "examples", "test"]
    .flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).map((name) => join(folder, name)),
    )
    .filter((path) => path.endsWith(".ts") && !path.endsWith(".test.ts") && !path.includes("node_modules"));
  const stamp = createHash("sha256");
  for (const path of [...files.sort(), "tsconfig.json", "package-lock.json", "test/compiled.ts"]) {
    stamp.update(`${path}\n`).update(readFileSync(join(ROOT, path)));
  }
  const folder = join(MADE, stamp.digest("hex").slice(0, 16));
  if (existsSync(folder)) return folder;
  mkdirSync(MADE, { recursive: true });
  for (const old of readdirSync(MADE)) {
    const { mtimeMs } = statSync(join(MADE, old), { throwIfNoEntry: false }) ?? {};
    if (mtimeMs !== undefined && mtimeMs < Date.now() - DAY_MS)
      rmSync(join(MADE, old), { recursive: true, force: true });
  }
  const scratch = mkdtempSync(join(MADE, "making-"));
  try {
    compileInto(scratch);
    renameSync(scratch, folder);
  } catch (error) {
    rmSync(scratch, { recursive: true, force: true });
    if (!existsSync(folder)) throw error; // else another process was faster
  }
  return folder;
}

function compileInto(folder: string): void {
  const compilerOptions = {
    noEmit: false,
    noCheck: true, // `npm run check` does
    declaration: false,
    allowImportingTsExtensions: false,
    outDir: folder,
    rootDir: ROOT,
  };
  const config = join(folder, "tsconfig.json");
  const include = SOURCES.map((path) => join(ROOT, path));
  writeFileSync(config, JSON.stringify({ extends: join(ROOT, "tsconfig.json"), compilerOptions, include }));
  const tsc = join(ROOT, "node_modules/@typescript/native/bin/tsc");
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", config], { encoding: "utf8" });
  if (status !== 0) throw new Error(`the programs were not compiled:\n${stdout}`);
  for (const path of LINKS) link(path, folder);
}

/** Links a file or a folder; of a folder with programs of its own, what is in it. */
function link(path: string, folder: string): void {
  const [from, to] = [join(ROOT, path), join(folder, path)];
  if (!existsSync(to)) {
    mkdirSync(dirname(to), { recursive: true });
    symlinkSync(from, to);
  } else if (statSync(to).isDirectory()) {
    for (const name of readdirSync(from)) link(join(path, name), folder);
  }
}
