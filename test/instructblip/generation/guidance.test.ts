/**
 * The unconditional prompt of guidance, and refusals. Its results are tested in search.test.ts, and with models in
 * test/parity.
 */
import { describe, expect, test } from "vitest";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import { guide, negativePrompt } from "../../../src/instructblip/generation/guidance.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import { search } from "../../../src/instructblip/generation/search.ts";
import { TableDecoder } from "./golden.ts";

const SETTING = { promptLength: 2, vocabulary: 48, eos_token_id: 2, pad_token_id: 0 };
const PROMPT = [
  [5, 6],
  [7, 8],
];
const MODEL = { is_encoder_decoder: false, num_embeddings: 50 };
const config = (options: GenerationOptions) => decodingConfig({ guidance_scale: 2, ...options }, SETTING);
const negative = (options: GenerationOptions, prompt = PROMPT, model = MODEL) =>
  negativePrompt(config(options), prompt, model);

test("scores are moved away by the scale, and 1 leaves log probabilities", () => {
  const probabilities = [0.5, 0.25, 0.25];
  const scores = Float32Array.from(probabilities, Math.log);
  const logs = [...scores];
  guide([scores], [Float32Array.of(3, 3, 3)], 2);
  const without = Math.log(1 / 3);
  for (const [i, score] of scores.entries()) expect(score).toBeCloseTo(2 * (logs[i] - without) + without, 6);
  guide([scores], [Float32Array.of(1, 2, 3)], 1);
  expect(scores.reduce((sum, score) => sum + Math.exp(score), 0)).toBeCloseTo(1, 6);
});

describe("begins with", () => {
  test("the last id of every prompt, for every answer", () => {
    expect(negative({})).toEqual({ ids: [[6], [8]], mask: [[1], [1]] });
    const answers = negative({ do_sample: true, num_return_sequences: 2 });
    expect(answers?.ids).toEqual([[6], [6], [8], [8]]);
  });

  test("the negative prompt, whose ids may be the image's", () => {
    const negative_prompt_ids = [
      [1, 49],
      [3, 4],
    ];
    const mask = [
      [0, 1],
      [1, 1],
    ];
    // 49 is above the head's rows and below the embedding's: it is looked up, not written.
    expect(negative({ negative_prompt_ids })?.ids).toEqual(negative_prompt_ids);
    expect(negative({ negative_prompt_ids, negative_prompt_attention_mask: mask })?.mask).toEqual(mask);
  });

  test("nothing where the scale is 1", () => {
    expect(negative({ guidance_scale: 1 })).toBeUndefined();
    expect(negative({ guidance_scale: null })).toBeUndefined();
    expect(config({ guidance_scale: 1, negative_prompt_ids: [[3]] }).warnings.join()).toContain("guidance_scale is 1");
  });
});

describe("refuses", () => {
  test("beams, T5, and rows without a prompt", () => {
    expect(() => config({ num_beams: 2 })).toThrow(expect.objectContaining({ code: "UNSUPPORTED_OPTION" }));
    expect(() => negative({}, PROMPT, { ...MODEL, is_encoder_decoder: true })).toThrow("T5");
    expect(() => negative({}, [[], []])).toThrow(/image_token_index[\s\S]*negative_prompt_ids/);
    expect(negative({ negative_prompt_ids: [[3], [4]] }, [[], []])?.ids).toEqual([[3], [4]]);
  });

  test.each([
    [{ negative_prompt_ids: [[3]] }, "BATCH_MISMATCH", /1 rows for 2 prompts[\s\S]*give 2 rows/],
    [{ negative_prompt_ids: [[3], [3, 4]] }, "RAGGED", /negative_prompt_ids/],
    [{ negative_prompt_ids: [[3], []] }, "RAGGED", /negative_prompt_ids/],
    [{ negative_prompt_ids: [[50], [3]] }, "TOKEN_ID", /negative_prompt_ids: 50 is not a token id below 50/],
    [{ negative_prompt_ids: [] }, "BAD_INPUT", /negative_prompt_ids/],
    [{ negative_prompt_ids: [3] }, "PARAM_RANGE", /negative_prompt_ids/],
    [{ negative_prompt_ids: [[3], [4]], negative_prompt_attention_mask: [[1]] }, "BAD_MASK", /negative_prompt/],
    [{ negative_prompt_attention_mask: [[1], [1]] }, "PARAM_RANGE", /with negative_prompt_ids/],
    [{ guidance_scale: Number.NaN }, "PARAM_RANGE", /guidance_scale/],
    [
      { do_sample: true, num_return_sequences: 3, negative_prompt_ids: [[3], [4]] },
      "BATCH_MISMATCH",
      /2 prompts with 3 answers each[\s\S]*give 6 rows/,
    ],
  ])("%j", (options, code, message) => {
    expect(() => negative(options as GenerationOptions)).toThrow(expect.objectContaining({ code }));
    expect(() => negative(options as GenerationOptions)).toThrow(message);
  });

  test("a search without the language model alone", async () => {
    await expect(search(new TableDecoder(PROMPT), PROMPT, config({}))).rejects.toThrow("the language model alone");
  });
});
