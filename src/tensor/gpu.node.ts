/**
 * WebGPU for Node, from Dawn: the only file in src that imports `webgpu`. It makes the GPU object, keeps it alive, picks
 * the adapter (hardware before software) and, where the machine has no driver at all, loads the SwiftShader that
 * scripts/setup.mjs unpacked. It opens no device and knows no limits or errors scopes: that is device.ts.
 */

import { closeSync, constants, existsSync, openSync, readlinkSync } from "node:fs";
import { homedir, constants as osConstants } from "node:os";
import { isAbsolute, join } from "node:path";
import { isatty } from "node:tty";
import { create, globals } from "webgpu";
import { env } from "./env.ts";
import { DeviceError } from "./errors.ts";

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

/** A new GPU object, held for the life of the process; the WebGPU globals (`GPUBufferUsage`, …) exist afterwards. */
export function createGPU(options: GPUOptions = {}): GPU {
  for (const [name, value] of Object.entries(globals)) {
    if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  const flags: string[] = [];
  if (options.backend) flags.push(`backend=${options.backend}`);
  if (options.adapter) flags.push(`adapter=${options.adapter}`);
  const toggles = options.toggles?.join(",") ?? env("INSTRUCTBLIP_DAWN_TOGGLES");
  if (toggles) flags.push(`enable-dawn-features=${toggles}`);
  const gpu = create(flags);
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
  return requestWithCachedLoader(options);
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
    const adapter = await withSilentDriver(() => gpu.requestAdapter({ powerPreference: "high-performance" }));
    if (adapter === null || !adapter.info.isFallbackAdapter) return adapter;
    const first = await gpu.requestAdapter();
    return first !== null && !first.info.isFallbackAdapter ? first : adapter;
  } catch (cause) {
    if (!options.adapter) throw cause;
    const listed = [...String(cause).matchAll(/name: '(.*)'$/gm)].map((match) => match[1]).join(", ");
    const message = `no adapter has "${options.adapter}" in its name; there are: ${listed || "none"}`;
    throw new DeviceError("NO_ADAPTER", message, { cause });
  }
}

/**
 * An adapter by way of the Vulkan loader in SwiftShader's cache folder, null if it is not there: a real driver that only
 * lacked a loader, else SwiftShader itself.
 */
async function requestWithCachedLoader(options: GPUOptions): Promise<GPUAdapter | null> {
  const folder = swiftShaderFolder();
  if (process.platform !== "linux" || !existsSync(folder)) return null;

  // Dawn opens the loader by its bare name, and finds it without LD_LIBRARY_PATH if it is loaded already. dlopen always
  // throws here, as a Vulkan loader is no Node add-on; RTLD_NODELETE (0x1000) keeps it loaded nevertheless.
  const { RTLD_NOW, RTLD_GLOBAL } = osConstants.dlopen;
  try {
    process.dlopen({ exports: {} }, join(folder, "libvulkan.so.1"), RTLD_NOW | RTLD_GLOBAL | 0x1000);
  } catch {}
  const adapter = await requestPreferringHardware(createGPU(options), options);
  if (adapter !== null) return adapter;

  // Set only while the adapter is requested, so that a child process looks for a real driver first, as this one did.
  const before = process.env.VK_DRIVER_FILES;
  process.env.VK_DRIVER_FILES = join(folder, "vk_swiftshader_icd.json");
  try {
    return await requestPreferringHardware(createGPU(options), options);
  } finally {
    if (before === undefined) delete process.env.VK_DRIVER_FILES;
    else process.env.VK_DRIVER_FILES = before;
  }
}

/**
 * Runs `call` with the process's stderr pointing at /dev/null. While it looks for adapters Dawn prints harmless warnings
 * ("maxDynamicUniformBuffersPerPipelineLayout artificially reduced …", two per driver) with a bare fprintf(stderr), which
 * no toggle or variable turns off; and it does so inside the call, before any promise, so nothing of ours is lost.
 *
 * Node cannot duplicate a file descriptor, so stderr is opened a second time through /proc, which means the same thing
 * for a terminal and a pipe only: a file would be written from its start, a socket (a Node parent's "pipe") cannot be
 * opened. There, and with VK_LOADER_DEBUG set, the warnings stay.
 */
function withSilentDriver<T>(call: () => T): T {
  if (process.platform !== "linux" || process.env.VK_LOADER_DEBUG) return call();
  const open = (path: string) => openSync(path, constants.O_WRONLY | constants.O_NOCTTY);
  let saved: number;
  try {
    if (!isatty(2) && !readlinkSync("/proc/self/fd/2").startsWith("pipe:")) return call();
    saved = open("/proc/self/fd/2");
  } catch {
    return call(); // Another user's terminal or pipe, or no /proc.
  }
  // A new descriptor gets the lowest free number: 2, unless another thread opens a file at this very moment. That file
  // then keeps the number, and stderr is gone; nothing can be done but leave the file alone.
  closeSync(2);
  const silent = open("/dev/null");
  try {
    return call();
  } finally {
    closeSync(silent);
    if (silent === 2) open(`/proc/self/fd/${saved}`);
    closeSync(saved);
  }
}
