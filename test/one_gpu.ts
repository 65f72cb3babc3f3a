/**
 * One device of the driver's behind many that a test opens: what was compiled for one is compiled for the next. A command
 * line run in this process compiles 26 pipelines, which is half of its time.
 */
import "../src/tensor/device/adapter.node.ts";
import { createGPU, requestBestAdapter } from "../src/tensor/device/gpu.node.ts";
import { setAdapterProvider } from "../src/tensor/device/gpu.ts";
import { ALL } from "./rounds.ts";

/** A device of the driver's, by the descriptor it was requested with, and what was compiled for it. */
class SharedDevice {
  readonly #device: GPUDevice;
  readonly #modules = new Map<string, GPUShaderModule>();
  readonly #codes = new WeakMap<GPUShaderModule, string>();
  readonly #pipelines = new Map<string, GPUComputePipeline>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A device of its own to whoever opens it: `destroy` frees its buffers and loses it, and the shared one stays. */
  open(): GPUDevice {
    const device = this.#device;
    const buffers = new Set<WeakRef<GPUBuffer>>();
    const collected = new FinalizationRegistry<WeakRef<GPUBuffer>>((buffer) => buffers.delete(buffer));
    let lose!: (info: GPUDeviceLostInfo) => void;
    const own = {
      lost: new Promise<GPUDeviceLostInfo>((resolve) => {
        lose = resolve;
      }),
      createBuffer: (descriptor: GPUBufferDescriptor) => {
        const buffer = device.createBuffer(descriptor);
        const reference = new WeakRef(buffer);
        buffers.add(reference);
        collected.register(buffer, reference);
        return buffer;
      },
      createShaderModule: (descriptor: GPUShaderModuleDescriptor) => this.#module(descriptor),
      createComputePipeline: (descriptor: GPUComputePipelineDescriptor) => {
        const key = this.#key(descriptor);
        const compiled = this.#pipelines.get(key) ?? device.createComputePipeline(descriptor);
        this.#pipelines.set(key, compiled);
        return compiled;
      },
      createComputePipelineAsync: async (descriptor: GPUComputePipelineDescriptor) => {
        const key = this.#key(descriptor);
        const compiled = this.#pipelines.get(key) ?? (await device.createComputePipelineAsync(descriptor));
        this.#pipelines.set(key, compiled);
        return compiled;
      },
      destroy: () => {
        for (const buffer of buffers) buffer.deref()?.destroy();
        lose({ reason: "destroyed", message: "" } as GPUDeviceLostInfo);
        return undefined;
      },
    };
    return over(device, own);
  }

  #module(descriptor: GPUShaderModuleDescriptor): GPUShaderModule {
    const known = this.#modules.get(descriptor.code);
    if (known) return known;
    const module = this.#device.createShaderModule(descriptor);
    this.#modules.set(descriptor.code, module);
    this.#codes.set(module, descriptor.code);
    return module;
  }

  #key({ compute }: GPUComputePipelineDescriptor): string {
    return JSON.stringify([this.#codes.get(compute.module), compute.constants]);
  }
}

/** A stand-in for `object` with some members replaced. A native method or property must be read on the native object. */
function over<T extends object>(object: T, members: Partial<T>): T {
  const stand = {} as T;
  for (let level: object = object; level !== Object.prototype; level = Object.getPrototypeOf(level)) {
    for (const name of Object.getOwnPropertyNames(level) as (keyof T)[]) {
      if (Object.hasOwn(stand, name) || name === "constructor") continue;
      const value = object[name];
      const shown = typeof value === "function" ? (value.bind(object) as T[keyof T]) : value;
      Object.defineProperty(stand, name, { value: shown, writable: true, configurable: true, enumerable: true });
    }
  }
  return Object.assign(stand, members);
}

const devices = new Map<string, SharedDevice>();
const gpu = createGPU();
/** Calls of `onOneGpu` under way. */
let sharing = 0;

setAdapterProvider(async () => {
  const adapter = await requestBestAdapter(gpu);
  if (!adapter || sharing === 0) return adapter;
  return over(adapter, {
    requestDevice: async (descriptor) => {
      const key = JSON.stringify([adapter.info.device, descriptor]);
      const shared = devices.get(key) ?? new SharedDevice(await adapter.requestDevice(descriptor));
      devices.set(key, shared);
      return shared.open();
    },
  });
});

/** Runs `run`, in which all devices share one of the driver's; in `npm run test:all` each is the driver's. */
export async function onOneGpu<T>(run: () => Promise<T>): Promise<T> {
  if (ALL) return run();
  sharing++;
  try {
    return await run();
  } finally {
    sharing--;
  }
}
