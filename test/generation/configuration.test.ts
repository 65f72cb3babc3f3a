/** Defaults, precedence and refusals of generate()'s options. */
import { describe, expect, test } from "vitest";
import { decodingConfig, type GenerationOptions } from "../../src/instructblip/generation/configuration.ts";

const SETTING = {
  promptLength: 40,
  vocabulary: 100,
  max_position_embeddings: 2048,
  eos_token_id: 2,
  pad_token_id: null,
  cacheBytesPerToken: 2 ** 19,
};
const config = (options: object, setting = {}) =>
  decodingConfig(options as GenerationOptions, { ...SETTING, ...setting });

describe("defaults", () => {
  test("are Hugging Face's", () => {
    expect(config({})).toMatchObject({
      max_length: 60,
      min_length: 0,
      do_sample: false,
      num_beams: 1,
      top_k: 50,
      temperature: 1,
      length_penalty: 1,
      early_stopping: false,
      eos_token_id: [2],
      pad_token_id: 2, // unset: the first eos
      return_full_text: true,
      warnings: [],
    });
  });

  test("null switches off", () => {
    expect(config({ top_k: null, top_p: null, temperature: null, eos_token_id: null })).toMatchObject({
      top_k: 0,
      top_p: 1,
      temperature: 1,
      eos_token_id: [],
      pad_token_id: null,
    });
  });

  test("20 new tokens, or as many as there are positions", () => {
    expect(config({}, { max_position_embeddings: 50 }).max_length).toBe(50);
    expect(config({ max_new_tokens: 20 }, { max_position_embeddings: 50 }).max_length).toBe(60);
    // Nobody spoke of max_length, so it is not max_length that is wrong.
    expect(() => config({}, { max_position_embeddings: 30 })).toThrow(/take 40 tokens; this model was trained for 30/);
  });
});

describe("precedence", () => {
  test("max_new_tokens beats max_length, with a warning", () => {
    const both = config({ max_new_tokens: 3, max_length: 50 });
    expect(both.max_length).toBe(43);
    expect(both.warnings.join()).toContain("max_length");
  });

  test("min_new_tokens beats min_length, with a warning", () => {
    const both = config({ min_new_tokens: 3, min_length: 60 });
    expect(both).toMatchObject({ min_length: 43 });
    expect(both.warnings.join()).toContain("min_length");
  });

  test("what has no effect is warned of", () => {
    expect(config({ top_p: 0.9 }).warnings.join()).toContain("top_p");
    expect(config({ length_penalty: 2 }).warnings.join()).toContain("length_penalty");
    expect(config({ encoder_no_repeat_ngram_size: 2 }).warnings.join()).toContain("embeddings");
    expect(config({ top_p: 0.9, do_sample: true, num_beams: 2, length_penalty: 0 }).warnings).toEqual([]);
  });
});

describe("refused by name", () => {
  const nan = Number.NaN;
  const range: [string, unknown[]][] = [
    ["max_new_tokens", [0, -1, 1.5, nan, Number.POSITIVE_INFINITY, "10", 1e9]],
    ["max_length", [40, 0, 1e9]],
    ["min_length", [-1, 61, 0.5]],
    ["min_new_tokens", [-1, 21]],
    ["max_time", [0, -1, nan]],
    ["temperature", [-1, nan, "1"]],
    ["top_p", [0, 1.01, -0.1, nan]],
    ["top_k", [-1, 1.5]],
    ["top_h", [0, 1.1]],
    ["min_p", [-0.1, 1.1]],
    ["typical_p", [0, 1.5]],
    ["epsilon_cutoff", [1, -1]],
    ["eta_cutoff", [1, -1]],
    ["repetition_penalty", [0, -1, nan, Number.POSITIVE_INFINITY]],
    ["num_beams", [0, 1.5]],
    ["num_return_sequences", [0, 2]],
    ["length_penalty", [nan, "1"]],
    ["early_stopping", ["always", 1]],
    ["seed", [-1, 0.5, 2 ** 53]],
    ["stop_strings", ["", [], [""], [1], new Array(10_000).fill("a")]],
    ["eos_token_id", [100, -1, [2, 100]]],
    ["pad_token_id", [100, -1]],
    ["bad_words_ids", [[], [[]], [3], [[100]]]],
    ["sequence_bias", [[], [[3]], [[[3], "x"]], [[[100], 1]]]],
    ["suppress_tokens", [[100], 3]],
    ["exponential_decay_length_penalty", [[1], [0.5, 1], 3]],
    ["do_sample", ["yes", 1]],
    ["prefix_allowed_tokens_fn", [[1]]],
  ];
  test.each(range.flatMap(([name, values]) => values.map((value) => [name, value] as const)))(
    "%s %j",
    (name, value) => {
      const thrown = () => config({ [name]: value });
      expect(thrown).toThrow(expect.objectContaining({ code: "PARAM_RANGE" }));
      expect(thrown).toThrow(name);
    },
  );

  test("temperature 0 only where it would be used", () => {
    expect(() => config({ temperature: 0, do_sample: true })).toThrow(/above 0[\s\S]*do_sample: false/);
    expect(config({ temperature: 0 }).temperature).toBe(0);
    expect(config({ temperature: 1e-9, do_sample: true }).temperature).toBe(1e-9);
  });

  test("more returned sequences than beams, or any without beams and sampling", () => {
    expect(() => config({ num_beams: 3, num_return_sequences: 4 })).toThrow("num_return_sequences");
    expect(config({ num_beams: 3, num_return_sequences: 3 }).num_return_sequences).toBe(3);
    expect(config({ do_sample: true, num_return_sequences: 9 }).num_return_sequences).toBe(9);
  });

  test("a thousand beams, with the memory they would take", () => {
    const thrown = () => config({ num_beams: 1000, max_new_tokens: 24 });
    expect(thrown).toThrow(expect.objectContaining({ code: "BEAM_LIMIT" }));
    expect(thrown).toThrow("31.3 GiB");
  });

  test("forcing a token that is suppressed", () => {
    expect(() => config({ suppress_tokens: [5, 2], forced_eos_token_id: 2 })).toThrow("forced_eos_token_id");
  });

  test("an unknown name, with the nearest right one", () => {
    const thrown = () => config({ max_new_token: 3 });
    expect(thrown).toThrow(expect.objectContaining({ code: "UNKNOWN_OPTION" }));
    expect(thrown).toThrow("max_new_tokens");
    expect(() => config({ constructor: 3 })).toThrow(expect.objectContaining({ code: "UNKNOWN_OPTION" }));
  });

  test("Hugging Face's options that are not here, unless they change nothing", () => {
    expect(() => config({ guidance_scale: 2 })).toThrow(expect.objectContaining({ code: "UNSUPPORTED_OPTION" }));
    expect(() => config({ num_beam_groups: 2 })).toThrow(expect.objectContaining({ code: "UNSUPPORTED_OPTION" }));
    expect(() => config({ guidance_scale: 1, num_beam_groups: 1, watermarking_config: null })).not.toThrow();
  });
});
