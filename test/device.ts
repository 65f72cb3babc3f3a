/** The device the tests of one file share, and small ways to use it. */
import { type Device, type DeviceOptions, openDevice } from "../src/tensor/device.ts";
import { create, globals } from "webgpu";
import { setAdapterProvider } from "../src/tensor/gpu.ts";

Object.assign(globalThis, globals);
const gpu = create([]);
setAdapterProvider(() => gpu.requestAdapter());

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
