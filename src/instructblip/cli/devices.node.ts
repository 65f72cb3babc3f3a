/** `devices`: the WebGPU adapters of this machine, their limits and features, and the one that a model would use. */

import { isSoftwareAdapter, SUBGROUP_MATRIX } from "../../tensor/device/caps.ts";
import { createGPU, requestBestAdapter } from "../../tensor/device/gpu.node.ts";
import { formatBytes } from "../../tensor/device/memory.ts";
import { EngineError } from "../../tensor/errors.ts";
import { EXIT, formatTable } from "./format.ts";
import { say, type Terminal } from "./terminal.node.ts";

/** The output of `devices --json`. */
export interface Devices {
  readonly adapters: readonly AdapterReport[];
  /** The name of the adapter in use; null if there is none. */
  readonly used: string | null;
  readonly why: string;
}

export interface AdapterReport {
  readonly name: string;
  readonly vendor: string;
  readonly architecture: string;
  readonly software: boolean;
  readonly features: readonly string[];
  /** The limits that determine memory layout and kernels; bytes and counts. */
  readonly limits: Readonly<Record<(typeof LIMITS)[number], number>>;
  readonly used: boolean;
}

const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBuffersPerShaderStage",
] as const;
/** Optional features that this program uses. */
const FEATURES = ["shader-f16", "subgroups", SUBGROUP_MATRIX, "timestamp-query"] as const;

/** @returns the exit code; that of a refusal if there is no adapter */
export async function runDevices({ json }: { json?: boolean }, terminal: Terminal): Promise<number> {
  const devices = await listDevices();
  if (json) await terminal.out(`${JSON.stringify(devices)}\n`);
  else if (devices.used === null) say(terminal, `error: no WebGPU adapter: ${devices.why}`);
  else await terminal.out(formatDevices(devices));
  return devices.used === null ? EXIT.refused : EXIT.ok;
}

async function listDevices(): Promise<Devices> {
  const best = await requestBestAdapter(createGPU());
  if (!best) {
    const why =
      "no driver was found (Vulkan, Metal or Direct3D 12); `npx instructblip-webgpu setup` finds or installs one";
    return { adapters: [], used: null, why };
  }
  const used = report(best, true);
  const reports: [AdapterReport, ...AdapterReport[]] = [used];
  for (const name of await adapterNames()) {
    const adapter = await requestBestAdapter(createGPU({ adapter: name }));
    if (!adapter) continue;
    const other = report(adapter, false);
    if (!reports.some(({ name, vendor }) => name === other.name && vendor === other.vendor)) reports.push(other);
  }
  return { adapters: reports, used: used.name, why: reason(reports) };
}

/** Dawn lists its adapters only if a missing one is requested. */
async function adapterNames(): Promise<string[]> {
  try {
    await requestBestAdapter(createGPU({ adapter: "no adapter has this name" }));
    return [];
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    return String(error.cause).match(/(?<=name: ').*(?='$)/gm) ?? [];
  }
}

function report({ info, features, limits }: GPUAdapter, used: boolean): AdapterReport {
  return {
    name: info.description || info.device || info.vendor || "unknown adapter",
    vendor: info.vendor,
    architecture: info.architecture,
    software: isSoftwareAdapter(info),
    features: [...features].sort(),
    limits: Object.fromEntries(LIMITS.map((name) => [name, Number(limits[name])])) as AdapterReport["limits"],
    used,
  };
}

type Software = Pick<AdapterReport, "software">;

/** Why the first of `reports` is the one in use. */
export function reason([used, ...others]: readonly [Software, ...Software[]]): string {
  if (used.software) return "it computes on the CPU: no GPU was found";
  if (others.length === 0) return "it is the only one";
  return others.every((other) => other.software) ? "it is the only GPU" : "of several GPUs it is the most powerful";
}

/** The text output. */
export function formatDevices({ adapters, why }: Pick<Devices, "adapters" | "why">): string {
  return adapters.map((adapter) => formatAdapter(adapter, why)).join("\n");
}

function formatAdapter(
  { name, vendor, architecture, software, features, limits, used }: AdapterReport,
  why: string,
): string {
  const has = (feature: string) => (features.includes(feature) ? "yes" : "no");
  return (
    `${name}${used ? `\n  used: ${why}` : "\n  not used"}\n` +
    formatTable([
      ["  kind", software ? "software: computes on the CPU" : "hardware"],
      ["  vendor, architecture", [vendor, architecture].filter(Boolean).join(", ") || "unknown"],
      ...FEATURES.map((feature) => [`  ${feature}`, has(feature)]),
      ["  largest buffer", formatBytes(limits.maxBufferSize)],
      ["  largest binding", `${formatBytes(limits.maxStorageBufferBindingSize)} (larger weights are split)`],
      ["  workgroup memory", formatBytes(limits.maxComputeWorkgroupStorageSize)],
      ["  workgroup invocations", String(limits.maxComputeInvocationsPerWorkgroup)],
    ])
  );
}
