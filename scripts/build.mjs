#!/usr/bin/env node
/**
 * Compiles src/ to dist/, JavaScript with types and source maps, as it is packed. dist/ is deleted first, so that no files
 * of an older build are packed. A failed build leaves no dist/, so that an incomplete one cannot be packed.
 */
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const HELP = `usage: npm run build

Writes dist/ out of src/ and kernels/: JavaScript, types and source maps. npm pack does so by itself.
`;

/** @throws Error when a step fails; its output has been shown on stderr. */
export function build() {
  const dist = join(ROOT, "dist");
  rmSync(dist, { recursive: true, force: true });
  for (const args of [
    ["scripts/build_kernels.mjs"],
    ["node_modules/@typescript/native/bin/tsc", "-p", "tsconfig.build.json"],
  ]) {
    // Stdout is npm pack's, which prints the tarball's name there.
    const { status } = spawnSync(process.execPath, args, { cwd: ROOT, stdio: ["ignore", 2, 2] });
    if (status === 0) continue;
    rmSync(dist, { recursive: true, force: true });
    throw new Error(`${args[0]} failed`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [first] = process.argv.slice(2);
  if (first === "--help" || first === "-h") process.stdout.write(HELP);
  else if (first !== undefined) {
    process.stderr.write(`build: unknown argument: ${first}\n\n${HELP}`);
    process.exitCode = 2;
  } else {
    try {
      build();
    } catch (error) {
      process.stderr.write(`build: ${error.message}\n`);
      process.exitCode = 1;
    }
  }
}
