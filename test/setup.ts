/**
 * Set-up of every test file. vitest's toEqual takes 3 µs for each element of a typed array, a second for a matrix of 48 by
 * 6144; the same bytes are equal in a thousandth of that. Other values are compared by vitest.
 */
import { afterAll, expect, vi } from "vitest";
import "./patient.mjs";
import { removeTemporaryFolders } from "./temporary.ts";

expect.addEqualityTesters([
  (a: unknown, b: unknown) => {
    if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || a.constructor !== b.constructor) return undefined;
    const bytes = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    return bytes(a).equals(bytes(b)) || undefined;
  },
]);

/** The next file in this process finds the environment as this one did. */
const environment = process.env;
const before = { ...environment };
afterAll(() => {
  // vitest unstubs the object that it found first: in another, a variable of one test is left to all that follow.
  if (process.env !== environment) throw new Error("a test replaced process.env; use vi.stubEnv");
  removeTemporaryFolders();
  vi.unstubAllEnvs();
  vi.unstubAllGlobals();
  for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
  Object.assign(process.env, before);
});
