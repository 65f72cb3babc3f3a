/** Adapters in a browser: without a registered provider, from `navigator.gpu`. */
import { afterEach, expect, test, vi } from "vitest";
import { capsOf } from "../../../src/tensor/device/caps.ts";
import { requestAdapter } from "../../../src/tensor/device/gpu.ts";
import { openDevice } from "../../../src/tensor/device/open_device.ts";

afterEach(() => vi.unstubAllGlobals());

test("without WebGPU or without an adapter it says what to do in a browser", async () => {
  vi.stubGlobal("navigator", {});
  await expect(requestAdapter()).rejects.toMatchObject({ code: "NO_WEBGPU", hint: expect.stringMatching(/localhost/) });
  vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => null } });
  const rejected = { code: "NO_ADAPTER", hint: expect.stringMatching(/^update the graphics driver.*chrome:\/\/gpu/) };
  await expect(requestAdapter()).rejects.toMatchObject(rejected);
});

test("an adapter is called what it says of itself, in a browser vendor and architecture", () => {
  const nameOf = (info: Partial<GPUAdapterInfo>) => {
    const all = { vendor: "", architecture: "", device: "", description: "", ...info } as GPUAdapterInfo;
    return capsOf(all, new Set() as unknown as GPUSupportedFeatures, {} as GPUSupportedLimits).description;
  };
  expect(nameOf({ vendor: "apple", architecture: "metal-3" })).toBe("apple metal-3");
  expect(nameOf({ vendor: "nvidia", architecture: "ampere", device: "RTX 3090" })).toBe("RTX 3090");
  expect(nameOf({ vendor: "intel", device: "0x9a49", description: "Iris Xe" })).toBe("Iris Xe");
  expect(nameOf({ vendor: "arm" })).toBe("arm");
  expect(nameOf({})).toBe("unknown adapter");
});

test("a driver that does not answer is not waited for; a device that comes too late is given back", async () => {
  const hangs = { code: "GPU_TIMEOUT", message: expect.stringMatching(/no answer for 0.02 s/) };
  vi.stubGlobal("navigator", { gpu: { requestAdapter: () => new Promise(() => {}) } });
  await expect(openDevice({ timeout: 0.02 })).rejects.toMatchObject(hangs);
  let give = (_: unknown) => {};
  const requestDevice = () => new Promise((resolve) => (give = resolve));
  const adapter = { info: {}, limits: {}, features: new Set(), requestDevice } as unknown as GPUAdapter;
  await expect(openDevice({ adapter, timeout: 0.02 })).rejects.toMatchObject(hangs);
  const destroyed = new Promise<void>((resolve) => give({ destroy: resolve }));
  await destroyed;
});
