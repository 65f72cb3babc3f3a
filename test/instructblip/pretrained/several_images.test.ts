/** Prompts about several images: Hugging Face's modules by hand are the oracle (test/golden/answers/several_images.py). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, AutoProcessor, type InstructBlipProcessor } from "../../../src/index.node.ts";
import { argmaxOf } from "../../../src/instructblip/generation/arithmetic.ts";
import { imagesOf } from "../../../src/instructblip/pretrained/inputs.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";

interface Case {
  readonly of: string;
  /** Numbers of the composite's images, for each row. */
  readonly images: number[][];
  readonly text: string[];
  readonly input_ids: number[][];
  /** Of every image of a row; null where the Q-Former reads no text. */
  readonly qformer_input_ids: (number[][] | null)[];
  /** New tokens. */
  readonly answers: number[][];
}
const CASES: Case[] = JSON.parse(
  readFileSync(new URL("../../golden/answers/data/several_images.json", import.meta.url), "utf8"),
);
const SOME = ALL ? CASES : CASES.filter((_, i) => i === 2);

const unpadded = (rows: readonly (readonly number[])[], mask: readonly (readonly number[])[]) =>
  rows.map((row, b) => row.filter((_, i) => mask[b][i] === 1));

test.each(SOME)("$of: $text", async ({ of, images, text, input_ids, qformer_input_ids, answers }) => {
  const folder = goldenFolder(of);
  const processor = (await AutoProcessor.from_pretrained(folder)) as InstructBlipProcessor;
  const files = images.map((row) => row.map((i) => join(folder, `image_${i}.png`)));
  const inputs = await processor({ images: files, text, padding: true, padding_side: "left" });
  expect(unpadded(inputs.input_ids, inputs.attention_mask)).toEqual(input_ids);
  const words = qformer_input_ids.flatMap((rows) => rows ?? []);
  expect(unpadded(inputs.qformer_input_ids ?? [], inputs.qformer_attention_mask)).toEqual(words);
  const model = await AutoModelForImageTextToText.from_pretrained(folder, {
    device: await testDevice(),
    compile: false,
  });
  try {
    const options = { max_new_tokens: answers[0].length, eos_token_id: null };
    const rows = await model.generate({ ...(inputs as InstructBlipInputs), ...options });
    expect(rows.map((row) => row.slice(-answers[0].length))).toEqual(answers);
    const interventions = [{ module: "vision_model.encoder.layers.0", op: "zero" }] as const;
    const changed = model.generate({ ...(inputs as InstructBlipInputs), ...options, interventions });
    const isUneven = new Set(images.map((row) => row.length)).size > 1;
    if (isUneven) await expect(changed).rejects.toThrow(/unequal numbers of images/);
    else expect(await changed).not.toEqual(rows);
    if (model.language_model.is_encoder_decoder || images.length > 1) return;
    const { logits } = await model.forward({ ...(inputs as InstructBlipInputs), logits_to_keep: 1 });
    expect(argmaxOf(await logits.read())).toBe(answers[0][0]);
  } finally {
    model.dispose();
  }
});

describe("the processor", async () => {
  const processor = (await AutoProcessor.from_pretrained("examples/shapes/checkpoint")) as InstructBlipProcessor;
  const [a, b] = ["a", "b"].map((name) => `examples/shapes/images/${name}.png`);

  test("of one image as it is without a list, wherever <image> is said to be in front", async () => {
    const text = "Describe the image.";
    const one = await processor({ images: a, text });
    for (const said of [text, `<image>${text}`, `<image> ${text}`]) {
      expect(await processor({ images: [[a]], text: [said] })).toEqual(one);
    }
  });

  test("refuses images that no <image> is for, limits, and what is neither images nor lists of them", async () => {
    const call = (images: string[][], text: string, options = {}) => processor({ images, text: [text], ...options });
    await expect(call([[a, b]], "<image> what?")).rejects.toThrow(/text 0 has 1 times "<image>" for 2 images/);
    await expect(call([[a, b]], "what?", { max_length: 40 })).rejects.toThrow(/not with several images/);
    await expect(call([[a, b], [a]] as string[][], "what?")).rejects.toThrow(/2 images but 1 text\n/);
    await expect(processor({ images: [a, b], text: "what?" })).rejects.toThrow(
      expect.objectContaining({ hint: expect.stringContaining("[[image, image]]") }),
    );
    await expect(processor({ images: [[a], b] as never, text: ["x", "y"] })).rejects.toThrow(/images must be one/);
    await expect(processor({ images: [a], text: ["<image> what?"] })).rejects.toThrow(/stands for the image itself/);
  });
});

test("images are counted by their placeholders, or one for each row", () => {
  const rows = [
    [7, 7, 1, 7, 7],
    [7, 7, 1, 2, 3],
  ];
  expect(imagesOf(rows, 7, 2, 3)).toBe(3);
  expect(imagesOf(rows, 7, 2, 4)).toBe(2);
  expect(imagesOf(rows, 7, 3, 2)).toBe(2);
});
