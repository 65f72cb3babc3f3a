/**
 * WebGPU for Node, from Dawn: the only file in src that imports `webgpu`. It makes the GPU object, keeps it alive, picks
 * the adapter (hardware before software) and, where the machine has no driver at all, loads the SwiftShader that
 * scripts/setup.mjs unpacked. It opens no device and knows no limits or errors scopes: that is device.ts.
 *
 * Nothing of the process is touched: no file descriptor, environment variable or global. Dawn's warnings of a driver's
 * limits ("maxDynamicUniformBuffersPerPipelineLayout artificially reduced …", two per driver) are therefore seen: it
 * prints them with a bare fprintf(stderr), which no toggle or variable turns off.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir, constants as osConstants } from "node:os";
import { isAbsolute, join } from "node:path";
import { create } from "webgpu";
import { env } from "../env.ts";
import { DeviceError } from "../errors.ts";

export interface GPUOptions {
  /** Dawn's back end. Default: the platform's own (Vulkan, Metal, D3D12). `null` validates WGSL but computes garbage. */
  backend?: "vulkan" | "metal" | "d3d12" | "null";
  /** Part of an adapter's name, as Dawn spells it (`llvmpipe`, `NVIDIA`); others are not considered. */
  adapter?: string;
  /** Dawn's toggles to switch on, such as `allow_unsafe_apis`. Default: INSTRUCTBLIP_DAWN_TOGGLES. */
  toggles?: string[];
}

/** How each GPU was made, and a strong reference to it: Dawn ends the process if the object is collected while in use. */
const held = new Map<GPU, GPUOptions>();

/** A new GPU object, held for the life of the process. */
export function createGPU(options: GPUOptions = {}): GPU {
  return makeGPU(create, options);
}

function makeGPU(make: typeof create, options: GPUOptions): GPU {
  const flags: string[] = [];
  if (options.backend) flags.push(`backend=${options.backend}`);
  if (options.adapter) flags.push(`adapter=${options.adapter}`);
  const toggles = options.toggles?.join(",") ?? env("INSTRUCTBLIP_DAWN_TOGGLES");
  if (toggles) flags.push(`enable-dawn-features=${toggles}`);
  const gpu = make(flags);
  held.set(gpu, options);
  return gpu;
}

/**
 * The best adapter to be had: a discrete GPU, else any other hardware, else a software driver, else SwiftShader from
 * the cache; null when there is none. The last belongs to another GPU object than `gpu`, held as well.
 *
 * @throws DeviceError `NO_ADAPTER` when the name asked for in `createGPU` matches none; the message lists those there are.
 */
export async function requestBestAdapter(gpu: GPU): Promise<GPUAdapter | null> {
  const options = held.get(gpu) ?? {};
  const adapter = await requestPreferringHardware(gpu, options);
  if (adapter !== null || options.adapter || options.backend === "null") return adapter;
  return requestFromCache(gpu, options);
}

/**
 * The folder for what is made once on a machine; it need not exist.
 * `$INSTRUCTBLIP_CACHE`, else `$XDG_CACHE_HOME/instructblip-webgpu`, else `~/.cache/instructblip-webgpu`.
 */
export function machineFolder(env: NodeJS.ProcessEnv = process.env, home: string = homedir()): string {
  // The XDG specification says to ignore a relative path.
  const xdg = env.XDG_CACHE_HOME && isAbsolute(env.XDG_CACHE_HOME) ? env.XDG_CACHE_HOME : join(home, ".cache");
  return env.INSTRUCTBLIP_CACHE || join(xdg, "instructblip-webgpu");
}

/** The folder scripts/setup.mjs unpacks SwiftShader into, for machines without a Vulkan driver; it need not exist. */
export function swiftShaderFolder(env?: NodeJS.ProcessEnv, home?: string): string {
  return join(machineFolder(env, home), "swiftshader-147.0.0");
}

async function requestPreferringHardware(gpu: GPU, options: GPUOptions): Promise<GPUAdapter | null> {
  // Without a preference Dawn keeps the driver's order, in which llvmpipe may come before a real GPU. With one it ranks
  // discrete, integrated, CPU, unknown: a virtual GPU is "unknown", so a CPU is checked against the driver's order,
  // where the Vulkan loader puts virtual GPUs before CPUs. The second request finds everything enumerated: < 1 ms.
  // isFallbackAdapter is Dawn's word for an adapter that runs on the CPU (llvmpipe, SwiftShader, WARP).
  try {
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (adapter === null || !adapter.info.isFallbackAdapter) return adapter;
    const first = await gpu.requestAdapter();
    return first !== null && !first.info.isFallbackAdapter ? first : adapter;
  } catch (cause) {
    if (!options.adapter) throw new DeviceError("NO_ADAPTER", "the driver could not be asked for adapters", { cause });
    const listed = [...String(cause).matchAll(/name: '(.*)'$/gm)].map((match) => match[1]).join(", ");
    const message = `no adapter has "${options.adapter}" in its name; there are: ${listed || "none"}`;
    throw new DeviceError("NO_ADAPTER", message, { cause });
  }
}

/** The GPU objects made for `gpu` where it found no adapter: once each, as they are held. */
const stands = new WeakMap<GPU, Partial<Record<"loader" | "swiftShader", GPU>>>();

/**
 * An adapter by way of SwiftShader's cache folder, null if it is not there: a real driver that only lacked a loader, else
 * SwiftShader itself.
 */
async function requestFromCache(gpu: GPU, options: GPUOptions): Promise<GPUAdapter | null> {
  const folder = swiftShaderFolder();
  if (process.platform !== "linux" || !existsSync(folder)) return null;
  const made = stands.get(gpu) ?? {};
  stands.set(gpu, made);

  // Dawn opens the loader by its bare name, and finds it without LD_LIBRARY_PATH if it is loaded already.
  load(join(folder, "libvulkan.so.1"), STAYS_LOADED);
  made.loader ??= createGPU(options);
  const adapter = await requestPreferringHardware(made.loader, options);
  if (adapter !== null) return adapter;

  // Dawn looks beside itself first: a copy of it that has SwiftShader as its neighbour, under the loader's name, needs
  // no word to the loader, which only listens to variables of the whole process.
  made.swiftShader ??= dawnBesideSwiftShader(folder, options);
  return made.swiftShader ? requestPreferringHardware(made.swiftShader, options) : null;
}

/** Where scripts/setup.mjs puts a copy of the Dawn that is installed, in SwiftShader's folder. */
export function dawnFolder(folder: string): string {
  const { version } = createRequire(import.meta.url)("webgpu/package.json") as { version: string };
  return join(folder, `dawn-${version}`);
}

function dawnBesideSwiftShader(folder: string, options: GPUOptions): GPU | undefined {
  const path = join(dawnFolder(folder), "dawn.node");
  if (!existsSync(path)) return undefined;
  const dawn = load(path) as { create?: typeof create };
  return dawn.create && makeGPU(dawn.create, options);
}

const STAYS_LOADED = 0x1000; // RTLD_NODELETE

/** Loads a library of the system's kind. @returns what it exports to Node, if it does */
function load(path: string, flags = 0): object {
  const module = { exports: {} };
  try {
    process.dlopen(module, path, osConstants.dlopen.RTLD_NOW | flags);
  } catch {} // always for a Vulkan loader, which is no add-on of Node's
  return module.exports;
}
