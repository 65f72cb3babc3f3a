/**
 * Set-up of every test file. vitest's toEqual takes 3 µs for each element of a typed array, a second for a matrix of 48 by
 * 6144; the same bytes are equal in a thousandth of that. Other values are compared by vitest.
 */
import { expect } from "vitest";

expect.addEqualityTesters([
  (a: unknown, b: unknown) => {
    if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || a.constructor !== b.constructor) return undefined;
    const bytes = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    return bytes(a).equals(bytes(b)) || undefined;
  },
]);
