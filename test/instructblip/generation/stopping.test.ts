/** Stopping criteria. Stop strings against Hugging Face's StopStringCriteria with its tokenizers. */
import { describe, expect, test } from "vitest";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import { stoppingCriterion, stopStrings } from "../../../src/instructblip/generation/stopping.ts";
import { Tokenizer } from "../../../src/instructblip/tokenizer/tokenizer.ts";
import { memoryFolder, tokenizerFiles } from "../processing/processor_golden.ts";
import { read } from "./golden.ts";

type StopCase = { tokenizer: string } & ({ rows: number[][] } | { strings: string[]; hits: string[] });
const CASES = read<StopCase[]>("stop_strings.json.gz");

describe.each(["llama", "t5", "opt"])("stop_strings with the tokenizer %s", (name) => {
  const cases = CASES.filter(({ tokenizer }) => tokenizer === name);
  const rows = cases.flatMap((one) => ("rows" in one ? one.rows : []));
  const wanted = cases.flatMap((one) => ("hits" in one ? [one] : []));

  test("stop where Hugging Face's do", async () => {
    const tokenizer = await Tokenizer.from_pretrained(memoryFolder(tokenizerFiles(name)));
    expect(wanted.length).toBeGreaterThan(5);
    expect(wanted.filter(({ hits }) => hits.join().includes("1")).length).toBeGreaterThan(5);
    const wrong: unknown[] = [];
    for (const { strings, hits } of wanted) {
      const stops = stopStrings(strings, tokenizer);
      rows.forEach((row, r) => {
        const ours = row.map((_, n) => Number(stops(row.slice(0, n + 1)))).join("");
        if (ours !== hits[r]) wrong.push({ strings, row: tokenizer.decode(row), ours, theirs: hits[r] });
      });
    }
    expect(wrong).toEqual([]);
  });
});

const config = (options: GenerationOptions) =>
  decodingConfig(options, { promptLength: 2, vocabulary: 50, eos_token_id: 2, pad_token_id: 0 });

test("any id of an eos list ends a row, wherever it is chosen, but not in the middle", () => {
  const stops = stoppingCriterion(config({ eos_token_id: [3, 9], max_length: 6 }));
  expect(stops([1, 1, 3])).toBe(true);
  expect(stops([1, 1, 9])).toBe(true);
  expect(stops([1, 3, 2])).toBe(false);
});

test("max_length counts the prompt", () => {
  const stops = stoppingCriterion(config({ eos_token_id: null, max_length: 5 }));
  expect(stops([1, 1, 1, 1])).toBe(false);
  expect(stops([1, 1, 1, 1, 1])).toBe(true);
});

test("max_time counts from the start", () => {
  let now = 5000;
  const stops = stoppingCriterion(config({ max_time: 2.5 }), undefined, () => now);
  now = 7500;
  expect(stops([1, 1, 1])).toBe(false);
  now = 7501;
  expect(stops([1, 1, 1])).toBe(true);
});

test("stop_strings without a tokenizer are refused", () => {
  expect(() => stoppingCriterion(config({ stop_strings: "x" }))).toThrow(
    expect.objectContaining({ code: "NO_TOKENIZER" }),
  );
});
