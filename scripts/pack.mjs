#!/usr/bin/env node
/**
 * Creates the tarball to publish. It does not rely on npm's life cycle, which `ignore-scripts` disables silently: it builds,
 * runs npm pack, and checks the tarball. package.json is `private`, so that npm publishes only this tarball, where `private`
 * is removed.
 */
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { build } from "./build.mjs";
import { untar } from "./setup.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const HELP = `usage: npm run pack [-- FOLDER]

Builds the package, packs it and checks what is in it; prints the tarball's path. To publish: npm publish PATH.

  FOLDER   where the tarball is put (default: here)
`;

/** Builds and packs into `folder`. Returns the tarball's path. @throws Error */
export function pack(folder, say = (_step) => {}) {
  if (!fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory()) throw new Error(`there is no folder ${folder}`);
  say("building …");
  build();
  say("packing …");
  const stage = fs.mkdtempSync(join(tmpdir(), "instructblip-pack-"));
  try {
    const { private: _, scripts: __, devDependencies: ___, ...manifest } = readJson(join(ROOT, "package.json"));
    for (const path of manifest.files) fs.cpSync(join(ROOT, path), join(stage, path), { recursive: true });
    fs.writeFileSync(join(stage, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
    const [{ filename }] = npmPack(stage, "--pack-destination", resolve(folder));
    const tarball = join(resolve(folder), filename);
    say("checking what is in the tarball …");
    const problems = problemsOf(tarball);
    if (problems.length === 0) return tarball;
    fs.rmSync(tarball);
    throw new Error(`the tarball is not whole:\n    ${problems.join("\n    ")}`);
  } finally {
    fs.rmSync(stage, { recursive: true, force: true });
  }
}

/**
 * Files missing in a tarball: those that package.json names or that the program reads, and a compiled module for every one
 * of src.
 */
export function problemsOf(tarball) {
  const files = new Map(
    untar(gunzipSync(fs.readFileSync(tarball))).map(({ name, data }) => [name.replace(/^package\//, ""), data]),
  );
  const manifest = JSON.parse(files.get("package.json").toString());
  const named = (value) => (typeof value === "string" ? [value] : Object.values(value ?? {}).flatMap(named));
  const needed = [
    ...[manifest.main, manifest.types, manifest.bin, manifest.exports, manifest.sideEffects].flatMap(named),
    ...["setup.mjs", "setup/process.mjs", "setup/lavapipe.mjs", "setup/swiftshader.mjs"].map(
      (name) => `scripts/${name}`,
    ),
    ...[
      "examples/shapes/images/questions.json",
      "examples/shapes/images/tokens.json",
      "examples/shapes/checkpoint/model.safetensors",
    ],
    ...sources().flatMap((name) => [".js", ".js.map", ".d.ts"].map((ending) => `dist/${name}${ending}`)),
  ].map((name) => name.replace(/^\.\//, ""));
  const missing = [...new Set(needed)].filter((name) => !files.has(name)).map((name) => `${name} is missing`);
  const stray = [...files.keys()]
    .filter((name) => /^dist\/.*\.js$/.test(name) && !needed.includes(name))
    .map((name) => `${name} has no source`);
  return [...(manifest.private ? ['package.json is "private"'] : []), ...missing, ...stray];
}

/** The modules of src, without their ending. */
function sources() {
  return fs
    .readdirSync(join(ROOT, "src"), { recursive: true })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => name.replaceAll("\\", "/").slice(0, -".ts".length));
}

const readJson = (path) => JSON.parse(fs.readFileSync(path, "utf8"));

/** npm's report of `npm pack`, which runs no script. */
function npmPack(folder, ...args) {
  const command = ["pack", "--json", "--ignore-scripts", ...args];
  const npm = process.env.npm_execpath;
  const [file, first] = npm?.endsWith("npm-cli.js") ? [process.execPath, [npm]] : ["npm", []];
  const options = {
    cwd: folder,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    shell: process.platform === "win32",
  };
  const report = JSON.parse(execFileSync(file, [...first, ...command], options));
  return Array.isArray(report) ? report : Object.values(report); // an object by name since npm 11.10
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  if (args[0] === "--help" || args[0] === "-h") process.stdout.write(HELP);
  else if (args.length > 1 || args[0]?.startsWith("-")) {
    process.stderr.write(`pack: unknown arguments: ${args.join(" ")}\n\n${HELP}`);
    process.exitCode = 2;
  } else {
    try {
      const tarball = pack(args[0] ?? ".", (step) => process.stderr.write(`pack: ${step}\n`));
      process.stdout.write(`${tarball}\n`);
    } catch (error) {
      process.stderr.write(`pack: ${error.message}\n${error.stderr ?? ""}`);
      process.exitCode = 1;
    }
  }
}
