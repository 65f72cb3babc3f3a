/** The device that the tests of a process share, and a way to open others. */
import type { Device } from "../src/tensor/device/device.ts";
import { type DeviceOptions, openDevice } from "../src/tensor/device/open_device.ts";
import { onOneGpu } from "./one_gpu.ts";

let shared: Promise<Device> | undefined;

/** The shared device: opened once per process. Its `destroy` throws: tests of other files use it after this one's. */
export function testDevice(): Promise<Device> {
  shared ??= onOneGpu(() => openDevice()).then((device) => {
    device.destroy = () => {
      throw new Error("other tests use this device; open one with otherDevice()");
    };
    return device;
  });
  return shared;
}

/** A device with options of its own, for which nothing need be compiled that was for another; the test destroys it. */
export function otherDevice(options: DeviceOptions): Promise<Device> {
  return onOneGpu(() => openDevice(options));
}

/** The driver's own device, for tests of what the driver is asked, and of its faults; the test destroys it. */
export function driverDevice(options: DeviceOptions): Promise<Device> {
  return openDevice(options);
}
