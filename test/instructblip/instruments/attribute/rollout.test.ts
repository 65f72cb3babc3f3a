/** Attention rollout where its result is known by hand; with PyTorch's attentions it is compared in attribute.test.ts. */
import { expect, test } from "vitest";
import type { Matrix } from "../../../../src/instructblip/instruments/attention.ts";
import { crossAttention, rollout } from "../../../../src/instructblip/instruments/attribute/rollout.ts";

const matrix = (...rows: readonly (readonly number[])[]): Matrix => ({
  rows: rows.length,
  columns: rows[0]!.length,
  data: Float64Array.from(rows.flat()),
});

// A class token and one patch; one query and one word; an image token, a word, and the answer's only token is chosen from it.
const attentions = {
  vision: [[matrix([1, 0], [1, 0])]],
  qformer: [[matrix([0, 1], [0, 1])]],
  qformer_cross: [[matrix([0.2, 0.8])]],
  cross_attention_frequency: 2,
  language: [matrix([1, 0], [0.6, 0.4])],
};

test("every layer is half itself and half what it attends to", () => {
  // Patch: half class token. Query: half query, half word, then half of that and half of 0.2 class + 0.8 patch.
  // Last token: 0.3 image token, 0.2 + 0.5 itself.
  const [shares] = rollout(attentions, 2, 1, [0]);
  expect(shares!.patches[0]).toBeCloseTo(0.3 * 0.5 * 0.8 * 0.5, 7);
  expect(shares!.class_token).toBeCloseTo(0.3 * 0.5 * (0.2 + 0.4), 12);
  expect(shares!.queries).toBeCloseTo(0.3 * 0.25, 12);
  expect(shares!.instruction[0]).toBeCloseTo(0.3 * 0.25, 7);
  expect([...shares!.prompt].map((x) => x.toFixed(6))).toEqual(["0.000000", "0.700000"]);
  expect(shares!.answer).toBeCloseTo(0, 12);
});

test("cross-attention is that of the queries attended to", () => {
  const [shares] = crossAttention(attentions, 1, [0]);
  expect(shares!.class_token).toBeCloseTo(0.2, 12);
  expect(shares!.patches[0]).toBeCloseTo(0.8, 7);
});

test("what nothing attends to has no weight, and no NaN", () => {
  const blind = { ...attentions, language: [matrix([1, 0], [0, 1])] };
  expect(crossAttention(blind, 1, [0])[0]).toEqual({ patches: Float32Array.of(0), class_token: 0 });
  expect(rollout(blind, 2, 1, [0])[0]!.prompt[1]).toBe(1);
});
