/// <reference types="@webgpu/types" preserve="true" />
/// <reference lib="dom" preserve="true" />
// Kept in the package's types: a program in whose tsconfig neither is named compiles as well.
/**
 * The source of adapters: the browser's `navigator.gpu`, or the provider that a platform file (`gpu.node.ts`) has
 * registered.
 */
import { DeviceError } from "../errors.ts";
import type { TunedPlan } from "./variants.ts";

// WebGPU's flags by their numbers: in Node their namespaces are not globals, and a library must not make them so.
export const BUFFER_USAGE = {
  MAP_READ: 0x1,
  COPY_SRC: 0x4,
  COPY_DST: 0x8,
  UNIFORM: 0x40,
  STORAGE: 0x80,
  QUERY_RESOLVE: 0x200,
} as const;
export const MAP_READ = 0x1;
export const COMPUTE_STAGE = 0x4;

/**
 * Returns the adapter to use, or null if the machine has none. Each call returns a new one: a device consumes its adapter.
 */
export type AdapterProvider = () => Promise<GPUAdapter | null>;

let provider: AdapterProvider | undefined;

/** Registers where adapters come from. The last registration wins. */
export function setAdapterProvider(next: AdapterProvider): void {
  provider = next;
}

/** Returns the tuned plan of an adapter, if there is one and INSTRUCTBLIP_PLAN asks for it. */
export type TunedPlanProvider = (info: GPUAdapterInfo) => TunedPlan | undefined;

let tunedPlans: TunedPlanProvider = () => undefined;

/** Registers where tuned plans come from; a browser has none. The last registration wins. */
export function setTunedPlanProvider(next: TunedPlanProvider): void {
  tunedPlans = next;
}

/** The tuned plan of an adapter, which overrides the rules of plan.ts. Throws what the provider throws. */
export function tunedPlanOf(info: GPUAdapterInfo): TunedPlan | undefined {
  return tunedPlans(info);
}

/** The best adapter. Throws NO_WEBGPU or NO_ADAPTER with a hint. */
export async function requestAdapter(): Promise<GPUAdapter> {
  if (!provider && !globalThis.navigator?.gpu) {
    throw new DeviceError("NO_WEBGPU", "this program has no WebGPU", {
      hint: "in a browser use one with WebGPU over https or localhost; in Node import the package's Node entry",
    });
  }
  const adapter = provider
    ? await provider()
    : await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new DeviceError("NO_ADAPTER", "no WebGPU adapter: Vulkan, Metal or Direct3D 12 found no driver", {
      hint: provider
        ? "`npx instructblip-webgpu setup` finds or installs one (on Linux without a GPU: Mesa's lavapipe); in the repository: npm run setup"
        : "update the graphics driver, or see the browser's own report, chrome://gpu or about:support",
    });
  }
  return adapter;
}
