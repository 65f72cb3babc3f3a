#!/usr/bin/env node
/**
 * Packs all that a Linux x64 machine with only a GPU driver needs to check and measure it: this Node, Dawn, the program, the
 * benchmarks and the smaller other engines, compiled, and a Vulkan loader. scripts/gpu/ has the programs that run there.
 */
import { execFileSync, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync, gzipSync } from "node:zlib";
import { swiftShaderArchive, untar } from "./setup/swiftshader.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const NAME = "instructblip-gpu";
/** Largest bundle, in bytes: small enough to send by hand. */
const LARGEST = 60 * 2 ** 20;

const HELP = `usage: npm run gpu:bundle [-- FILE]

Packs what checks and measures a GPU on a Linux x64 machine without network, Node or anything else but a driver.
There: tar -xzf FILE && ${NAME}/run.sh

  FILE   where it is put (default: ${NAME}.tar.gz)
`;

/** Engines of bench/peers that fit, with their files for Node; ONNX Runtime's library alone is 70 MB. */
const PEERS = {
  "@jax-js/jax": /^dist\/[^/]*\.js$/,
  "@tensorflow/tfjs-core": /^dist\/tf-core\.node\.js$/,
  "@tensorflow/tfjs-backend-webgpu": /^dist\/tf-backend-webgpu\.node\.js$/,
};

/** Packs into `file`. Returns its size. @throws Error */
export async function bundle(file, say = (_step) => {}) {
  if (process.platform !== "linux" || process.arch !== "x64")
    throw new Error("it is made on Linux x64, for such machines");
  const stage = fs.mkdtempSync(join(tmpdir(), "instructblip-gpu-"));
  const folder = join(stage, NAME);
  const app = join(folder, "app");
  try {
    say("compiling …");
    compile(app);
    say("copying …");
    for (const path of ["package.json", "LICENSE", "examples/shapes/checkpoint", "examples/shapes/images", "kernels"]) {
      copy(join(ROOT, path), join(app, path));
    }
    for (const name of Object.keys(readJson(join(ROOT, "package.json")).dependencies)) {
      copyPackage(ROOT, name, join(app, "node_modules"), isNeeded);
    }
    copyPeers(app);
    // bench/model.bench.ts would take a golden, were there no embedded checkpoint, and so looks which there are.
    for (const name of ["data", "siblings"]) fs.mkdirSync(join(app, "test/golden", name), { recursive: true });
    for (const name of ["run.sh", "run.mjs", "torch_times.py"])
      copy(join(ROOT, "scripts/gpu", name), join(folder, name));
    copy(fs.realpathSync(process.execPath), join(folder, "bin/node"));
    spawnSync("strip", [join(folder, "bin/node")]); // 12 MB of symbols less, where there is such a program
    const loader = untar(brotliDecompressSync(await swiftShaderArchive())).find(
      ({ name }) => name === "libvulkan.so.1",
    );
    fs.mkdirSync(join(folder, "lib"));
    fs.writeFileSync(join(folder, "lib/libvulkan.so.1"), loader.data);
    const facts = { bundle: readJson(join(ROOT, "package.json")).version, commit: commit(), node: process.version };
    fs.writeFileSync(join(app, "commit"), `${facts.commit}\n`);
    fs.writeFileSync(join(folder, "bundle.json"), `${JSON.stringify(facts)}\n`);
    say("compressing …");
    const archive = execFileSync("tar", ["-C", stage, "--sort=name", "--owner=0", "--group=0", "-cf", "-", NAME], {
      maxBuffer: 2 ** 30,
    });
    const packed = gzipSync(archive, { level: 9 });
    if (packed.length > LARGEST)
      throw new Error(`the bundle is ${mebibytes(packed.length)}, more than ${mebibytes(LARGEST)}`);
    fs.writeFileSync(file, packed);
    return packed.length;
  } finally {
    fs.rmSync(stage, { recursive: true, force: true });
  }
}

const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const readJson = (path) => JSON.parse(fs.readFileSync(path, "utf8"));

/** Compiles src and bench to JavaScript, in the same folders, without type checks. */
function compile(app) {
  const config = join(ROOT, `tsconfig.bundle.${process.pid}.json`);
  const compilerOptions = {
    noEmit: false,
    noCheck: true,
    declaration: false,
    allowImportingTsExtensions: false,
    outDir: app,
    rootDir: ROOT,
  };
  fs.writeFileSync(config, JSON.stringify({ extends: "./tsconfig.json", compilerOptions, include: ["src", "bench"] }));
  try {
    const tsc = join(ROOT, "node_modules/@typescript/native/bin/tsc");
    const { status } = spawnSync(process.execPath, [tsc, "-p", config], { cwd: ROOT, stdio: ["ignore", 2, 2] });
    if (status !== 0) throw new Error("tsc failed");
  } finally {
    fs.rmSync(config);
  }
}

function copy(from, to, filter) {
  fs.mkdirSync(dirname(to), { recursive: true });
  fs.cpSync(from, to, { recursive: true, dereference: true, ...(filter && { filter }) });
}

/** Excludes files for compilers, browsers and other systems. */
function isNeeded(path) {
  if (/\.(map|d\.[cm]?ts|md|c|h|cc)$/.test(path)) return false;
  return !/^dist\/(darwin|win32|linux-arm64)/.test(path) && !/(^|\/)(docs|test|tests|install)(\/|$)/.test(path);
}

/** A package that is installed, with what it depends on, optional ones where they are. */
function copyPackage(from, name, modules, filter) {
  const found = createRequire(join(from, "package.json"))
    .resolve.paths(name)
    .map((path) => join(path, name))
    .find((path) => fs.existsSync(path));
  const to = join(modules, name);
  if (found === undefined || name.startsWith("@types/") || name === "@webgpu/types" || fs.existsSync(to)) return;
  copy(found, to, (path) => {
    const inside = relative(found, path);
    return inside === "" || fs.statSync(path).isDirectory()
      ? filter(`${inside}/`)
      : inside === "package.json" || filter(inside);
  });
  const { dependencies, optionalDependencies } = readJson(join(found, "package.json"));
  for (const needed of Object.keys({ ...dependencies, ...optionalDependencies })) {
    copyPackage(found, needed, modules, filter === isNeeded ? isNeeded : inPeers(needed));
  }
}

const inPeers = (name) => (path) =>
  path.endsWith("/") || (PEERS[name] ?? /^(?!.*\.(map|d\.ts)$)(?!.*(bundle|min|fesm|es2017))(?!src\/).*$/).test(path);

/** The other engines, installed if needed, with a lock file of the included packages, which bench/peers checks. */
function copyPeers(app) {
  const peers = join(ROOT, "bench/peers");
  if (!fs.existsSync(join(peers, "node_modules/.package-lock.json"))) {
    execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: peers, stdio: ["ignore", 2, 2] });
  }
  const modules = join(app, "bench/peers/node_modules");
  for (const name of Object.keys(PEERS)) copyPackage(peers, name, modules, inPeers(name));
  const lock = readJson(join(peers, "package-lock.json"));
  const packages = Object.entries(lock.packages).filter(
    ([path]) => path === "" || fs.existsSync(join(app, "bench/peers", path)),
  );
  for (const path of ["package-lock.json", "node_modules/.package-lock.json"]) {
    fs.writeFileSync(
      join(app, "bench/peers", path),
      JSON.stringify({ ...lock, packages: Object.fromEntries(packages) }),
    );
  }
}

function commit() {
  const { status, stdout } = spawnSync("git", ["rev-parse", "--short", "HEAD"], { cwd: ROOT, encoding: "utf8" });
  return status === 0 ? stdout.trim() : "unknown";
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  if (args[0] === "--help" || args[0] === "-h") process.stdout.write(HELP);
  else if (args.length > 1 || args[0]?.startsWith("-")) {
    process.stderr.write(`gpu:bundle: unknown arguments: ${args.join(" ")}\n\n${HELP}`);
    process.exitCode = 2;
  } else {
    try {
      const file = resolve(args[0] ?? `${NAME}.tar.gz`);
      const size = await bundle(file, (step) => process.stderr.write(`gpu:bundle: ${step}\n`));
      process.stdout.write(`${file}  ${mebibytes(size)}\n`);
    } catch (error) {
      process.stderr.write(`gpu:bundle: ${error.message}\n`);
      process.exitCode = 1;
    }
  }
}
