/**
 * Set-up of every test file. vitest's toEqual takes 3 µs for each element of a typed array, a second for a matrix of 48 by
 * 6144; the same bytes are equal in a thousandth of that. Other values are compared by vitest.
 */
import { afterAll, expect, vi } from "vitest";

expect.addEqualityTesters([
  (a: unknown, b: unknown) => {
    if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || a.constructor !== b.constructor) return undefined;
    const bytes = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    return bytes(a).equals(bytes(b)) || undefined;
  },
]);

/** The next file in this process finds the environment as this one did. */
const before = { ...process.env };
afterAll(() => {
  vi.unstubAllEnvs();
  vi.unstubAllGlobals();
  for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
  Object.assign(process.env, before);
});

/**
 * Dawn polls the driver by setImmediate, thousands of times for one answer, and takes a core from the software driver that it
 * waits for: it is made to wait 0.2 ms between two polls.
 */
const PAUSE_MS = 0.2;
const { setImmediate } = globalThis;
const isNative = (f: unknown) => Function.prototype.toString.call(f).endsWith("{ [native code] }");
// This file runs before each test file, several times in a process.
if (setImmediate.name !== "patient") {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const patient = <A extends unknown[]>(callback: (...args: A) => void, ...args: A) =>
    setImmediate(() => {
      if (isNative(callback)) Atomics.wait(cell, 0, 0, PAUSE_MS);
      callback(...args);
    });
  globalThis.setImmediate = Object.assign(patient, { __promisify__: setImmediate.__promisify__ });
}
