/**
 * The real Device and memory accounting over a fake GPU that records buffers without allocating them. Enough to construct a
 * model of any size; methods that need a real GPU are missing, and throw.
 */
import { globals } from "webgpu";
import type { Caps } from "../../src/tensor/device/caps.ts";
import { type Device, GpuDevice } from "../../src/tensor/device/device.ts";

export interface LedgerDevice {
  readonly device: Device;
  /** Sizes in bytes of the buffers that tensors lie in now. */
  sizes(): number[];
}

export function openLedgerDevice(maxBindingBytes: number): LedgerDevice {
  for (const [name, value] of Object.entries(globals)) {
    if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value });
  }
  const buffers = new Map<GPUBuffer, number>();
  const handle: Pick<
    GPUDevice,
    | "createBuffer"
    | "createBindGroupLayout"
    | "createBindGroup"
    | "pushErrorScope"
    | "popErrorScope"
    | "addEventListener"
    | "lost"
    | "destroy"
  > & { queue: Pick<GPUQueue, "writeBuffer"> } = {
    createBuffer({ size, label }) {
      const buffer = { size, label, destroy: () => void buffers.delete(buffer) } as GPUBuffer;
      if (label !== "params") buffers.set(buffer, size); // the device's own, not a tensor's
      return buffer;
    },
    createBindGroupLayout: () => ({}) as GPUBindGroupLayout,
    createBindGroup: () => ({}) as GPUBindGroup,
    pushErrorScope: () => undefined,
    popErrorScope: async () => null,
    addEventListener() {},
    lost: new Promise(() => {}),
    destroy: () => undefined,
    queue: { writeBuffer: () => undefined }, // LLaMA writes its rotary table on construction
  };
  const caps: Caps = {
    vendor: "",
    architecture: "",
    description: "ledger",
    isSoftware: true,
    subgroups: false,
    subgroupMinSize: 4,
    subgroupMaxSize: 128,
    subgroupSizeControl: false,
    subgroupMatrices: [],
    f16: false,
    timestamps: false,
    maxBindingBytes,
    maxBufferBytes: 2 * maxBindingBytes,
    maxInvocations: 256,
    maxWorkgroupStorageBytes: 16384,
    maxWorkgroupsPerDimension: 65535,
  };
  const device = new GpuDevice(handle as unknown as GPUDevice, caps, Number.POSITIVE_INFINITY);
  return { device, sizes: () => [...buffers.values()] };
}
