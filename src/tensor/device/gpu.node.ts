/**
 * WebGPU for Node, from Dawn: the only file in src that imports `webgpu`. It makes the GPU object, keeps it alive, picks the
 * adapter (hardware before software) and, where the machine has no driver at all, loads the SwiftShader that
 * scripts/setup.mjs unpacked. It opens no device and knows no limits or error scopes; see open_device.ts and driver.ts.
 *
 * It changes no state of the process: no file descriptor, environment variable or global. Dawn's warnings about a driver's
 * limits ("maxDynamicUniformBuffersPerPipelineLayout artificially reduced …", two per driver) are therefore visible: Dawn
 * prints them with fprintf(stderr), and no toggle or variable turns that off.
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
  // Timestamps as the GPU gives them, not in steps of 65 µs, by which browsers keep pages from telling machines apart.
  const flags: string[] = ["disable-dawn-features=timestamp_quantization"];
  if (options.backend) flags.push(`backend=${options.backend}`);
  if (options.adapter) flags.push(`adapter=${options.adapter}`);
  const toggles = options.toggles?.join(",") ?? env("INSTRUCTBLIP_DAWN_TOGGLES");
  if (toggles) flags.push(`enable-dawn-features=${toggles}`);
  const gpu = make(flags);
  held.set(gpu, options);
  return gpu;
}

/**
 * The best adapter: a discrete GPU, else any other hardware, else a software driver, else SwiftShader from the cache; null
 * if there is none. The last belongs to another GPU object than `gpu`, which is kept alive as well.
 *
 * @throws DeviceError `NO_ADAPTER` when the name asked for in `createGPU` matches none; the message lists the adapters
 *   found.
 */
export async function requestBestAdapter(gpu: GPU): Promise<GPUAdapter | null> {
  const options = held.get(gpu) ?? {};
  const adapter = await requestPreferringHardware(gpu, options);
  if (adapter !== null || options.adapter || options.backend === "null") return adapter;
  return requestFromCache(gpu, options);
}

/**
 * The cache folder of this machine; it need not exist. `$INSTRUCTBLIP_CACHE`, else `$XDG_CACHE_HOME/instructblip-webgpu`,
 * else `~/.cache/instructblip-webgpu`.
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
    if (!options.adapter) throw new DeviceError("NO_ADAPTER", "requesting adapters from the driver failed", { cause });
    const listed = [...String(cause).matchAll(/name: '(.*)'$/gm)].map((match) => match[1]).join(", ");
    const message = `no adapter has "${options.adapter}" in its name; there are: ${listed || "none"}`;
    throw new DeviceError("NO_ADAPTER", message, { cause });
  }
}

/** GPU objects created for `gpu` where it found no adapter: one for each, as they are kept alive. */
const stands = new WeakMap<GPU, Partial<Record<"loader" | "swiftShader", GPU>>>();

/**
 * An adapter found with SwiftShader's cache folder, null if there is no such folder: a real driver that only lacked a Vulkan
 * loader, else SwiftShader itself.
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

  // Dawn looks beside itself first: a copy of it beside SwiftShader, under the loader's name, needs no setting of the loader,
  // which would be an environment variable of the whole process.
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
