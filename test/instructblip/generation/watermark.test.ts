/** PyTorch's random numbers, bit by bit; detection of green lists as in Hugging Face; refusals. */
import { describe, expect, test } from "vitest";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import { logitsProcessors, shortlistOf } from "../../../src/instructblip/generation/logits_process.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import { randomBits, randperm, TorchGenerator } from "../../../src/instructblip/generation/torch_random.ts";
import { WatermarkDetector } from "../../../src/instructblip/generation/watermark/watermark.ts";
import { MARKED, V } from "./golden.ts";

describe("PyTorch's generator", () => {
  test.each(MARKED.random_numbers)("seed $seed", ({ seed, few, one, many, bits }) => {
    const made = () => new TorchGenerator(BigInt(seed));
    expect([...randperm(13, made())]).toEqual(few);
    expect([...randperm(1, made())]).toEqual(one);
    const all = [...randperm(1_000_003, made())];
    expect([...all.slice(0, 20), ...all.slice(-20)]).toEqual(many);
    expect([...randomBits(2000, made()).slice(-40)]).toEqual(bits);
  });

  test("the first of a permutation are those of the whole", () => {
    const [some, all] = [40, 100].map((count) => [...randperm(100, new TorchGenerator(3n), count)]);
    expect(some).toEqual(all.slice(0, 40));
    expect(all.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  test("MT19937's ten thousandth number from seed 5489", () => {
    const generator = new TorchGenerator(5489n); // what C++ promises of std::mt19937
    for (let i = 1; i < 10_000; i++) generator.next();
    expect(generator.next()).toBe(4123659995);
  });
});

describe("WatermarkDetector", () => {
  test("counts and scores as Hugging Face's", () => {
    expect(MARKED.detections.length).toBe(36);
    for (const { config, ids, rows, z_threshold, found } of MARKED.detections) {
      const ours = new WatermarkDetector({ vocab_size: V, ...ids }, config).detect(rows, { z_threshold });
      const names = ["num_tokens_scored", "num_green_tokens", "prediction"] as const;
      for (const name of names) expect(ours.map((one) => one[name])).toEqual(found[name]);
      for (const name of ["green_fraction", "z_score", "p_value", "confidence"] as const) {
        for (const [r, one] of ours.entries()) expect(one[name]).toBeCloseTo(found[name][r] as number, 12);
      }
    }
    const predictions = MARKED.detections.flatMap(({ found }) => found.prediction);
    expect(new Set(predictions)).toEqual(new Set([true, false]));
  });

  test("refuses what is too short to have a mark", () => {
    const detector = new WatermarkDetector({ vocab_size: V, bos_token_id: 1 }, { context_width: 3 });
    expect(() => detector.detect([[1, 4, 5, 6]])).toThrow("more than 3 tokens");
    expect(detector.detect([[4, 5, 6, 7]])[0].num_tokens_scored).toBe(1);
  });
});

describe("watermarking_config", () => {
  const setting = { promptLength: 1, vocabulary: V, eos_token_id: 2, pad_token_id: 0 };
  const config = (watermarking_config: unknown, more: object = {}) =>
    decodingConfig({ watermarking_config, ...more } as GenerationOptions, setting);
  const keys = [1, 2];

  test.each([
    ["greenlist_ratio", { greenlist_ratio: 0 }],
    ["greenlist_ratio", { greenlist_ratio: 1 }],
    ["bias", { bias: "2" }],
    ["hashing_key", { hashing_key: 0.5 }],
    ["hashing_key", { hashing_key: 2 ** 60 }],
    ["seeding_scheme", { seeding_scheme: "minhash" }],
    ["context_width", { context_width: 0 }],
    ["ngram_len", { keys }],
    ["keys", { ngram_len: 5 }],
    ["keys", { ngram_len: 5, keys: [] }],
    ["keys", { ngram_len: 5, keys: [0.5] }],
    ["sampling_table_size", { ngram_len: 5, keys, sampling_table_size: 2 ** 25 }],
    ["watermarking_config", true],
    ["watermarking_config", [2]],
  ])("%s of %j is refused", (name, given) => {
    expect(() => config(given)).toThrow(expect.objectContaining({ code: "PARAM_RANGE" }));
    expect(() => config(given)).toThrow(name);
  });

  test("a mistyped field is named, with the nearest right one", () => {
    expect(() => config({ biass: 2 })).toThrow(expect.objectContaining({ code: "UNKNOWN_OPTION" }));
    expect(() => config({ biass: 2 })).toThrow(/"biass"[\s\S]*bias/);
    expect(() => config({ ngram_len: 2, keys, bias: 2 })).toThrow('"bias"');
  });

  test("SynthID with beams is refused", () => {
    expect(() => config({ ngram_len: 2, keys }, { num_beams: 2 })).toThrow(/SynthID[\s\S]*num_beams/);
    expect(() => config({ bias: 2 }, { num_beams: 2 })).not.toThrow();
  });

  test("keeps sampling from looking at the best scores alone, which have lost their ids", () => {
    const sampling = { do_sample: true, top_k: 3 };
    expect(shortlistOf(logitsProcessors(config(null, sampling)))).toBeDefined();
    expect(shortlistOf(logitsProcessors(config({ bias: 2 }, sampling)))).toBeUndefined();
  });
});
