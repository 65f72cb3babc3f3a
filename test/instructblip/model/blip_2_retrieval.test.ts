/** BLIP-2's retrieval models against transformers' (test/golden/retrieval/make.py), and against themselves. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  AutoModel,
  AutoModelForImageTextToText,
  AutoProcessor,
  Blip2Config,
  Blip2ForImageTextRetrieval,
  Blip2TextModelWithProjection,
  Blip2VisionModelWithProjection,
  type Tensor,
} from "../../../src/index.node.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { FileSource } from "../../../src/tensor/files/source.node.ts";
import { contiguous } from "../../../src/tensor/ops/copy.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { Golden } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { TOLERANCES } from "../../tolerances.ts";

const device = await testDevice();
const folder = goldenFolder("itm");
const golden = await Golden.open(folder);
const quiet = { device, compile: false } as const;
const model = await Blip2ForImageTextRetrieval.from_pretrained(folder, quiet);
const { texts } = golden.json as unknown as { readonly texts: readonly string[] };
const images = texts.map((_, i) => join(folder, `image_${i}.png`));
const processor = await AutoProcessor.from_pretrained(folder);
const pixel_values = (await processor({ images })).pixel_values as { data: Float32Array; shape: number[] };
const [input_ids, attention_mask] = [await golden.rows("input_ids"), await golden.rows("attention_mask")];
const inputs = { pixel_values, input_ids, attention_mask };
const Q = 5;
const text = {
  input_ids: input_ids.map((row) => row.slice(Q)),
  attention_mask: attention_mask.map((row) => row.slice(Q)),
};
afterAll(async () => {
  model.dispose();
  await golden.close();
});

async function expectGolden(
  name: string,
  tensor: { read(): Promise<Float32Array>; shape: readonly number[] } | undefined,
) {
  const { data, shape } = await golden.floats(name);
  expect(tensor?.shape, name).toEqual(shape);
  expectClose(await tensor!.read(), data, TOLERANCES.free_running, name);
}

/** f32[B, M, D] -> f32[M, D]: goldens have one row of large tensors. */
function rowOf(x: Tensor, b: number): Tensor {
  return contiguous(x.narrow(0, b, 1)).reshape(x.shape.slice(1));
}

/** Scores in f64 for the same weights. */
async function exact(name: string): Promise<Float64Array> {
  const file = await SafetensorsFile.open(await FileSource.open(join(folder, "golden.safetensors")));
  const bytes = await file.read(`exact:${name}`);
  await file.close();
  return new Float64Array(bytes.slice().buffer);
}

describe("Blip2ForImageTextRetrieval", () => {
  test("has nothing to warn of, and the processor's ids are transformers'", async () => {
    expect(model.warnings).toEqual([]);
    const made = await processor({ images, text: [...texts], padding: true });
    expect(made).toMatchObject({ input_ids, attention_mask });
    expect(await processor({ text: [...texts], padding: true })).toEqual(text);
  });

  test("compares every text with every image (ITC)", async () => {
    const output = await model.forward(inputs);
    for (const name of ["logits_per_image", "logits_per_text", "image_embeds", "text_embeds"] as const) {
      await expectGolden(`itc.${name}`, output[name]);
    }
    expectClose(await output.logits_per_image.read(), await exact("itc.logits_per_image"), TOLERANCES.free_running);
    const { image_embeds } = await model.get_image_features({ pixel_values });
    expect(await image_embeds.read()).toEqual(await output.image_embeds.read());
    const { text_embeds } = await model.get_text_features(text);
    expect(await text_embeds.read()).toEqual(await output.text_embeds!.read());
  });

  test("judges pairs (ITM)", async () => {
    const output = await model.forward(inputs, { use_image_text_matching_head: true } as object);
    await expectGolden("itm.logits_per_image", output.logits_per_image);
    await expectGolden("itm.logits_per_text", output.logits_per_text);
    await expectGolden("itm.text_model_output", rowOf(output.text_model_output.last_hidden_state, 1));
    expect(output.image_embeds).toBe(output.vision_model_output.last_hidden_state);
    expect(output.text_embeds).toBeUndefined();
    expectClose(await output.logits_per_image.read(), await exact("itm.logits_per_image"), TOLERANCES.free_running);
  });

  test("reads texts with placeholders and without as the same, and counts no padding", async () => {
    const { logits_per_image } = await model.forward({ ...inputs, ...text });
    await expectGolden("itc.logits_per_image", logits_per_image);
    const [row, mask] = [text.input_ids[0], text.attention_mask[0]];
    const length = mask.reduce((sum, visible) => sum + visible, 0);
    expect(length).toBeLessThan(row.length); // else there is no padding
    for (const use_image_text_matching_head of [false, true]) {
      const padded = { ...inputs, use_image_text_matching_head };
      const alone = {
        pixel_values: { data: pixel_values.data.slice(0, pixel_values.data.length / 3), shape: [1, 3, 21, 21] },
        input_ids: [row.slice(0, length)],
        use_image_text_matching_head,
      };
      const [together, single] = [await model.forward(padded), await model.forward(alone)];
      const numbers = await single.logits_per_image.read();
      const first = (await together.logits_per_image.read()).slice(0, numbers.length);
      expectClose(numbers, first, TOLERANCES.free_running, "one text alone");
    }
  });

  test("encodes an image that several texts are about once, with the same scores", async () => {
    const one = pixel_values.data.slice(0, pixel_values.data.length / 3);
    const repeated = { data: Float32Array.from([...one, ...one, ...one]), shape: pixel_values.shape };
    const options = { use_image_text_matching_head: true };
    const { logits_per_image } = await model.forward({ ...text, pixel_values: repeated, ...options });
    const scores = await logits_per_image.read();
    for (const [i, row] of text.input_ids.entries()) {
      const single = { pixel_values: { data: one, shape: [1, 3, 21, 21] }, input_ids: [row], ...options };
      const { logits_per_image: alone } = await model.forward({ ...single, attention_mask: [text.attention_mask[i]] });
      expectClose(scores.slice(2 * i, 2 * i + 2), await alone.read(), TOLERANCES.free_running, `text ${i}`);
    }
  });

  test.runIf(ALL)("gives states and maps of both passes", async () => {
    const states = { output_hidden_states: true, output_attentions: true };
    const { text_model_output, vision_model_output } = await model.forward(inputs, states);
    expect(text_model_output.hidden_states).toHaveLength(3);
    expect(text_model_output.attentions).toHaveLength(2);
    expect(vision_model_output.hidden_states).toHaveLength(2);
    await expectGolden("text.hidden_states.1", rowOf(text_model_output.hidden_states![1], 0));
  });

  test("is saved under its own name, and read again", async () => {
    const to = temporaryFolder();
    await model.save_pretrained(to);
    const config = JSON.parse(readFileSync(join(to, "config.json"), "utf8")) as Record<string, unknown>;
    expect(config).toMatchObject({ architectures: ["Blip2ForImageTextRetrieval"], image_text_hidden_size: 10 });
    const again = await Blip2ForImageTextRetrieval.from_pretrained(to, quiet);
    await expectGolden(
      "itm.logits_per_image",
      (await again.forward({ ...inputs, use_image_text_matching_head: true })).logits_per_image,
    );
    again.dispose();
  });

  test("refuses what cannot be compared", async () => {
    const two = { input_ids: text.input_ids.slice(0, 2) };
    expect((await model.forward({ pixel_values, ...two })).logits_per_image.shape).toEqual([3, 2]);
    await expect(model.forward({ pixel_values, ...two, use_image_text_matching_head: true })).rejects.toMatchObject({
      code: "BATCH_MISMATCH",
      message: expect.stringContaining("3 images for 2 texts"),
    });
    const long = { input_ids: [new Array<number>(41).fill(1)] };
    await expect(model.get_text_features(long)).rejects.toThrow("the text has 41 Q-Former tokens; it reads 40 at most");
    await expect(model.get_text_features({ input_ids: [[71]] })).rejects.toMatchObject({ code: "TOKEN_ID" });
    const given = { ...inputs, qformer_input_ids: input_ids };
    await expect(model.forward(given)).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });
    const json = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as { qformer_config: object };
    const config = new Blip2Config({
      ...json,
      qformer_config: { ...json.qformer_config, use_qformer_text_input: false },
    });
    expect(() => new Blip2ForImageTextRetrieval({ device } as never, config)).toThrow(
      "use_qformer_text_input must be true",
    );
  });
});

test("AutoModel takes the class of config.json's architectures; a model that generates is asked for by name", async () => {
  const loaded = await AutoModel.from_pretrained(folder, quiet);
  expect(loaded).toBeInstanceOf(Blip2ForImageTextRetrieval);
  loaded.dispose();
  const generating = AutoModelForImageTextToText.from_pretrained(folder, quiet);
  await expect(generating).rejects.toMatchObject({
    code: "UNSUPPORTED_MODEL",
    hint: expect.stringContaining("Blip2ForImageTextRetrieval.from_pretrained or AutoModel loads it"),
  });
});

test("Blip2VisionModelWithProjection embeds images", async () => {
  const half = await Blip2VisionModelWithProjection.from_pretrained(folder, quiet);
  expect(half.warnings).toEqual([]);
  const output = await half.forward({ pixel_values });
  await expectGolden("itc.image_embeds", output.image_embeds);
  await expectGolden("vision.last_hidden_state", rowOf(output.last_hidden_state, 0));
  half.dispose();
});

test("Blip2TextModelWithProjection embeds texts, at positions that may be given", async () => {
  const half = await Blip2TextModelWithProjection.from_pretrained(folder, quiet);
  expect(half.warnings).toEqual([]);
  const output = await half.forward(text, { output_hidden_states: true });
  await expectGolden("text.text_embeds", output.text_embeds);
  await expectGolden("text.hidden_states.1", rowOf(output.hidden_states![1], 0));
  const position_ids = await golden.rows("text.positions");
  const flipped = await half.forward({ ...text, position_ids });
  const { data } = await golden.floats("text.flipped");
  const rows = await flipped.text_embeds.read();
  const L = position_ids[0].length;
  const firsts = [0, 1, 2].flatMap((b) => [...rows.slice(b * L * 10, b * L * 10 + 10)]);
  expectClose(firsts, data, TOLERANCES.free_running, "flipped");
  await expect(half.forward({ ...text, position_ids: [[0]] })).rejects.toMatchObject({ code: "BATCH_MISMATCH" });
  half.dispose();
});
