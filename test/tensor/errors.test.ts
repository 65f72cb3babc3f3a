/** Error classes; other tests check where they are thrown. */
import { expect, test } from "vitest";
import * as errors from "../../src/tensor/errors.ts";

test("errors have their classes' names, in text that no bundler shortens", () => {
  const classes = Object.entries(errors).filter(([name]) => name.endsWith("Error"));
  expect(classes.length).toBeGreaterThan(6);
  for (const [name, Class] of classes) {
    // The stand-in has another name than the class, as the class has in a minified page.
    const a = class extends (Class as typeof errors.EngineError) {};
    const error = new a("CODE", "message");
    expect(error.name).toBe(name);
    expect(`${error}`).toBe(`${name}: message`.replace("message", error.message));
    expect(error).toBeInstanceOf(errors.EngineError);
  }
});

test("a hint stands on a line of its own, and by itself", () => {
  const error = new errors.InputError("CODE", "what is wrong", { hint: "what to do" });
  expect([error.message, error.hint, error.code]).toEqual([
    "what is wrong\n    hint: what to do",
    "what to do",
    "CODE",
  ]);
});

test.each([
  ["max_tokens", "max_new_tokens"], // with a word left out
  ["maxTokens", "max_new_tokens"],
  ["beams", "num_beams"],
  ["max_new_token", "max_new_tokens"], // with a letter
  ["top-k", "top_k"],
  ["new_tokens", undefined], // of two
  ["tokens", undefined], // of too little
  ["", undefined],
  ["streaming", undefined],
])("%s means %s", (name, meant) => {
  const names = ["max_new_tokens", "min_new_tokens", "num_beams", "top_k", "suppress_tokens", "seed"];
  expect(errors.nearest(name, names)).toBe(meant);
});
