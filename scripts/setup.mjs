#!/usr/bin/env node
/**
 * Makes a fresh clone runnable: the packages of package-lock.json, and a WebGPU adapter. `npm test` and `npm run demo`
 * start with it; with nothing to do it takes about a quarter of a second. Only Node's own modules are used, because it
 * runs before node_modules exists. Everything it says goes to stderr. In the installed package, whose packages are npm's
 * matter, it is `instructblip-webgpu setup` and sees to the adapter alone.
 *
 * A machine's own GPU driver always comes first. Software drivers are installed only where no adapter is found: Mesa's
 * lavapipe with root on Debian and its kin, else SwiftShader, unpacked into a cache folder, which only this project sees.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { brotliDecompressSync, gunzipSync } from "node:zlib";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SELF = fileURLToPath(import.meta.url);

/** Not the installed package, which has no lock. */
const IN_REPOSITORY = fs.existsSync(join(ROOT, "package-lock.json"));

const HELP = `usage: ${IN_REPOSITORY ? "npm run setup --" : "npx instructblip-webgpu setup"} [--check]

Installs ${IN_REPOSITORY ? "the packages of package-lock.json, and " : ""}a software Vulkan driver if this machine has no WebGPU adapter: as root
Mesa's lavapipe (apt-get), else SwiftShader, unpacked into a cache folder.

  --check   say what would be done and change nothing; exit 1 if anything is missing
  --help    show this text
`;

/** An expected failure: shown as its message, without a stack. */
class SetupError extends Error {}

/** Ctrl-C, or a request to end, came while a child was running. */
class Interrupted extends Error {}

const say = (text) => process.stderr.write(`setup: ${text}\n`);

// ---------------------------------------------------------------- child processes

/** The child that Ctrl-C must wait for. */
let running;
let interrupted;

/**
 * Runs a command to its end: `{ code, signal, output, stdout }`, `output` being stdout and stderr together.
 * With `shield` a Ctrl-C does not reach it, because half an apt-get leaves a broken system.
 */
function run(command, args, { cwd = ROOT, env = process.env, shield = false, timeout = 0 } = {}) {
  return new Promise((resolve, reject) => {
    let output = "";
    let stdout = "";
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"], detached: shield, timeout });
    running = { child, shield, command };
    child.stdout.on("data", (data) => {
      stdout += data;
      output += data;
    });
    child.stderr.on("data", (data) => {
      output += data;
    });
    child.on("error", (error) => {
      output += error.message;
      finish(127, null);
    });
    child.on("close", finish);
    function finish(code, signal) {
      running = undefined;
      if (interrupted) reject(new Interrupted());
      else resolve({ code, signal, output, stdout });
    }
  });
}

/** npm by its own path when it has started this, as it need not be on PATH. */
function runNpm(args) {
  const npm = process.env.npm_execpath;
  if (npm?.endsWith("npm-cli.js")) return run(process.execPath, [npm, ...args]);
  if (process.platform === "win32") return run("cmd.exe", ["/d", "/s", "/c", `npm ${args.join(" ")}`]);
  return run("npm", args);
}

function onSignal(signal) {
  interrupted = signal;
  process.exitCode = signal === "SIGINT" ? 130 : 143;
  if (!running) process.exit();
  if (running.shield) say(`stopping as soon as ${running.command} has finished`);
  else running.child.kill(signal);
}

// ---------------------------------------------------------------- Node

/** What is wrong with this version of Node, if anything. */
export function nodeProblem(version) {
  const [major, minor] = version.replace(/^v/, "").split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return undefined;
  return `Node ${version} is too old: version 20.19 or newer is needed`;
}

// ---------------------------------------------------------------- packages

/**
 * Why `npm ci` is needed, or undefined. npm writes node_modules/.package-lock.json last, as the record of what it put
 * there: it is compared with package-lock.json, and every folder it names must be there.
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

const readJson = (path) => JSON.parse(fs.readFileSync(path, "utf8"));

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
  // Were npm killed half-way, the record of the last installation would pass for one of this.
  fs.rmSync(join(ROOT, "node_modules/.package-lock.json"), { force: true });

  // NODE_ENV=production would leave the tests' packages out.
  // Nothing here needs a package's own scripts.
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
 * Asks for an adapter in a process of its own, as a broken driver may end it.
 * `through`: "dawn" asks Dawn for any adapter, fast; "engine" goes through the engine's gpu.node, which also knows
 * SwiftShader's cache folder and says where it is.
 * Returns `{ adapter, software, folder, reason }`, `adapter` undefined and `reason` set if there is none.
 */
async function probe(through) {
  const loader = through === "engine" && IN_REPOSITORY ? ["--import", "tsx"] : [];
  const result = await run(process.execPath, [...loader, SELF, `--probe=${through}`], { timeout: 120_000 });
  try {
    // The last line: drivers may write to stdout as well. What it says stands even if the driver crashes on its way out.
    return { reason: probeReason(result), ...JSON.parse(result.stdout.trim().split("\n").pop()) };
  } catch {
    return { reason: probeReason(result) };
  }
}

/** Why a probe found nothing, in one line, out of what Dawn and the driver wrote. */
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
    globalThis.gpu = create([]); // Held: Dawn ends the process if the object is collected.
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

/** Device files of GPUs, whether or not a driver for them can be used. */
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

/** Why a software driver is used although a GPU is there, and what to do. */
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

  // Before anything software: a GPU whose driver lacks nothing but the Vulkan loader.
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

// ---------------------------------------------------------------- lavapipe, by apt-get

const hasApt = () =>
  process.platform === "linux" &&
  (process.env.PATH ?? "").split(delimiter).some((folder) => fs.existsSync(join(folder, "apt-get")));

/** The fields of /etc/os-release. */
export function parseOsRelease(text) {
  const fields = {};
  for (const [, name, , value] of text.matchAll(/^([A-Z_]+)=(["']?)(.*)\2$/gm)) fields[name] = value;
  return fields;
}

/**
 * The binary package sources in an apt source file, enabled ones only, as `{ uris, suites, components, fields }`, in
 * both of sources.list(5)'s formats. `fields` holds the options worth copying (Signed-By, Trusted, Architectures), spelled as in deb822.
 */
export function parseAptSources(text, name) {
  return name.endsWith(".sources") ? parseDeb822(text) : parseOneLine(text);
}

const COPIED_FIELDS = ["Signed-By", "Trusted", "Architectures"];

function parseDeb822(text) {
  const sources = [];
  const lines = text.split("\n").filter((line) => !line.startsWith("#"));
  for (const stanza of lines.join("\n").split(/\n\s*\n/)) {
    const fields = {};
    let last;
    for (const line of stanza.split("\n")) {
      const field = /^([\w-]+):\s*(.*)$/.exec(line);
      if (field) {
        last = field[1].toLowerCase();
        fields[last] = field[2].trimEnd();
      } else if (last && /^\s/.test(line)) {
        fields[last] += "\n" + line; // A continued line, such as a key written out in Signed-By.
      }
    }
    const words = (field) => (fields[field] ?? "").split(/\s+/).filter(Boolean);
    if (!words("types").includes("deb") || /^(no|false|off|0|without|disable)$/i.test(fields.enabled ?? "")) continue;
    const copied = COPIED_FIELDS.filter((field) => fields[field.toLowerCase()] !== undefined);
    sources.push({
      uris: words("uris"),
      suites: words("suites"),
      components: words("components"),
      fields: Object.fromEntries(copied.map((field) => [field, fields[field.toLowerCase()]])),
    });
  }
  return sources;
}

function parseOneLine(text) {
  const sources = [];
  for (const line of text.split("\n")) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (!match) continue;
    const [, optionText = "", uri, suite, components] = match;
    const options = Object.fromEntries(optionText.split(/\s+/).map((option) => option.split(/=(.*)/s)));
    const fields = {};
    if (options["signed-by"]) fields["Signed-By"] = options["signed-by"].replaceAll(",", " ");
    if (options.trusted) fields.Trusted = options.trusted;
    if (options.arch) fields.Architectures = options.arch.replaceAll(",", " ");
    sources.push({ uris: [uri], suites: [suite], components: components.split(/\s+/).filter(Boolean), fields });
  }
  return sources;
}

/**
 * How to get a lavapipe that Dawn accepts: `{ packages, release, addSource }`. Debian 12's own Mesa 22.3 is refused
 * ("shaderUniform*ArrayDynamicIndexing required"), its backports have a newer one; `addSource` is the text of a source file
 * for them, from the archive in use, if there is none yet. Later Debians and Ubuntu have a new enough Mesa.
 */
export function lavapipePlan(osRelease, sources) {
  const packages = ["mesa-vulkan-drivers", "libvulkan1"];
  if (osRelease.VERSION_CODENAME !== "bookworm" || osRelease.ID !== "debian") return { packages };
  const release = "bookworm-backports";
  const has = (suite) => sources.find((source) => source.suites.includes(suite) && source.components.includes("main"));
  if (has(release)) return { packages, release };
  const base = has("bookworm");
  if (!base) throw new SetupError("apt's source files name no archive of Debian 12");
  const fields = Object.entries(base.fields).map(([name, value]) => `${name}: ${value}\n`);
  const addSource = `Types: deb\nURIs: ${base.uris[0]}\nSuites: ${release}\nComponents: main\n${fields.join("")}`;
  return { packages, release, addSource };
}

function readAptSources(etc = "/etc/apt") {
  const folder = join(etc, "sources.list.d");
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => /\.(list|sources)$/.test(name)) : [];
  const paths = [join(etc, "sources.list"), ...names.sort().map((name) => join(folder, name))].filter(fs.existsSync);
  return paths.flatMap((path) => parseAptSources(fs.readFileSync(path, "utf8"), path));
}

function currentLavapipePlan() {
  return lavapipePlan(parseOsRelease(fs.readFileSync("/etc/os-release", "utf8")), readAptSources());
}

async function installLavapipe() {
  const plan = currentLavapipePlan();
  const from = plan.release ? ` from ${plan.release}` : "";
  say(`installing Mesa's lavapipe, a software driver${from} (apt-get) …`);
  if (!plan.addSource) return aptInstall(plan);

  const added = "/etc/apt/sources.list.d/bookworm-backports.sources";
  say(`adding ${added}: the archive already in use, suite ${plan.release}`);
  try {
    fs.writeFileSync(added, plan.addSource, { flag: "wx" });
  } catch (error) {
    throw new SetupError(`it cannot be written (${error.code})`); // Never over a file of the user's.
  }
  try {
    await aptInstall(plan);
  } catch (error) {
    fs.rmSync(added, { force: true }); // It would make every later apt-get update fail.
    throw error;
  }
}

async function aptInstall({ packages, release }) {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const wait = ["-o", "DPkg::Lock::Timeout=120"];
  // A source that cannot be reached fails the update, but need not be one that matters: the installation decides.
  const update = await run("apt-get", [...wait, "update"], { env });
  const target = release ? ["-t", release] : [];
  const args = [...wait, "install", "-y", "--no-install-recommends", ...target, ...packages];
  const install = await run("apt-get", args, { env, shield: true });
  if (install.code !== 0) throw new SetupError(aptFailure(update.output + install.output));
}

/** apt's first complaint, in one line. */
export function aptFailure(output) {
  const line = output.split("\n").find((text) => text.startsWith("E: ") || text.startsWith("Err:"));
  return `apt-get failed (${(line ?? "no error message").replace(/^E: /, "").trim()})`;
}

// ---------------------------------------------------------------- SwiftShader, without root

const CAN_RUN_SWIFTSHADER = process.platform === "linux" && process.arch === "x64";

/** The regular files of a tar archive, `[{ name, data }]`; throws on a damaged one. */
export function untar(archive) {
  const files = [];
  let offset = 0;
  while (offset + 512 <= archive.length) {
    const header = archive.subarray(offset, offset + 512);
    if (header[0] === 0) return files; // A zero block ends the archive.
    const text = (from, to) => header.toString("latin1", from, to).replace(/\0.*$/s, "");
    const number = (from, to) => Number.parseInt(text(from, to).trim(), 8);
    // The checksum counts its own eight bytes as spaces.
    const sum = header.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 32 : byte), 0);
    const size = number(124, 136);
    const start = offset + 512;
    if (sum !== number(148, 156)) throw new Error(`damaged tar header at byte ${offset}`);
    const type = text(156, 157);
    if (type === "0" || type === "") files.push({ name: text(0, 100), data: archive.subarray(start, start + size) });
    offset = start + Math.ceil(size / 512) * 512;
  }
  throw new Error("the tar archive ends too early");
}

/** The npm package that has SwiftShader, as package-lock.json has it. */
export const SWIFTSHADER = {
  package: "@sparticuz/chromium@147.0.0",
  integrity: "sha512-4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ==",
};

/** swiftshader.tar.br: of a package that `npm ci` has installed, else out of one that is downloaded for it. */
async function swiftShaderArchive() {
  const file = "bin/swiftshader.tar.br";
  if (IN_REPOSITORY) return fs.readFileSync(join(ROOT, "node_modules/@sparticuz/chromium", file));
  say(`downloading SwiftShader, a software driver (npm pack ${SWIFTSHADER.package}, 66 MB) …`);
  const folder = fs.mkdtempSync(join(tmpdir(), "instructblip-setup-"));
  try {
    const result = await runNpm(["pack", SWIFTSHADER.package, "--ignore-scripts", "--pack-destination", folder]);
    const [name] = fs.readdirSync(folder).filter((entry) => entry.endsWith(".tgz"));
    if (result.code !== 0 || name === undefined) {
      process.stderr.write(result.output.trimEnd() + "\n");
      throw new SetupError("npm pack failed, its output is above: check the network and npm's settings");
    }
    const tarball = fs.readFileSync(join(folder, name));
    if (`sha512-${createHash("sha512").update(tarball).digest("base64")}` !== SWIFTSHADER.integrity) {
      throw new SetupError(`${SWIFTSHADER.package}: what was downloaded has another checksum than it must have`);
    }
    return untar(gunzipSync(tarball)).find((entry) => entry.name === `package/${file}`).data;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Unpacks SwiftShader and its Vulkan loader into `folder`, which appears whole or not at all; an older one is replaced. In
 * it a copy of Dawn, with SwiftShader beside it under the loader's name, where Dawn looks first: see src/tensor/device/gpu.node.ts.
 * `archive`: the bytes of a brotli-compressed tar.
 */
export function unpackSwiftShader(archive, folder) {
  const needed = ["libvk_swiftshader.so", "libvulkan.so.1"];
  const files = untar(brotliDecompressSync(archive));
  let temporary;
  try {
    fs.mkdirSync(dirname(folder), { recursive: true });
    temporary = fs.mkdtempSync(`${folder}.`);
    fs.chmodSync(temporary, 0o755);
    for (const name of needed) {
      const file = files.find((entry) => entry.name === name);
      if (!file) throw new SetupError(`SwiftShader's archive lacks ${name}`);
      fs.writeFileSync(join(temporary, name), file.data);
    }
    // A path with a slash is relative to this file.
    const ICD = { library_path: `./${needed[0]}`, api_version: "1.0.5" };
    const manifest = JSON.stringify({ file_format_version: "1.0.0", ICD });
    fs.writeFileSync(join(temporary, "vk_swiftshader_icd.json"), manifest);
    const webgpu = createRequire(import.meta.url).resolve("webgpu/package.json");
    const dawn = join(temporary, `dawn-${readJson(webgpu).version}`);
    fs.mkdirSync(dawn);
    const binary = join(dirname(webgpu), `dist/${process.platform}-${process.arch}/dawn.node`);
    fs.copyFileSync(binary, join(dawn, "dawn.node"));
    fs.symlinkSync(`../${needed[0]}`, join(dawn, needed[1]));
    fs.rmSync(folder, { recursive: true, force: true });
    fs.renameSync(temporary, folder);
  } catch (error) {
    if (temporary) fs.rmSync(temporary, { recursive: true, force: true });
    if (!error.code) throw error;
    throw new SetupError(
      `SwiftShader cannot be unpacked: ${error.message}\n    remedy: name a folder that can be written in INSTRUCTBLIP_CACHE`,
    );
  }
}

// ---------------------------------------------------------------- main

/** Says what `main` would do; whether anything is missing. */
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
