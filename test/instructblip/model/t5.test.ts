import { afterAll, describe, expect, test } from "vitest";
import { T5Config } from "../../../src/instructblip/config/t5.ts";
import { T5ForConditionalGeneration } from "../../../src/instructblip/model/t5.ts";
import { relativePositionBuckets } from "../../../src/instructblip/model/t5_stack.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { LanguageModelGolden } from "./language_model_golden.ts";

const device = await testDevice();

const open = (name: string) =>
  LanguageModelGolden.open(
    goldenFolder(name),
    device,
    (weights, config) => new T5ForConditionalGeneration(weights, new T5Config(config)),
  );

// The first golden has every module's output, the others every fourth module's.
describe.each([
  ["t5_flan", 50],
  ["t5_plain_tied_bf16", 12],
  ["t5_odd_f16", 12],
] as const)("%s", async (name, modules) => {
  const golden = await open(name);
  afterAll(() => golden.close());

  test("the modules give what PyTorch's give", async () => {
    expect(await golden.climbModules()).toBeGreaterThan(modules);
  });

  test("the logits of a whole pass are PyTorch's", () => golden.climbLogits());

  test("the greedy answer is PyTorch's", () => golden.climbGreedy());

  test("every tensor of the file is used", () => {
    expect(golden.leftovers).toEqual([]);
  });
});

test("rows that change places within a prompt and between prompts, and become more, go on as they were", async () => {
  const golden = await open("t5_flan");
  const before = device.memory.use.live;
  await golden.climbGreedy(
    (step) =>
      [
        [0, 0, 1, 1],
        [1, 0, 3, 2],
        [2, 0, 3, 1],
      ][Math.min(step, 2)],
  );
  expect(device.memory.use.live).toBe(before);
  await golden.close();
});

test("forward asks for decoder_input_ids, and checks them", async () => {
  const golden = await open("t5_flan");
  const prompt = await golden.prompt();
  expect(() => golden.model.forward(prompt)).toThrow("T5's forward needs decoder_input_ids");
  expect(() => golden.model.forward(prompt, { decoder_input_ids: [[0]] })).toThrow("must be 2 rows");
  expect(() => golden.model.forward(prompt, { decoder_input_ids: [[0], [-1]] })).toThrow("-1 is not a token id below");
  await golden.close();
});

describe("buckets", () => {
  const T5 = { num_buckets: 32, max_distance: 128 };
  /** The bucket of each distance, from where each begins. */
  const table = (starts: readonly (readonly [distance: number, bucket: number])[], most: number) =>
    Array.from({ length: most }, (_, distance) => starts.findLast(([start]) => start <= distance)![1]);
  const near = (n: number) => Array.from({ length: n }, (_, i) => [i, i] as const);

  // Made by torch 2.13 for distances up to 300.
  // biome-ignore format: a table
  const ENCODER = table([...near(8), [8, 8], [12, 9], [16, 10], [23, 11], [32, 12], [46, 13], [64, 14], [91, 15]], 300);
  // biome-ignore format: a table
  const DECODER = table([
    ...near(16), [16, 16], [19, 17], [21, 18], [24, 19], [27, 20], [31, 21], [35, 22], [40, 23], [46, 24], [52, 25],
    [59, 26], [67, 27], [77, 28], [87, 29], [99, 30], [113, 31],
  ], 300);

  test("of the encoder: keys in front by distance, keys behind in the other half", () => {
    const first = relativePositionBuckets(1, 300, 0, { ...T5, bidirectional: true });
    expect([...first]).toEqual(ENCODER.map((bucket, distance) => (distance === 0 ? 0 : 16 + bucket)));
    const last = relativePositionBuckets(1, 300, 299, { ...T5, bidirectional: true });
    expect([...last].reverse()).toEqual(ENCODER);
  });

  test("of the decoder: keys in front by distance, keys behind in bucket 0", () => {
    const buckets = relativePositionBuckets(2, 304, 298, { ...T5, bidirectional: false });
    expect([...buckets.subarray(0, 299)].reverse()).toEqual(DECODER.slice(0, 299));
    expect([...buckets.subarray(299, 304)]).toEqual([0, 0, 0, 0, 0]);
    expect([...buckets.subarray(304, 604)].reverse()).toEqual(DECODER);
  });

  // biome-ignore format: a table
  test.each([
    [true, 10, 19, 2, [[2, 2], [5, 3], [9, 4]]],
    [true, 20, 51, 5, [[5, 5], [8, 6], [13, 7], [21, 8], [33, 9]]],
    [false, 20, 51, 10, [[10, 10], [12, 11], [14, 12], [17, 13], [20, 14], [23, 15], [27, 16], [32, 17], [37, 18], [44, 19]]],
    [false, 9, 37, 4, [[4, 4], [7, 5], [10, 6], [16, 7], [24, 8]]],
    [true, 7, 1000, 1, [[1, 1], [32, 2]]],
    [true, 64, 256, 16, [[16, 16], [20, 17], [23, 18], [27, 19], [32, 20], [39, 21], [46, 22], [54, 23], [64, 24], [77, 25],
      [91, 26], [108, 27], [128, 28], [153, 29], [182, 30], [216, 31]]],
  ] as [boolean, number, number, number, [number, number][]][])(
    "of other counts and distances: bidirectional %s, %d to %d",
    (bidirectional, num_buckets, max_distance, exact, starts) => {
      const buckets = relativePositionBuckets(1, 2000, 1999, { bidirectional, num_buckets, max_distance });
      expect([...buckets].reverse()).toEqual(table([...near(exact), ...starts], 2000));
    },
  );
});

test("a config keeps Hugging Face's defaults and derives what Hugging Face derives", () => {
  const plain = new T5Config();
  expect([plain.gated, plain.activation, plain.decoderLayers, plain.scalesLmHeadInput]).toEqual([
    false,
    "relu",
    6,
    true,
  ]);
  const flan = new T5Config({ feed_forward_proj: "gated-gelu", tie_word_embeddings: false, num_decoder_layers: 2 });
  expect([flan.gated, flan.activation, flan.decoderLayers, flan.scalesLmHeadInput]).toEqual([
    true,
    "gelu_new",
    2,
    false,
  ]);
  expect(new T5Config({ feed_forward_proj: "gated-gelu", dense_act_fn: "gelu" }).activation).toBe("gelu");
  expect(new T5Config({ feed_forward_proj: "gated-silu" }).activation).toBe("silu");
  expect(new T5Config({ tie_word_embeddings: false, scale_decoder_outputs: true }).scalesLmHeadInput).toBe(true);
  expect(new T5Config({ decoder_start_token_id: 0 }).decoderStartTokenId).toBe(0);
});

test("a config that cannot be is refused by name", () => {
  expect(() => new T5Config({ feed_forward_proj: "gated-swoosh" })).toThrow("text_config.feed_forward_proj");
  expect(() => new T5Config({ feed_forward_proj: "twice-gated-gelu" })).toThrow("text_config.feed_forward_proj");
  expect(() => new T5Config({ relative_attention_num_buckets: 3 })).toThrow("relative_attention_num_buckets");
  expect(() => new T5Config({ relative_attention_max_distance: 16 })).toThrow("above 16, half the buckets");
});
