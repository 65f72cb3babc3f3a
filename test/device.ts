/** The device the tests of one file share, and a way to open others. */
import type { Device } from "../src/tensor/device/device.ts";
import { type DeviceOptions, openDevice } from "../src/tensor/device/open_device.ts";
import "../src/tensor/device/adapter.node.ts";

let shared: Promise<Device> | undefined;

/** The shared device: opened once per test file. */
export function testDevice(): Promise<Device> {
  shared ??= openDevice();
  return shared;
}

/** A device with options of its own; the test destroys it. */
export function otherDevice(options: DeviceOptions): Promise<Device> {
  return openDevice(options);
}
