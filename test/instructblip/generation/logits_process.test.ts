/** Processors and warpers against Hugging Face's, each alone and in 200 combinations, on random scores. */
import { describe, expect, test } from "vitest";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import {
  logitsProcessors,
  noRepeatNgram,
  prefixConstrained,
} from "../../../src/instructblip/generation/logits_process.ts";
import { rowsOf } from "../../../src/instructblip/generation/output.ts";
import { floats, GOLDENS, MARKED, optionsOf, type ProcessorCase, V } from "./golden.ts";

/** f32 sums in another order, in the few processors that change a score by a softmax; the others are exact. */
const SCORE = 2e-6;
/** SynthID multiplies by 1 - mass in every round: where mass is nearly 1, the last bit of its sum counts for so much. */
const TOURNAMENT = 5e-5;

function process({ kwargs, prompt_length: promptLength, rows, scores }: ProcessorCase): Float32Array {
  const setting = { promptLength, vocabulary: V, eos_token_id: 2, pad_token_id: 0 };
  const data = floats(scores);
  for (const processor of logitsProcessors(decodingConfig(optionsOf(kwargs), setting))) {
    processor(rows, rowsOf(data, rows.length));
  }
  return data;
}

function wrongScores(one: ProcessorCase): string[] {
  const ours = process(one);
  const { watermarking_config } = one.kwargs;
  const most = watermarking_config && "keys" in watermarking_config ? TOURNAMENT : SCORE;
  return [...floats(one.after)].flatMap((theirs, i) => {
    const near = Object.is(ours[i], theirs) || Math.abs(ours[i] - theirs) <= most * Math.max(1, Math.abs(theirs));
    return near ? [] : [`${JSON.stringify(one.kwargs)} at ${i}: ${ours[i]} is not ${theirs}`];
  });
}

describe("goldens", () => {
  const names = [...new Set(GOLDENS.processors.slice(0, 42).flatMap(({ kwargs }) => Object.keys(kwargs)))];
  const plain = new Set(["num_beams", "do_sample", "max_length"]);
  test.each(names.filter((name) => !plain.has(name)))("%s", (name) => {
    const cases = GOLDENS.processors.slice(0, 42).filter(({ kwargs }) => Object.keys(kwargs).includes(name));
    const acting = name === "top_k" ? cases.filter(({ kwargs }) => kwargs.top_k) : cases;
    expect(acting.length).toBeGreaterThanOrEqual(2); // for one beam and for two
    expect(acting.flatMap(wrongScores)).toEqual([]);
  });

  test("200 combinations", () => {
    const cases = GOLDENS.processors.slice(42);
    expect(cases).toHaveLength(200);
    expect(cases.flatMap(wrongScores)).toEqual([]);
  });

  test("watermarks and a caller's own, each alone and among others", () => {
    expect(MARKED.processors.length).toBeGreaterThan(70);
    expect(MARKED.processors.flatMap(wrongScores)).toEqual([]);
    const changing = MARKED.processors.filter(({ scores, after }) => scores !== after);
    expect(changing.length).toBeGreaterThan(70);
  });

  test("most of them change what they are given", () => {
    const changing = GOLDENS.processors.filter(({ scores, after }) => scores !== after);
    expect(changing.length).toBeGreaterThan(220);
  });
});

describe("repetition_penalty", () => {
  test("passes over ids that the head does not have", () => {
    const scores = Float32Array.of(2, -2, 1);
    const config = decodingConfig(
      { repetition_penalty: 2 },
      { promptLength: 1, vocabulary: 3, eos_token_id: null, pad_token_id: null },
    );
    for (const processor of logitsProcessors(config)) processor([[0, 1, 3, 32001, -1]], [scores]);
    expect([...scores]).toEqual([1, -4, 1]);
  });
});

describe("no_repeat_ngram_size", () => {
  test.each([
    [2, [5, 5], [5]], // the pair overlaps itself
    [1, [5, 6], [5, 6]],
    [3, [5, 6], []],
    [2, [5, 6, 5, 7, 5], [6, 7]],
    [2, [5, 32001, 5], []],
  ])("%i after %j forbids %j", (n, ids, forbidden) => {
    const scores = new Float32Array(9).fill(1);
    noRepeatNgram(n)([ids], [scores]);
    expect([...scores.keys()].filter((id) => scores[id] !== 1)).toEqual(forbidden);
  });
});

describe("prefix_allowed_tokens_fn", () => {
  const none = Number.NEGATIVE_INFINITY;
  test("leaves what it allows, by prompt", () => {
    const scores = [Float32Array.of(1, 2, 3), Float32Array.of(4, 5, 6)];
    prefixConstrained((batch) => [batch, 2], 1)([[7], [8]], scores);
    expect(scores.map((row) => [...row])).toEqual([
      [1, none, 3],
      [none, 5, 6],
    ]);
  });

  test("gives score 0 when no beam of the prompt has an allowed token left", () => {
    const left = [Float32Array.of(none, 2), Float32Array.of(1, none)];
    prefixConstrained(() => [0], 2)([[7], [8]], left);
    expect(left.map((row) => [...row])).toEqual([
      [none, none],
      [1, none],
    ]);
    const hopeless = [Float32Array.of(none, 2), Float32Array.of(none, 3)];
    prefixConstrained(() => [0], 2)([[7], [8]], hopeless);
    expect(hopeless.map((row) => [...row])).toEqual([
      [0, none],
      [0, none],
    ]);
  });
});
