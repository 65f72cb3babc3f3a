/**
 * Dawn polls the driver by setImmediate, thousands of times for one answer, and takes a core from the software driver that it
 * waits for: it is made to wait 0.2 ms between two polls. Tests run so, and the processes that they start to compute.
 */
const PAUSE_MS = 0.2;
const { setImmediate } = globalThis;
const isNative = (f) => Function.prototype.toString.call(f).endsWith("{ [native code] }");

// Several times in a process: before each test file.
if (setImmediate.name !== "patient") {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const patient = (callback, ...args) =>
    setImmediate(() => {
      if (isNative(callback)) Atomics.wait(cell, 0, 0, PAUSE_MS);
      callback(...args);
    });
  globalThis.setImmediate = Object.assign(patient, { __promisify__: setImmediate.__promisify__ });
}
