/**
 * Keys and values stored as f16: the same answers as with f32 from a trained model, in half the memory, for every search and
 * language model; and where the head size is no multiple of 4, f32 and a warning.
 */
import { readFileSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, AutoProcessor } from "../../../src/index.node.ts";
import { candidateIds } from "../../../src/instructblip/generation/ranking.ts";
import type { Decoding } from "../../../src/instructblip/model/language_model.ts";
import { upload } from "../../../src/instructblip/model/language_model.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import type { VisionLanguageModel } from "../../../src/instructblip/pretrained/vision_language_model.ts";
import { KVCache } from "../../../src/modules/kv_cache.ts";
import type { KVCacheDType } from "../../../src/modules/storage_dtype.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { TOLERANCES } from "../../tolerances.ts";
import { twoRows } from "./two_rows.ts";

const device = await testDevice();
const folderOf = (path: string) => new URL(`../../../${path}`, import.meta.url).pathname;

const open = (folder: string, kv_cache_dtype: KVCacheDType) =>
  AutoModelForImageTextToText.from_pretrained(folder, { device, kv_cache_dtype, compile: false });

/** Both, the same weights twice. */
async function openBoth(folder: string) {
  const models = [await open(folder, "f32"), await open(folder, "f16")];
  afterAll(() => {
    for (const model of models) model.dispose();
  });
  return models;
}

/**
 * Logits of a prompt of two rows, the second of which is padded, of a step, of the step after rows have changed places, and
 * of what two continuations of one row would have.
 */
async function decode({ language_model }: VisionLanguageModel): Promise<Float32Array[]> {
  const prompt = twoRows(device, language_model);
  const decoding: Decoding = language_model.begin(2, 16);
  const ids = (...rows: number[]) => upload(device, [rows]).reshape([rows.length]);
  const logits = [await decoding.prefill(prompt).read()];
  for (let i = 0; i < 3; i++) logits.push(await decoding.step(ids(3 + i, 4 + i)).read());
  decoding.reorder([1, 0, 0]);
  for (let i = 0; i < 2; i++) logits.push(await decoding.step(ids(5, 6 + i, 7)).read());
  logits.push(
    await decoding
      .continuationLogits(
        [2, 0],
        upload(device, [
          [3, 4],
          [5, 6],
        ]),
      )
      .read(),
  );
  decoding.dispose();
  return logits;
}

describe.each(["plain_f32", "head_dim_88_f16", "opt_plain", "t5_flan"])("%s", (name) => {
  test("logits differ by the rounding of keys and values, step by step, beams changed and forked", async () => {
    const [f32, f16] = await openBoth(goldenFolder(name));
    expect(f16.warnings).toEqual(f32.warnings);
    const [expected, actual] = [await decode(f32), await decode(f16)];
    for (const [i, logits] of actual.entries()) {
      const { nmse } = expectClose(logits, expected[i], TOLERANCES.half_cache, `${name}, step ${i}`);
      expect(nmse, "f16 is in use").toBeGreaterThan(0);
    }
  });
});

test.each(["odd_widths", "bias_variants", "t5_odd_f16"])(
  "%s: heads that are no multiple of four stay f32",
  async (name) => {
    const [f32, f16] = await openBoth(goldenFolder(name));
    expect(f16.warnings.filter((line) => !f32.warnings.includes(line))).toEqual([
      expect.stringMatching(
        /^keys and values are stored as f32: f16 needs a head size that is a multiple of 4, got (6|7|10)$/,
      ),
    ]);
    expect(await decode(f16)).toEqual(await decode(f32));
  },
);

test("another dtype is refused by name, and so are heads that cannot be halved", async () => {
  await expect(open(goldenFolder("plain_f32"), "int8" as KVCacheDType)).rejects.toThrow('cannot be stored as "int8"');
  const shape = { layers: 1, batch: 1, heads: 1, head_dim: 6, capacity: 2, dtype: "f16" } as const;
  expect(() => new KVCache(device, shape)).toThrow("head_dim must be a multiple of 4 for an f16 cache, got 6");
});

describe("the embedded checkpoint", async () => {
  const folder = folderOf("examples/shapes/");
  const processor = await AutoProcessor.from_pretrained(`${folder}checkpoint`);
  const models = await openBoth(`${folder}checkpoint`);
  const [f32, f16] = models;
  const images = JSON.parse(readFileSync(`${folder}images/questions.json`, "utf8")) as {
    image: string;
    questions: string[];
    answers: string[];
  }[];
  const inputsOf = async (image: string, question: string) =>
    (await processor({ images: [`${folder}${image}`], text: [question] })) as unknown as InstructBlipInputs;

  test("answers PyTorch's words, greedily and with beams", async () => {
    for (const { image, questions, answers } of images.slice(0, ALL ? 3 : 1)) {
      for (const [i, question] of questions.entries()) {
        const inputs = await inputsOf(image, question);
        const ids = (await f16.generate({ ...inputs, max_new_tokens: 60 })) as number[][];
        const answer = ids.map((row) => row.slice(inputs.input_ids![0].length));
        expect(processor.batch_decode(answer, { skip_special_tokens: true })[0].trim()).toBe(answers[i]);
      }
    }
    const inputs = await inputsOf(images[0].image, "What is in the image?");
    const [expected, actual] = await Promise.all(
      models.map((model) => model.generate({ ...inputs, num_beams: 3, max_new_tokens: 40 })),
    );
    expect(actual).toEqual(expected);
  });

  test("keeps tokens in half the bytes", () => {
    const capacity = 500;
    const { num_hidden_layers, num_key_value_heads, head_dim } = f32.config.text_config.sizes;
    const numbers = 2 * num_hidden_layers * num_key_value_heads * head_dim * capacity;
    const bytes = models.map(({ language_model }) => {
      const before = device.memory.use.live;
      const decoding = language_model.begin(1, capacity);
      const taken = device.memory.use.live - before - 4 * capacity - 16; // its table of rows and its length
      decoding.dispose();
      return taken;
    });
    expect(bytes).toEqual([4 * numbers, 2 * numbers]);
  });

  test("ranks candidates alike, which go on from a fork of the cache", async () => {
    const inputs = await inputsOf(images[0].image, "What color is the square?");
    const colours = ["red", "green", "blue", "yellow", "purple", "orange"];
    const candidates = candidateIds(processor.tokenizer, colours);
    const [[expected], [actual]] = await Promise.all(
      models.map((model) => model.rank_answers({ ...inputs, candidates: [candidates] })),
    );
    expect(actual.ranks).toEqual(expected.ranks);
    expect(actual.sums).not.toEqual(expected.sums);
  });
});
