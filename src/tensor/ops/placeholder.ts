/** A placeholder for an optional tensor that the caller does not give. The kernel's params say that it is not to be read. */
import type { Device, Tensor } from "../tensor.ts";

const zeros = new WeakMap<Device, Tensor<"u32">>();

/** u32[1] holding 0 (which is also f32's 0), made once per device. */
export function placeholder(device: Device): Tensor<"u32"> {
  let zero = zeros.get(device);
  if (!zero || device.memory.isRefused(zero.storage)) {
    zero?.dispose();
    zero = device.persistent([1], "u32", "placeholder");
    zeros.set(device, zero);
  }
  return zero;
}
