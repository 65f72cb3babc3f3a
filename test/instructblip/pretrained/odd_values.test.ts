/** Public functions with odd values: they return, or throw a typed error: no TypeError, no hang. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import {
  AutoConfig,
  candidateIds,
  EngineError,
  InstructBlipForConditionalGeneration,
  InstructBlipProcessor,
  InstructBlipVideoForConditionalGeneration,
  openDevice,
  Tensor,
  TextIteratorStreamer,
  WatermarkDetector,
} from "../../../src/index.node.ts";
import { RANK_OPTIONS } from "../../../src/instructblip/generation/ranking.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import { ENCODE_OPTIONS } from "../../../src/instructblip/tokenizer/options.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";

const device = await testDevice();
const folder = goldenFolder("plain_f32");
const model = await InstructBlipForConditionalGeneration.from_pretrained(folder, { device, on_warning: null });
const processor = await InstructBlipProcessor.from_pretrained(folder);
const config = JSON.parse(readFileSync(`${folder}/config.json`, "utf8")) as Record<string, unknown>;
const inputs = (await goldenInputs("plain_f32")) as InstructBlipInputs;
const pixels = { data: new Uint8Array(3 * 8 * 8), width: 8, height: 8 };
afterAll(() => model.dispose());

/** What a caller may slip in: other types, shapes and sizes, and objects that do not behave. */
const odd = fc.oneof(
  fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withTypedArray: true,
    withSparseArray: true,
  }),
  fc.constantFrom<unknown>(
    undefined,
    null,
    Number.NaN,
    -1,
    0,
    0.5,
    1e300,
    2 ** 53,
    "",
    "3",
    "auto",
    Symbol("odd"),
    () => 5,
    async () => {},
    { toString: 1 },
    { data: [1, 2], shape: null },
    { data: new Float32Array(3), shape: [3] },
    { data: new Float32Array(0), shape: [2 ** 40, 3, 0, 0] },
    { data: null, shape: [1, 3, 8, 8] },
    { data: new Uint8Array(3), width: "a", height: {} },
    { length: 3 },
    [[]],
    [[[]]],
    [null],
    [[null]],
    [["a"]],
    [[1], null],
    [[1.5]],
    [[2 ** 31]],
    new Array(5),
    new Proxy([], {}),
    new Date(0),
    new Map([["a", 1]]),
    new Float32Array(4),
    new BigInt64Array(2),
    new ArrayBuffer(8),
    Object.create(null),
    Promise.resolve(1),
    Object.freeze([Object.freeze([1])]),
  ),
);

/** Runs a call that may answer or refuse. */
async function typed(call: () => unknown): Promise<void> {
  try {
    await call();
  } catch (error) {
    if (error instanceof EngineError) {
      expect(error.message.length).toBeLessThan(5000);
      return;
    }
    throw error;
  }
}

/** Of each name: with INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`) more. */
const RUNS = { numRuns: ALL ? 30 : 6, seed: 9 };
const each = (names: readonly string[], call: (given: Record<string, unknown>) => unknown) => {
  test.each(names)("%s", async (name) => {
    await fc.assert(
      fc.asyncProperty(odd, (value) => typed(() => call({ [name]: value }))),
      RUNS,
    );
  });
};

const INPUTS = [
  "pixel_values",
  "qformer_input_ids",
  "qformer_attention_mask",
  "input_ids",
  "attention_mask",
  "interpolate_pos_encoding",
];

describe("generate's inputs", () =>
  each(INPUTS, (given) => model.generate({ ...inputs, max_new_tokens: 1, ...given })));

describe("generate's options", () => {
  const known = JSON.parse(readFileSync("test/golden/generation/data/generation_config.json", "utf8")) as {
    generation_config: string[];
    generate: string[];
  };
  const names = [
    ...known.generation_config,
    ...known.generate,
    "seed",
    "check_numerics",
    "return_full_text",
    "tokenizer",
    "signal",
    "on_token",
    "on_warning",
  ];
  // A short answer, whatever the option; and options that only count beside others.
  const beside = { max_new_tokens: 1, do_sample: true, guidance_scale: 1.5 };
  each(names, (given) => model.generate({ ...inputs, max_new_tokens: 1, ...given }));
  describe("beside others", () => each(names, (given) => model.generate({ ...inputs, ...beside, ...given })));
});

describe("forward", () => {
  const names = [
    "labels",
    "decoder_input_ids",
    "logits_to_keep",
    "output_hidden_states",
    "output_attentions",
    "observer",
    "check_numerics",
  ];
  each([...INPUTS, ...names], (given) => model.forward({ ...inputs, ...given }));
});

describe("rank_answers", () =>
  each([...INPUTS, ...RANK_OPTIONS], (given) => model.rank_answers({ ...inputs, candidates: [[5], [6]], ...given })));

describe("a processor", () => {
  const names = [
    ...ENCODE_OPTIONS,
    "images",
    "text",
    "text_kwargs",
    "images_kwargs",
    "common_kwargs",
    "allow_image_token",
    "exif_transpose",
    "return_tensors",
    "size",
    "image_mean",
    "image_std",
    "resample",
    "do_resize",
    "input_data_format",
  ];
  each(names, (given) => processor({ images: [pixels], text: ["a"], ...given }));
  each(["images"], ({ images }) => processor({ images: [images], text: ["a"] } as never));
});

test.each<[string, (value: never) => unknown]>([
  ["generate", (value) => model.generate(value)],
  ["generate, second", (value) => model.generate({ ...inputs, max_new_tokens: 1 }, value)],
  ["forward, second", (value) => model.forward(inputs, value)],
  ["get_image_features", (value) => model.get_image_features(value)],
  ["get_qformer_features, second", (value) => model.get_qformer_features(inputs, value)],
  ["save_pretrained's options", (value) => model.save_pretrained({} as never, value)],
  ["processor", (value) => processor(value)],
  ["processor, second", (value) => (processor as never as (...a: unknown[]) => unknown)({ text: "a" }, value)],
  ["decode", (value) => processor.decode(value)],
  ["decode's options", (value) => processor.decode([5], value)],
  ["batch_decode", (value) => processor.batch_decode(value)],
  ["post_process_image_text_to_text", (value) => processor.post_process_image_text_to_text([[5]], value)],
  ["encode", (value) => processor.tokenizer.encode(value)],
  ["encode's options", (value) => processor.tokenizer.encode("a", value)],
  ["encode_batch", (value) => processor.tokenizer.encode_batch(value)],
  ["candidateIds", (value) => candidateIds(processor.tokenizer, value)],
  ["candidateIds' tokenizer", (value) => candidateIds(value, ["a"])],
  ["candidateIds' eos", (value) => candidateIds(processor.tokenizer, ["a"], value)],
  ["TextIteratorStreamer", (value) => new TextIteratorStreamer(value)],
  ["TextIteratorStreamer's options", (value) => new TextIteratorStreamer(processor.tokenizer, value)],
  ["TextIteratorStreamer.put", (value) => new TextIteratorStreamer(processor.tokenizer).put(value)],
  ["WatermarkDetector", (value) => new WatermarkDetector(value)],
  ["WatermarkDetector's config", (value) => new WatermarkDetector({ vocab_size: 10 }, value)],
  ["detect", (value) => new WatermarkDetector({ vocab_size: 10 }).detect(value)],
  ["detect's options", (value) => new WatermarkDetector({ vocab_size: 10 }).detect([[1, 2, 3]], value)],
  ["device.tensor's numbers", (value) => device.tensor(value, [1]).dispose()],
  ["device.tensor's shape", (value) => device.tensor(new Float32Array(1), value).dispose()],
  ["openDevice", async (value) => (await openDevice(value)).destroy()],
])("%s", async (_, call) => {
  await fc.assert(
    fc.asyncProperty(odd, (value) => typed(() => call(value as never))),
    RUNS,
  );
});

describe("a config", () => {
  const part = (name: string) => Object.keys(config[name] as object).map((key) => [name, key] as const);
  const fields = [
    ...Object.keys(config).map((key) => [key] as const),
    ...["vision_config", "qformer_config", "text_config"].flatMap(part),
  ];
  test("with another value in any field", async () => {
    const { InstructBlipConfig } = await import("../../../src/index.node.ts");
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...fields), odd, (path, value) => {
        const changed = structuredClone(config);
        const target = path.length > 1 ? (changed[path[0]] as Record<string, unknown>) : changed;
        target[path[path.length - 1]] = value;
        return typed(() => new InstructBlipConfig(changed));
      }),
      { numRuns: 2000, seed: 9 },
    );
    await typed(() => AutoConfig.parse("[]"));
  });
});

test("a tensor says what it is", () => {
  const tensor = device.tensor(new Float32Array(6), [2, 3]);
  expect(String(tensor)).toBe(`Tensor f32[2, 3] on ${device.caps.description}`);
  expect(`${new Tensor(device, "u32", [], tensor.storage)}`).toMatch(/^Tensor u32\[\] on /);
  tensor.dispose();
});

test("a video model's pixels have five dimensions, of which none is 0", async () => {
  const folder = goldenFolder("video_4_frames");
  const video = await InstructBlipVideoForConditionalGeneration.from_pretrained(folder, { device });
  await fc.assert(
    fc.asyncProperty(odd, (pixel_values) =>
      typed(() => video.generate({ pixel_values, qformer_input_ids: [[1]], input_ids: [[1]] } as never)),
    ),
    RUNS,
  );
  video.dispose();
});
