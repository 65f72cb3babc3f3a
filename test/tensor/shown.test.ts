/** Untrusted values in messages: bounded, without control characters, and never a second error. */
import { expect, test } from "vitest";
import { InputError, nearest } from "../../src/tensor/errors.ts";
import { escaped, quote, shown } from "../../src/tensor/shown.ts";

const nested = (depth: number): unknown => {
  let value: unknown = [];
  for (let i = 0; i < depth; i++) value = i % 2 ? [value] : { a: value };
  return value;
};
const cyclic: unknown[] = [];
cyclic.push(cyclic);

test.each<[string, unknown, string]>([
  ["small JSON as JSON writes it", { a: [1, "b", null, true] }, '{"a":[1,"b",null,true]}'],
  ["numbers that JSON has not", [Number.NaN, Number.POSITIVE_INFINITY], "[NaN,Infinity]"],
  ["nothing", undefined, "undefined"],
  ["a bigint, which JSON.stringify throws at", 10n, "10"],
  ["a huge bigint", 1n << 100_000n, "a bigint"],
  ["functions and symbols", [() => 1, Symbol("x")], "[a function,a symbol]"],
  ["what is deeper than the stack", nested(50_000), '[{"a":[{…}]}]'],
  ["a cycle", cyclic, "[[[[…]]]]"],
  ["a long list", new Array(1e6).fill(7), "[7,7,7,7,7,7,7,7,…]"],
  ["a sparse list of any length", new Array(2 ** 32 - 1), `[${"undefined,".repeat(8)}…]`],
  ["typed arrays by size", new Float32Array(1e6), "Float32Array of 4000000 bytes"],
  ["an object whose toString and toJSON are data", { toString: 1, toJSON: 2 }, '{"toString":1,"toJSON":2}'],
  ["an object without a prototype", Object.assign(Object.create(null), { a: 1 }), '{"a":1}'],
  [
    "a getter that throws",
    {
      get a() {
        throw new Error("no");
      },
    },
    "an object",
  ],
  ["what a terminal obeys", "a\x1b[2J\x9b\u202eb\n\u2028", '"a\\u001b[2J\\u{9b}\\u{202e}b\\n\\u{2028}"'],
])("shows %s", (_, value, text) => {
  expect(shown(value)).toBe(text);
});

test.each([
  ["a\x1b[31mb\x07\tc\n\x9b2Jé", "a\\u{1b}[31mb\\u{7}\tc\n\\u{9b}2Jé"],
  [
    "\u061c\u200e\u200f\u2028\u2029\u202e\u2066\ufeff",
    "\\u{61c}\\u{200e}\\u{200f}\\u{2028}\\u{2029}\\u{202e}\\u{2066}\\u{feff}",
  ],
  ["שלום 👩\u200d🚀", "שלום 👩\u200d🚀"],
])("text of any length is escaped where a terminal would obey it, %j", (text, expected) => {
  expect(escaped(text)).toBe(expected);
});

test("cuts long text, never inside a character", () => {
  expect(quote("😀".repeat(100))).toBe(`"${"😀".repeat(39)}…"`);
  expect(shown(new Array(8).fill("x".repeat(1000))).length).toBe(200);
});

test("an error's message and hint are bounded and escaped whatever they are made of", () => {
  const error = new InputError("CODE", `${"a".repeat(1e6)}`, { hint: `\u202e${"b".repeat(1e6)}` });
  expect(error.message.length).toBeLessThan(3100);
  expect(new InputError("CODE", "a\nerror: b\n    c").message).toBe("a\n    error: b\n    c");
  expect(error.hint).toMatch(/^\\u\{202e\}b+…$/);
});

test("suggestions are not searched for where that takes the square of a megabyte", () => {
  expect(nearest("x".repeat(1e6), ["x".repeat(1e6 - 1)])).toBeUndefined();
  expect(nearest("num_beems", ["top_k", "num_beams"])).toBe("num_beams");
});
