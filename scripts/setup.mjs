#!/usr/bin/env node
/**
 * Makes a fresh clone runnable: the packages of package-lock.json, and a WebGPU adapter. `npm test` and `npm run demo` start
 * with it; with nothing to do it takes about a quarter of a second. Only Node's own modules are used, because it runs before
 * node_modules exists. All output goes to stderr. In the installed package, whose dependencies npm installs, it is
 * `instructblip-webgpu setup` and handles the adapter alone.
 *
 * A machine's own GPU driver has priority. A software driver is installed only if no adapter is found: Mesa's lavapipe with
 * root on Debian and derivatives, else SwiftShader, unpacked into a cache folder that only this project uses.
 */

import * as fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { aptInstall, currentLavapipePlan, hasApt, installLavapipe } from "./setup/lavapipe.mjs";
import {
  IN_REPOSITORY,
  Interrupted,
  onSignal,
  ROOT,
  readJson,
  run,
  runNpm,
  SetupError,
  say,
} from "./setup/process.mjs";
import { CAN_RUN_SWIFTSHADER, swiftShaderArchive, unpackSwiftShader } from "./setup/swiftshader.mjs";

export { aptFailure, lavapipePlan, parseAptSources, parseOsRelease } from "./setup/lavapipe.mjs";
export { SWIFTSHADER, unpackSwiftShader, untar } from "./setup/swiftshader.mjs";

const SELF = fileURLToPath(import.meta.url);

const HELP = `usage: ${IN_REPOSITORY ? "npm run setup --" : "npx instructblip-webgpu setup"} [--check]

Installs ${IN_REPOSITORY ? "the packages of package-lock.json, and " : ""}a software Vulkan driver if this machine has no WebGPU adapter: as root
Mesa's lavapipe (apt-get), else SwiftShader, unpacked into a cache folder.

  --check   say what would be done and change nothing; exit 1 if anything is missing
  --help    show this text
`;

// ---------------------------------------------------------------- Node

/** Why this version of Node is not supported, if so. */
export function nodeProblem(version) {
  const [major, minor] = version.replace(/^v/, "").split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return undefined;
  return `Node ${version} is too old: version 20.19 or newer is needed`;
}

// ---------------------------------------------------------------- packages

/**
 * Why `npm ci` is needed, or undefined. npm writes node_modules/.package-lock.json last, as the record of installed
 * packages: it is compared with package-lock.json, and every folder in it must exist.
 *
 * @param lock package-lock.json, parsed
 * @param installed node_modules/.package-lock.json, parsed; undefined if there is none
 * @param exists whether a path relative to the repository exists
 */
export function packagesProblem(lock, installed, exists, platform = process.platform, arch = process.arch) {
  if (!installed) return "no complete node_modules";
  for (const [path, wanted] of Object.entries(lock.packages)) {
    // Absent: the root itself, and packages for other platforms. devOptional is for both kinds of dependents.
    if (path === "" || (wanted.optional && !installed.packages[path])) continue;
    const has = installed.packages[path];
    if (!has) return `${path} is missing`;
    if (has.version !== wanted.version || has.integrity !== wanted.integrity) return `${path} is another version`;
  }
  for (const [path, has] of Object.entries(installed.packages)) {
    if (!lock.packages[path]) return `${path} is not in package-lock.json`;
    // node_modules copied from, or shared with, another machine.
    const fits = (allowed, actual) => !allowed || allowed.includes(actual);
    if (!fits(has.os, platform) || !fits(has.cpu, arch)) return `${path} is for another platform`;
    if (!exists(`${path}/package.json`)) return `${path} is missing`;
  }
  return undefined;
}

function installedPackagesProblem() {
  if (!IN_REPOSITORY) return undefined;
  let installed;
  try {
    installed = readJson(join(ROOT, "node_modules/.package-lock.json"));
  } catch {}
  const exists = (path) => fs.existsSync(join(ROOT, path));
  return packagesProblem(readJson(join(ROOT, "package-lock.json")), installed, exists);
}

async function installPackages(reason) {
  say(`installing packages (npm ci): ${reason} …`);
  const start = Date.now();
  // If npm were killed, the record of the last installation would count for this one.
  fs.rmSync(join(ROOT, "node_modules/.package-lock.json"), { force: true });

  // NODE_ENV=production would leave the tests' packages out. No package needs its install scripts.
  const result = await runNpm(["ci", "--include=dev", "--ignore-scripts"]);
  if (result.code !== 0) {
    process.stderr.write(result.output.trimEnd() + "\n");
    throw new SetupError(
      `npm ci failed (${result.signal ?? `exit ${result.code}`}), its output is above.\n` +
        "    remedy: check the network and npm's settings (npm config list), then run this again; nothing is left to clean up",
    );
  }
  const still = installedPackagesProblem();
  if (still) throw new SetupError(`npm ci ended without an error, yet ${still}`);
  say(`packages installed in ${((Date.now() - start) / 1000).toFixed(0)} s`);
}

// ---------------------------------------------------------------- the adapter

/**
 * Requests an adapter in a separate process, as a broken driver may crash it. `through`: "dawn" asks Dawn for any adapter,
 * fast; "engine" uses the engine's gpu.node, which also finds SwiftShader's cache folder and returns its path. Returns `{
 * adapter, software, folder, reason }`, `adapter` undefined and `reason` set if there is none.
 */
async function probe(through) {
  const loader = through === "engine" && IN_REPOSITORY ? ["--import", "tsx"] : [];
  const result = await run(process.execPath, [...loader, SELF, `--probe=${through}`], { timeout: 120_000 });
  try {
    // The last line: drivers may write to stdout as well. It is valid even if the driver crashes at exit.
    return { reason: probeReason(result), ...JSON.parse(result.stdout.trim().split("\n").pop()) };
  } catch {
    return { reason: probeReason(result) };
  }
}

/** Why a probe found no adapter, in one line, from the output of Dawn and the driver. */
export function probeReason({ signal, output }) {
  if (signal === "SIGTERM") return "the graphics driver does not answer";
  if (signal) return `the graphics driver crashed (${signal})`;
  const line = output
    .split("\n")
    .find((text) => /^(Warning|Error):/.test(text) && !text.includes("artificially reduced"));
  return line?.replace(/^\w+: /, "") ?? "no Vulkan device";
}

/** The child's side of `probe`. */
async function answerProbe(through) {
  const answer = {};
  let adapter;
  if (through === "engine") {
    const engine = await import(
      IN_REPOSITORY ? "../src/tensor/device/gpu.node.ts" : "../dist/tensor/device/gpu.node.js"
    );
    answer.folder = engine.swiftShaderFolder();
    adapter = await engine.requestBestAdapter(engine.createGPU());
  } else {
    const { create } = await import("webgpu");
    globalThis.gpu = create([]); // Kept alive: Dawn crashes the process if the object is collected.
    adapter = await globalThis.gpu.requestAdapter({ powerPreference: "high-performance" });
    if (adapter?.info.isFallbackAdapter) adapter = await globalThis.gpu.requestAdapter(); // As requestBestAdapter does.
  }
  if (adapter) {
    const { device, description, isFallbackAdapter } = adapter.info;
    answer.software = isFallbackAdapter;
    answer.adapter = isFallbackAdapter ? description : `${device} (${description})`;
  }
  fs.writeSync(1, `\n${JSON.stringify(answer)}\n`);
  process.exit(0);
}

/** Device files of GPUs, with or without a usable driver. */
function gpuDevices() {
  const list = (folder, pattern) => {
    try {
      return fs.readdirSync(folder).filter((name) => pattern.test(name));
    } catch {
      return [];
    }
  };
  return [
    ...list("/dev", /^(nvidia\d+|dxg)$/).map((name) => `/dev/${name}`),
    ...list("/dev/dri", /^renderD\d+$/).map((name) => `/dev/dri/${name}`),
  ];
}

/** Why a software driver is used although there is a GPU, and a hint. */
function unusedGpu() {
  const device = gpuDevices()[0];
  if (!device) return "a real GPU would be used if its driver were found";
  try {
    fs.accessSync(device, fs.constants.R_OK | fs.constants.W_OK);
  } catch {
    return `a GPU is here, but this user may not open ${device}`;
  }
  const container = device.startsWith("/dev/nvidia") ? "; in a container it needs NVIDIA_DRIVER_CAPABILITIES=all" : "";
  return `a GPU is here (${device}), but no Vulkan driver for it${container}`;
}

function sayAdapter({ adapter, software }) {
  say(software ? `adapter ${adapter}, software: ${unusedGpu()}` : `adapter ${adapter}`);
}

async function ensureAdapter() {
  let found = await probe("dawn");
  if (found.adapter) return sayAdapter(found);
  const apt = hasApt();
  const root = process.getuid?.() === 0;

  // Before software drivers: a GPU whose driver lacks only the Vulkan loader.
  if (apt && root && gpuDevices().length > 0 && found.reason.includes("libvulkan")) {
    say(`a GPU is here (${gpuDevices()[0]}), but no Vulkan loader: installing libvulkan1 (apt-get) …`);
    try {
      await aptInstall({ packages: ["libvulkan1"] });
      found = await probe("dawn");
      if (found.adapter) return sayAdapter(found);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      say(error.message);
    }
  }

  const engine = await probe("engine");
  if (engine.adapter) return sayAdapter(engine);

  say(`no WebGPU adapter: ${found.reason}`);
  if (apt && root) {
    try {
      await installLavapipe();
      found = await probe("dawn");
      if (found.adapter) return sayAdapter(found);
      say(`no adapter from Mesa's lavapipe either (${found.reason}), taking SwiftShader`);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      say(`${error.message}; taking SwiftShader`);
    }
  }

  if (CAN_RUN_SWIFTSHADER) {
    if (!engine.folder) throw new SetupError(`the engine's own probe failed: ${engine.reason}`);
    const archive = await swiftShaderArchive();
    say(`unpacking SwiftShader, a software driver, into ${engine.folder} …`);
    unpackSwiftShader(archive, engine.folder);
    found = await probe("engine");
    if (found.adapter) {
      if (apt && !root) say("as root this script would install Mesa's lavapipe, about 11 times as fast");
      return sayAdapter(found);
    }
  }
  throw new SetupError(noAdapterMessage(found.reason));
}

function noAdapterMessage(reason) {
  const forced = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].find((name) => process.env[name]);
  const remedy =
    process.platform !== "linux"
      ? "update the system and its graphics driver"
      : forced
        ? `unset ${forced}, which names the only drivers looked at (${process.env[forced]})`
        : "install the GPU's Vulkan driver, or as root Mesa's lavapipe 23 or newer (package mesa-vulkan-drivers) and libvulkan1";
  return `no WebGPU adapter can be had: ${reason}\n    remedy: ${remedy}`;
}

// ---------------------------------------------------------------- main

/** Prints what `main` would do; returns whether anything is missing. */
async function check() {
  const problem = installedPackagesProblem();
  if (problem) {
    say(`packages: npm ci would be run, as ${problem}`);
    say("adapter: not known before the packages are there");
    return true;
  }
  if (IN_REPOSITORY) say("packages: installed");
  let found = await probe("dawn");
  if (!found.adapter) found = { ...(await probe("engine")), reason: found.reason };
  if (found.adapter) {
    sayAdapter(found);
    return false;
  }
  const plan = hasApt() && process.getuid?.() === 0 ? currentLavapipePlan() : undefined;
  const source = plan?.addSource ? `, after adding ${plan.release} to apt's sources` : "";
  say(`adapter: none (${found.reason})`);
  if (plan) say(`adapter: apt-get would install ${plan.packages.join(" ")}${source}`);
  else if (CAN_RUN_SWIFTSHADER) say(`adapter: SwiftShader would be unpacked into ${found.folder}`);
  else say(noAdapterMessage(found.reason));
  return true;
}

async function main(args) {
  const [first] = args;
  if (first?.startsWith("--probe=")) return answerProbe(first.slice("--probe=".length));
  if (first === "--help" || first === "-h") return void process.stdout.write(HELP);
  if (args.length > 1 || (first !== undefined && first !== "--check")) {
    process.stderr.write(`setup: unknown arguments: ${args.join(" ")}\n\n${HELP}`);
    process.exitCode = 2;
    return;
  }
  const problem = nodeProblem(process.version);
  if (problem) throw new SetupError(problem);
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  if (first === "--check") {
    process.exitCode = (await check()) ? 1 : 0;
    return;
  }
  const reason = installedPackagesProblem();
  if (reason) await installPackages(reason);
  await ensureAdapter();
}

if (process.argv[1] && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  main(process.argv.slice(2)).catch((error) => {
    if (error instanceof Interrupted) return; // The exit code is set.
    if (error instanceof SetupError) say(error.message);
    else process.stderr.write(`setup: ${error?.stack ?? error}\n`);
    process.exitCode = 1;
  });
}
