/** A shim for browser engines in Node: `navigator.gpu`, with the same Dawn and adapter as ours. */
import { globals } from "webgpu";
import { createGPU, requestBestAdapter } from "../../src/tensor/device/gpu.node.ts";

/** The first error of a device since the last call; later ones are usually consequences. */
let firstError: string | undefined;

/** @throws Error if the engine has caused a WebGPU error, as its results are then invalid */
export function throwDeviceError(): void {
  const message = firstError;
  firstError = undefined;
  if (message) throw new Error(message.split("\n")[0]);
}

/** Installs the WebGPU globals of browsers; returns the adapter that will be used. */
export async function becomeBrowser(): Promise<GPUAdapter> {
  Object.assign(globalThis, globals); // GPUBufferUsage and other globals, which jax-js uses
  const gpu = createGPU();
  // Every request returns the adapter that our engine would choose.
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
