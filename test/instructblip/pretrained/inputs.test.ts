/** Checks of model inputs, one by one: the errors name the input, the requirement and the given value. */
import { expect, test } from "vitest";
import {
  expectIds,
  expectPixelShape,
  expectPixels,
  expectPlaceholders,
  expectRectangle,
  expectWords,
  maskOf,
  refusePlaceholders,
} from "../../../src/instructblip/pretrained/inputs.ts";

const IMAGE = ["B", "3", "H", "W"];
const pixels = (shape: readonly number[], fill = 0) => ({
  data: new Float32Array(shape.reduce((size, n) => size * n, 1)).fill(fill),
  shape,
});
const refusal = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

test("rows are a rectangle of at least one token, of ids below the vocabulary", () => {
  expect(expectRectangle("input_ids", [[1, 2], [3, 4]])).toBe(2); // biome-ignore format: a table
  for (const rows of [undefined, [], [1], "12"]) {
    expect(() => expectRectangle("input_ids", rows as never)).toThrow(
      refusal("BAD_INPUT", /input_ids must be a list of/),
    );
  }
  expect(() => expectRectangle("input_ids", [[]])).toThrow(refusal("BAD_INPUT", /at least one token/));
  expect(() => expectRectangle("input_ids", [[1], [1, 2]])).toThrow(refusal("RAGGED", /rows have .*1.*2.* tokens/));
  expect(() => expectIds("input_ids", [[0, 9]], 10)).not.toThrow();
  for (const id of [10, -1, 0.5, Number.NaN, "1"]) {
    expect(() => expectIds("input_ids", [[0, id as number]], 10)).toThrow(refusal("TOKEN_ID", /below 10/));
  }
});

test("a mask has a 0 or 1 for every token; without one every token counts", () => {
  const rows = [[5, 6, 7], [8, 9, 5]]; // biome-ignore format: a table
  expect(maskOf("attention_mask", undefined, rows)).toEqual([[1, 1, 1], [1, 1, 1]]); // biome-ignore format: a table
  const mask = [[0, 1, 1], [1, 1, 1]]; // biome-ignore format: a table
  expect(maskOf("attention_mask", mask, rows)).toBe(mask);
  for (const bad of [
    [[0, 1, 1]],
    [
      [0, 1, 1],
      [1, 1],
    ],
    [
      [0, 1, 2],
      [1, 1, 1],
    ],
    [
      [true, 1, 1],
      [1, 1, 1],
    ],
    null,
  ]) {
    expect(() => maskOf("attention_mask", bad as never, rows)).toThrow(refusal("BAD_MASK", /^attention_mask/));
  }
});

test("pixels have their layout's dimensions, as many numbers as these say, all of them finite, a row a prompt", () => {
  expect(() => expectPixels(pixels([2, 3, 4, 5]), IMAGE, 2)).not.toThrow();
  expect(() => expectPixels(pixels([2, 8, 3, 4, 5]), ["B", "F", "3", "H", "W"], 2)).not.toThrow();
  for (const shape of [
    [3, 4, 5],
    [1, 3, 4, 5, 1],
    [1, 4, 4, 5],
    [0, 3, 4, 5],
    [1, 3, 4, 0.5],
  ]) {
    const given = { data: new Float32Array(60), shape };
    expect(() => expectPixelShape(given, IMAGE)).toThrow(refusal("BAD_PIXELS", /\[B, 3, H, W\], got/));
  }
  expect(() => expectPixelShape(undefined, IMAGE)).toThrow(refusal("BAD_PIXELS", /got none/));
  const short = { data: new Float32Array(59), shape: [1, 3, 4, 5] };
  expect(() => expectPixelShape(short, IMAGE)).toThrow(refusal("BAD_PIXELS", /59 numbers for shape \[1, 3, 4, 5\]/));
  const doubles = { data: new Float64Array(60) as never, shape: [1, 3, 4, 5] };
  expect(() => expectPixelShape(doubles, IMAGE)).toThrow(refusal("BAD_PIXELS", /a Float32Array/));
  for (const fill of [Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => expectPixels(pixels([1, 3, 4, 5], fill), IMAGE, 1)).toThrow(
      refusal("BAD_PIXELS", /NaN or an infinity/),
    );
  }
  expect(() => expectPixels(pixels([1, 3, 4, 5]), IMAGE, 2)).toThrow(
    refusal("BATCH_MISMATCH", /1 images for 2 prompts/),
  );
  for (const [rows, given] of [
    [[[1]], /2 rows, qformer_input_ids 1/],
    [undefined, /none/],
  ] as const) {
    const words = { qformer_input_ids: rows as never };
    expect(() => expectWords(words, {} as never, 2)).toThrow(refusal("BATCH_MISMATCH", given));
  }
});

test("every row has its placeholders, and the prompt of a legacy checkpoint does not begin with any", () => {
  expect(() => expectPlaceholders([[7, 7, 1], [1, 7, 7]], 7, 2, "image")).not.toThrow(); // biome-ignore format: a table
  const message = /row 1 has 1 video tokens \(id 7\); it must have 2/;
  expect(() => expectPlaceholders([[7, 7], [1, 7]], 7, 2, "video")).toThrow(refusal("IMAGE_TOKENS", message)); // biome-ignore format: a table
  const all = (rows: number[][]) => rows.map((row) => row.map(() => 1));
  const refuse =
    (rows: number[][], mask = all(rows), count = 3) =>
    () =>
      refusePlaceholders(rows, mask, count);
  expect(refuse([[5, 5, 6, 5], [5, 5]])).not.toThrow(); // biome-ignore format: a table
  expect(refuse([[0, 0, 0, 5]], [[0, 0, 0, 1]])).not.toThrow(); // padding
  expect(refuse([[5, 6]], undefined, 1)).not.toThrow(); // one token begins every text
  expect(refuse([[1, 2, 3], [5, 5, 5]])).toThrow(refusal("IMAGE_TOKENS", /row 1 begins with 3 times 5/)); // biome-ignore format: a table
});
