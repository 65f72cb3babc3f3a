/** Opening a device: options, environment variables, and the limits and features to request. */
import { optionsOf, refuseUnknown } from "../arguments.ts";
import { env, envSeconds, parseBytes } from "../env.ts";
import { DeviceError, InputError } from "../errors.ts";
import { shown } from "../shown.ts";
import type { Device } from "../tensor.ts";
import { capsOf, SUBGROUP_MATRIX, SUBGROUP_SIZE_CONTROL } from "./caps.ts";
import { GpuDevice } from "./device.ts";
import { requestAdapter, tunedPlanOf } from "./gpu.ts";

export interface DeviceOptions {
  /** Bytes all buffers together may take. Default: INSTRUCTBLIP_MEMORY_BUDGET, else unlimited. */
  memory_budget?: number;
  /** Bytes one binding may span; larger weights are split. Default: INSTRUCTBLIP_MAX_BINDING, else the adapter's limit. */
  max_binding?: number;
  /** Request WebGPU's default limits instead of the adapter's. Default: INSTRUCTBLIP_DEFAULT_LIMITS. */
  default_limits?: boolean;
  /** An adapter to use instead of the best one. A device consumes it. */
  adapter?: GPUAdapter;
  /**
   * Seconds that one wait for the GPU may last; it then rejects with GPU_TIMEOUT. Default: INSTRUCTBLIP_GPU_TIMEOUT, else
   * 600, and 3600 on a software adapter, which takes minutes for what a GPU does in one; 120 for the adapter and its device.
   */
  timeout?: number;
}

const WANTED_FEATURES: readonly GPUFeatureName[] = [
  "shader-f16",
  "subgroups",
  SUBGROUP_SIZE_CONTROL,
  SUBGROUP_MATRIX,
  "timestamp-query",
];
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupStorageSize",
] as const;

/** Opens the best adapter (see gpu.ts) as a Device. Throws NO_WEBGPU, NO_ADAPTER, NO_DEVICE, GPU_OOM, PLAN_FILE; UNKNOWN_OPTION. */
export async function openDevice(given?: DeviceOptions, ...more: never[]): Promise<Device> {
  const options = deviceOptions([given, ...more]);
  const timeout = options.timeout ?? envSeconds("INSTRUCTBLIP_GPU_TIMEOUT");
  const adapter = options.adapter ?? (await inTime("requestAdapter", requestAdapter(), timeout));
  const tuned = tunedPlanOf(adapter.info);
  const byDefault = options.default_limits ?? env("INSTRUCTBLIP_DEFAULT_LIMITS") === "1";
  const requiredLimits: Record<string, number> = {};
  if (!byDefault) for (const name of WANTED_LIMITS) requiredLimits[name] = Number(adapter.limits[name]);
  const requiredFeatures = WANTED_FEATURES.filter((feature) => adapter.features.has(feature));
  const bytes = (given: number | undefined, name: "INSTRUCTBLIP_MEMORY_BUDGET" | "INSTRUCTBLIP_MAX_BINDING") =>
    given ?? (env(name) === undefined ? undefined : parseBytes(name, env(name)!));
  const maxBinding = bytes(options.max_binding, "INSTRUCTBLIP_MAX_BINDING") ?? Number.POSITIVE_INFINITY;
  const budget = bytes(options.memory_budget, "INSTRUCTBLIP_MEMORY_BUDGET") ?? Number.POSITIVE_INFINITY;
  const requested = adapter.requestDevice({ requiredLimits, requiredFeatures }).catch((cause: unknown) => {
    throw new DeviceError("NO_DEVICE", "the adapter gave no device", { cause });
  });
  const handle = await inTime("requestDevice", requested, timeout, (late) => late.destroy());
  try {
    const found = capsOf(adapter.info, handle.features, handle.limits);
    const maxBindingBytes = Math.min(found.maxBindingBytes, found.maxBufferBytes, maxBinding);
    const caps = { ...found, tuned, maxBindingBytes };
    const device = new GpuDevice(handle, caps, budget, timeout);
    await device.ready();
    return device;
  } catch (error) {
    handle.destroy();
    throw error;
  }
}

/** Timeout, in seconds, of requesting an adapter or a device. */
const OPENING_S = 120;

/**
 * Waits for a promise of the driver, with a timeout.
 *
 * @param tooLate called with the value of a promise that settles after the timeout
 * @throws DeviceError GPU_TIMEOUT
 */
function inTime<T>(what: string, promise: Promise<T>, seconds = OPENING_S, tooLate?: (value: T) => void): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let isOver = false;
    const timer = setTimeout(
      () => {
        isOver = true;
        const hint = "the graphics driver hangs: restart it, or raise INSTRUCTBLIP_GPU_TIMEOUT (seconds)";
        reject(new DeviceError("GPU_TIMEOUT", `${what}: no answer for ${seconds} s`, { hint }));
      },
      Math.min(seconds * 1000, 2 ** 31 - 1),
    );
    promise.then((value) => (isOver ? tooLate?.(value) : resolve(value)), reject).finally(() => clearTimeout(timer));
  });
}

const OPTIONS = [
  "memory_budget",
  "max_binding",
  "default_limits",
  "adapter",
  "timeout",
] satisfies (keyof DeviceOptions)[];

/** @throws InputError ARGUMENTS, UNKNOWN_OPTION, PARAM_RANGE */
function deviceOptions(given: readonly unknown[]): DeviceOptions {
  const options = optionsOf("openDevice", given, 1);
  refuseUnknown("openDevice", options, OPTIONS);
  const must = (name: keyof DeviceOptions, holds: (value: unknown) => boolean, what: string) => {
    const value = options[name] ?? undefined;
    if (value === undefined || holds(value)) return;
    throw new InputError("PARAM_RANGE", `${name} must be ${what}, got ${shown(value)}`);
  };
  const above0 = (value: unknown) => typeof value === "number" && value > 0;
  must("memory_budget", above0, "a number of bytes");
  must("max_binding", above0, "a number of bytes");
  must("timeout", above0, "above 0 (seconds)");
  must("default_limits", (value) => typeof value === "boolean", "true or false");
  must("adapter", (value) => typeof (value as GPUAdapter | null)?.requestDevice === "function", "a GPUAdapter");
  return options;
}
