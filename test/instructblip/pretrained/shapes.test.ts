/**
 * The embedded checkpoint answers questions about unseen images as PyTorch did: the same token ids, every row. Of the 500
 * every twelfth, or, with INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`), all. Also the defining property of InstructBLIP: image
 * features depend on the instruction.
 */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { InstructBlipForConditionalGeneration, InstructBlipProcessor } from "../../../src/index.node.ts";
import { testDevice } from "../../device.ts";
import { ALL } from "../../rounds.ts";

const folder = new URL("../../../examples/shapes/", import.meta.url);

function lines<T>(file: string): T[] {
  const text = readFileSync(new URL(file, folder), "utf8");
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as T);
}

interface Request {
  id: string;
  images: string[];
  prompts: string[];
  generation: { max_new_tokens: number };
}

interface Expected {
  id: string;
  kind: string;
  answer: string;
  prediction: string;
  sequences: number[][];
  text: string[];
}

const requests = lines<Request>("eval/requests.jsonl");
const expected = new Map(lines<Expected>("eval/expected.jsonl").map((line) => [line.id, line]));
const checkpoint = new URL("checkpoint/", folder).pathname;
const processor = await InstructBlipProcessor.from_pretrained(checkpoint);
const device = await testDevice();
const model = await InstructBlipForConditionalGeneration.from_pretrained(checkpoint, { device });

const asked = ALL ? requests : requests.filter((_, i) => i % 12 === 0);

test(`${asked.length} answers, token for token, and at least 90 % of them right`, async () => {
  expect(requests.length).toBe(500);
  const different: string[] = [];
  const right = new Map<string, { right: number; all: number }>();
  for (const { id, images, prompts, generation } of asked) {
    const inputs = await processor({
      images: images.map((image) => new URL(`eval/${image}`, folder).pathname),
      text: prompts,
    });
    const sequences = await model.generate({ ...inputs, ...generation });
    const golden = expected.get(id)!;
    if (JSON.stringify(sequences) !== JSON.stringify(golden.sequences)) different.push(id);
    expect(processor.batch_decode(golden.sequences, { skip_special_tokens: true }), id).toEqual(golden.text);
    const answer = processor
      .batch_decode([sequences[0].slice(inputs.input_ids![0].length)], { skip_special_tokens: true })[0]
      .trim();
    const kind = right.get(golden.kind) ?? { right: 0, all: 0 };
    right.set(golden.kind, { right: kind.right + Number(answer === golden.answer), all: kind.all + 1 });
  }
  expect(different).toEqual([]);
  const total = [...right.values()].reduce((sum, kind) => sum + kind.right, 0);
  expect(right.size).toBeGreaterThanOrEqual(5);
  expect(total / asked.length).toBeGreaterThanOrEqual(0.9);
}, 1_800_000); // SwiftShader needs a quarter of an hour for all

test("the same image under two instructions gives different query outputs", async () => {
  const image = new URL("eval/images/000.png", folder).pathname;
  const features = async (text: string) => {
    const { pixel_values, qformer_input_ids, qformer_attention_mask } = await processor({
      images: [image],
      text: [text],
    });
    const { image_features } = await model.get_image_features({
      pixel_values: pixel_values!,
      qformer_input_ids: qformer_input_ids!,
      qformer_attention_mask,
    });
    return image_features.read();
  };
  const [a, b] = [await features("Describe the image."), await features("How many shapes are there?")];
  const difference = Math.hypot(...a.map((x, i) => x - b[i])) / Math.hypot(...a);
  expect(difference).toBeGreaterThan(0.05);
});
