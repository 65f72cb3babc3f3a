/** Sampling from the best k scores alone draws the same as from all of them, ties included. */
import { expect, test } from "vitest";
import { topIndices } from "../../../src/instructblip/generation/arithmetic.ts";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import type { Decoder, Logits, Tokens } from "../../../src/instructblip/generation/decoder.ts";
import { search } from "../../../src/instructblip/generation/search.ts";
import { Random } from "../../random.ts";

const V = 12;

/** The same scores at every step, of one row, and how often the best of them alone were asked for. */
function decoderOf(scores: Float32Array): {
  whole: Decoder;
  short: Decoder;
  asked: () => [lists: number, wholes: number];
} {
  let [lists, wholes] = [0, 0];
  const logits: Logits = {
    read: async () => {
      wholes++;
      return scores.slice();
    },
  };
  const tokens = (ids: readonly number[]): Tokens => ({ read: async () => Uint32Array.from(ids), dispose() {} });
  const whole: Decoder = {
    prefill: () => logits,
    step: () => logits,
    upload: tokens,
    argmax: () => ({ tokens: tokens([0]), read: async () => ({ ids: Uint32Array.of(0), undecided: [] }) }),
    scope: (fn) => fn(),
  };
  const short: Decoder = {
    ...whole,
    topK: async (_, sums, beams, K) => {
      lists++;
      expect([...sums, beams]).toEqual([0, 1]);
      const best = topIndices(scores, K);
      return { scores: Float32Array.from(best, (i) => scores[i]), indices: Uint32Array.from(best) };
    },
  };
  return { whole, short, asked: () => [lists, wholes] };
}

const draw = async (decoder: Decoder, options: object) => {
  const bounds = { promptLength: 1, vocabulary: V, max_position_embeddings: 512, eos_token_id: [], pad_token_id: null };
  const config = decodingConfig({ do_sample: true, max_new_tokens: 40, ...options }, {
    ...bounds,
    cacheBytesPerToken: 1,
  } as unknown as Parameters<typeof decodingConfig>[1]);
  return (await search(decoder, [[0]], config)).sequences[0];
};

test.each([
  { top_k: 4 },
  { top_k: 3, temperature: 0.5, top_p: 0.8 },
  { top_k: 6, typical_p: 0.7, min_p: 0.02 },
  { top_k: V },
  { top_k: V + 5, epsilon_cutoff: 0.05 },
])("%o: the same draws, and no whole row is read", async (options) => {
  for (const seed of [1, 2, 3]) {
    const { whole, short, asked } = decoderOf(new Random(seed).normal(V, 0, 2));
    expect(await draw(short, { ...options, seed })).toEqual(await draw(whole, { ...options, seed }));
    expect(asked()).toEqual([40, 40]); // 40 lists for the one, 40 whole rows for the other
  }
});

test("where the k-th best is not alone, all of its equals stay, so the whole row is read", async () => {
  const scores = new Float32Array(V).fill(1, 3, 8);
  const { whole, short, asked } = decoderOf(scores);
  const drawn = await draw(short, { top_k: 2, seed: 5 });
  expect(drawn).toEqual(await draw(whole, { top_k: 2, seed: 5 }));
  expect(new Set(drawn.slice(1))).toEqual(new Set([3, 4, 5, 6, 7]));
  expect(asked()).toEqual([40, 80]);
});

test("scores that only the temperature makes equal are equal", async () => {
  const scores = new Float32Array(V).fill(-50);
  scores.set([2 - 2 ** -23, 2 - 2 ** -22], 4); // neighbours, of which 1.9 makes one number
  expect(scores[4] === scores[5]).toBe(false);
  expect(Math.fround(scores[4] / Math.fround(1.9))).toBe(Math.fround(scores[5] / Math.fround(1.9)));
  const { whole, short, asked } = decoderOf(scores);
  const options = { top_k: 1, temperature: 1.9, seed: 9 };
  const drawn = await draw(short, options);
  expect(drawn).toEqual(await draw(whole, options));
  expect(new Set(drawn.slice(1))).toEqual(new Set([4, 5]));
  expect(asked()).toEqual([40, 80]);
});

test("what has been forbidden outright is no tie", async () => {
  const scores = new Float32Array(V).fill(Number.NEGATIVE_INFINITY);
  scores.set([2, 1], 7);
  const { short, asked } = decoderOf(scores);
  expect(new Set((await draw(short, { top_k: 5, seed: 3 })).slice(1))).toEqual(new Set([7, 8]));
  expect(asked()).toEqual([40, 0]);
});
