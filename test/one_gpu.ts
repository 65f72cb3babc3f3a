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
    let lose!: (info: GPUDeviceLostInfo) => void;
    const own = {
      lost: new Promise<GPUDeviceLostInfo>((resolve) => {
        lose = resolve;
      }),
      createBuffer: (descriptor: GPUBufferDescriptor) => {
        const buffer = device.createBuffer(descriptor);
        buffers.add(new WeakRef(buffer));
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

/** `object` with some of its members replaced. A native method must be called on the native object. */
function over<T extends object>(object: T, members: Partial<T>): T {
  return new Proxy(object, {
    get(_, name) {
      if (name in members) return members[name as keyof T];
      const value: unknown = Reflect.get(object, name);
      return typeof value === "function" ? value.bind(object) : value;
    },
  });
}

const devices = new Map<string, SharedDevice>();
const gpu = createGPU();
let sharing = false;

setAdapterProvider(async () => {
  const adapter = await requestBestAdapter(gpu);
  if (!adapter || !sharing) return adapter;
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
  sharing = !ALL;
  try {
    return await run();
  } finally {
    sharing = false;
  }
}
