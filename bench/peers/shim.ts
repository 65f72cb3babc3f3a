/** What engines made for browsers need to run in Node: `navigator.gpu`, from the same Dawn and the same adapter as ours. */
import { globals } from "webgpu";
import { createGPU, requestBestAdapter } from "../../src/tensor/device/gpu.node.ts";

/** The first error of a device since the last time it was asked for; those that follow usually come of it. */
let firstError: string | undefined;

/** @throws Error if the engine has done something that WebGPU does not allow, as its results are then of no use */
export function throwDeviceError(): void {
  const message = firstError;
  firstError = undefined;
  if (message) throw new Error(message.split("\n")[0]);
}

/** Puts WebGPU where browsers have it; gives the adapter that will be used. */
export async function becomeBrowser(): Promise<GPUAdapter> {
  Object.assign(globalThis, globals); // GPUBufferUsage and the like, which jax-js takes for given
  const gpu = createGPU();
  // Every request gives the adapter that our engine would choose; another is not compared.
  const requestAdapter = async () => {
    const adapter = await requestBestAdapter(gpu);
    if (!adapter) return null;
    const requestDevice = adapter.requestDevice.bind(adapter);
    return Object.assign(adapter, {
      async requestDevice(descriptor?: GPUDeviceDescriptor) {
        const device = await requestDevice(descriptor);
        device.addEventListener("uncapturederror", ({ error }) => {
          firstError ??= error.message;
        });
        return device;
      },
    });
  };
  const browserGpu = Object.assign(Object.create(gpu) as GPU, {
    requestAdapter,
    getPreferredCanvasFormat: () => "rgba8unorm" as const,
  });
  const navigator = { gpu: browserGpu, userAgent: "node" };
  Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
  const adapter = await requestAdapter();
  if (!adapter) throw new Error("no WebGPU adapter");
  return adapter;
}

/** Iterators have `map` and `filter` from Node 22 on; jax-js uses them. */
export function addIteratorHelpers(): void {
  const iterator = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())) as Record<string, unknown>;
  iterator.map ??= function* <T, U>(this: Iterable<T>, f: (value: T) => U): Generator<U> {
    for (const value of this) yield f(value);
  };
  iterator.filter ??= function* <T>(this: Iterable<T>, f: (value: T) => boolean): Generator<T> {
    for (const value of this) if (f(value)) yield value;
  };
}
