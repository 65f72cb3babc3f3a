import { expect, test } from "vitest";

test("typed arrays are equal as vitest has it: by type, length and every number", () => {
  const numbers = Float32Array.of(1, Number.NaN, -0);
  expect(numbers.slice()).toEqual(numbers);
  expect({ deep: [numbers.slice()] }).toEqual({ deep: [numbers] });
  expect(numbers.subarray(1)).toEqual(Float32Array.of(Number.NaN, -0)); // a view that begins elsewhere
  expect(Float32Array.of(1, Number.NaN, 0)).not.toEqual(numbers);
  expect(Float32Array.of(1, 2, -0)).not.toEqual(numbers);
  expect(numbers.slice(0, 2)).not.toEqual(numbers);
  expect(new Uint8Array(4)).not.toEqual(new Float32Array(1));
  expect(new Uint32Array(1)).not.toEqual(new Float32Array(1));
  expect(Buffer.from([1])).toEqual(Buffer.from([1]));
});
