/** BLIP-2, videos, other image sizes, legacy files and Vicuna's token ids: cases without goldens, and refusals. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  AutoConfig,
  AutoModelForImageTextToText,
  AutoProcessor,
  Blip2Config,
  Blip2ForConditionalGeneration,
  InstructBlipConfig,
  InstructBlipForConditionalGeneration,
  InstructBlipVideoConfig,
  InstructBlipVideoForConditionalGeneration,
  LlamaConfig,
} from "../../../src/index.node.ts";
import { fixVicunaTokenIds } from "../../../src/instructblip/config/vicuna.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { Golden, goldenInputs } from "../../parity/golden.ts";
import { TOLERANCES } from "../../tolerances.ts";

const device = await testDevice();
const scratch = mkdtempSync(join(tmpdir(), "siblings-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const plain = goldenFolder("plain_f32");
const flan = goldenFolder("t5_flan");

/** A copy of a checkpoint with another config.json. */
function withConfig(folder: string, change: (config: Record<string, unknown>) => void): string {
  const copy = mkdtempSync(join(scratch, "model-"));
  cpSync(folder, copy, { recursive: true });
  const file = join(copy, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  change(config);
  writeFileSync(file, JSON.stringify(config));
  return copy;
}

describe("configs", () => {
  test("are told apart by their model_type", () => {
    expect(AutoConfig.parse('{"model_type": "instructblip"}')).toBeInstanceOf(InstructBlipConfig);
    expect(AutoConfig.parse('{"model_type": "blip-2"}')).toBeInstanceOf(Blip2Config);
    expect(AutoConfig.parse('{"model_type": "instructblipvideo"}')).toBeInstanceOf(InstructBlipVideoConfig);
    expect(() => AutoConfig.parse('{"model_type": "llava"}')).toThrow(
      'model_type must be "instructblip" or "blip-2" or "instructblipvideo", got "llava"',
    );
    expect(() => AutoConfig.parse("{")).toThrow("config.json: not valid JSON");
    expect(() => Blip2Config.parse('{"model_type": "instructblip"}')).toThrow('must be "blip-2", got "instructblip"');
  });

  test("read the placeholder under either name, and have Hugging Face's defaults", () => {
    expect(new Blip2Config({ image_token_id: 7 }).image_token).toBe(7);
    expect(new InstructBlipVideoConfig({ video_token_index: 8 }).image_token).toBe(8);
    expect(new InstructBlipVideoConfig({ video_token_id: 9 }).image_token).toBe(9);
    expect(new InstructBlipVideoConfig({ image_token_index: 9 }).image_token).toBeNull();
    const config = new Blip2Config();
    expect(config).toMatchObject({ num_query_tokens: 32, image_text_hidden_size: 256, modality: "image" });
    expect(config.qformer_config).toMatchObject({ vocab_size: 30522, use_qformer_text_input: false, has_text: false });
    expect(config.text_config.model_type).toBe("opt");
    expect(() => new Blip2Config({ qformer_config: { use_qformer_text_input: 1 } })).toThrow(
      "qformer_config.use_qformer_text_input must be true or false, got 1",
    );
  });

  test("are made of three", () => {
    const vision = { hidden_size: 48, num_attention_heads: 4, image_size: 28 };
    const text = new LlamaConfig({ hidden_size: 64, num_attention_heads: 4 });
    const parts = [vision, { encoder_hidden_size: 1 }, text, { num_query_tokens: 5 }] as const;
    for (const config of [
      InstructBlipConfig.from_vision_qformer_text_configs(...parts),
      Blip2Config.from_vision_qformer_text_configs(...parts),
      InstructBlipVideoConfig.from_vision_qformer_text_configs(...parts),
    ]) {
      expect(config.num_query_tokens).toBe(5);
      expect(config.vision_config.image_size).toBe(28);
      expect(config.qformer_config.encoder_hidden_size).toBe(48);
      expect(config.text_config).toBe(text);
    }
    expect(Blip2Config.from_vision_qformer_text_configs(...parts)).toBeInstanceOf(Blip2Config);
  });
});

test.each([
  [plain, InstructBlipForConditionalGeneration],
  [goldenFolder("blip2_opt"), Blip2ForConditionalGeneration],
  [goldenFolder("video_1_frame"), InstructBlipVideoForConditionalGeneration],
] as const)("%s is loaded as the class that it is, and as no other", async (folder, Model) => {
  const model = await AutoModelForImageTextToText.from_pretrained(folder, { device });
  expect(model).toBeInstanceOf(Model);
  expect(model.warnings).toEqual([]);
  model.dispose();
  const others = [InstructBlipForConditionalGeneration, Blip2ForConditionalGeneration].filter((one) => one !== Model);
  for (const Other of others) {
    const loading: Promise<unknown> =
      Other === Blip2ForConditionalGeneration
        ? Blip2ForConditionalGeneration.from_pretrained(folder, { device })
        : InstructBlipForConditionalGeneration.from_pretrained(folder, { device });
    await expect(loading).rejects.toMatchObject({ code: "UNSUPPORTED_MODEL" });
  }
});

describe("BLIP-2", async () => {
  const model = await Blip2ForConditionalGeneration.from_pretrained(goldenFolder("blip2_opt"), { device });
  const { pixel_values, input_ids, attention_mask } = await goldenInputs("blip2_opt");
  afterAll(() => model.dispose());

  test("gives features without a prompt", async () => {
    const { image_features, qformer_outputs } = await model.get_image_features({ pixel_values });
    const again = await model.get_qformer_features({ pixel_values });
    expect(image_features.shape).toEqual([2, 3, 32]);
    expect(qformer_outputs.last_hidden_state.shape).toEqual([2, 3, 24]);
    expect(await again.last_hidden_state.read()).toEqual(await qformer_outputs.last_hidden_state.read());
    const golden = await Golden.open(goldenFolder("blip2_opt"));
    const expected = await golden.floats("image_features");
    await golden.close();
    expectClose(await image_features.read(), expected.data, TOLERANCES.free_running, "image features");
  });

  test("refuses a row of prompt too many, and what it does not know", async () => {
    const rows = [...input_ids, input_ids[0]];
    await expect(model.generate({ pixel_values, input_ids: rows })).rejects.toThrow("2 images for 3 prompts");
    const given = { pixel_values, input_ids, attention_mask, qformer_input_ids: input_ids };
    await expect(model.generate(given)).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });
  });

  test("needs a prompt where there is no token to begin a text with", async () => {
    const folder = withConfig(goldenFolder("blip2_opt"), (config) => {
      (config.text_config as Record<string, unknown>).bos_token_id = null;
    });
    const other = await Blip2ForConditionalGeneration.from_pretrained(folder, { device });
    await expect(other.generate({ pixel_values })).rejects.toThrow("text_config has no bos_token_id");
    other.dispose();
  });
});

describe("a video", async () => {
  const model = await InstructBlipVideoForConditionalGeneration.from_pretrained(goldenFolder("video_4_frames"), {
    device,
  });
  const { pixel_values, qformer_input_ids, qformer_attention_mask, ...prompt } = await goldenInputs("video_4_frames");
  afterAll(() => model.dispose());
  const [B, F, ...image] = pixel_values.shape;
  const inputs = { pixel_values, qformer_input_ids, qformer_attention_mask };

  test("has the features of its frames, one frame after the other", async () => {
    const { image_features, vision_outputs } = await model.get_video_features(inputs);
    expect(image_features.shape).toEqual([B, F * 3, 32]);
    expect(vision_outputs.last_hidden_state.shape.slice(0, 2)).toEqual([B * F, 10]);
    const all = await image_features.read();
    const size = image.reduce((product, n) => product * n, 1);
    for (const [b, f] of [
      [0, 0],
      [0, 3],
      [1, 1],
    ]) {
      const frame = pixel_values.data.slice((b * F + f) * size, (b * F + f + 1) * size);
      const alone = await model.get_video_features({
        pixel_values: { data: frame, shape: [1, 1, ...image] },
        qformer_input_ids: [qformer_input_ids[b]],
        qformer_attention_mask: [qformer_attention_mask[b]],
      });
      const start = (b * F + f) * 3 * 32;
      const features = await alone.image_features.read();
      expectClose(all.slice(start, start + 3 * 32), features, TOLERANCES.free_running, `frame ${f} of video ${b}`);
    }
  });

  test("needs placeholders for each of its frames, and pixels of frames", async () => {
    const fewer = { data: pixel_values.data.slice(0, pixel_values.data.length / 2), shape: [B, F / 2, ...image] };
    await expect(model.generate({ ...inputs, ...prompt, pixel_values: fewer })).rejects.toThrow(
      "input_ids row 0 has 12 video tokens",
    );
    const flat = { data: pixel_values.data, shape: [B * F, ...image] };
    await expect(model.generate({ ...inputs, ...prompt, pixel_values: flat })).rejects.toThrow(
      "pixel_values must be { data, shape }, a Float32Array of shape [B, F, 3, H, W], got [8,3,",
    );
    await expect(model.get_video_features({ ...inputs, qformer_input_ids: [qformer_input_ids[0]] })).rejects.toThrow(
      "2 videos for 1 prompts",
    );
  });
});

describe("images of another size", async () => {
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("larger_image"), { device });
  const inputs = await goldenInputs("larger_image");
  afterAll(() => model.dispose());

  test("are refused unless interpolate_pos_encoding says otherwise", async () => {
    await expect(model.forward(inputs)).rejects.toMatchObject({
      code: "IMAGE_SIZE",
      message: expect.stringContaining("images must be 21 x 21, got 42 x 42"),
      hint: "interpolate_pos_encoding: true takes any size",
    });
    const { vision_outputs } = await model.forward({ ...inputs, interpolate_pos_encoding: true });
    expect(vision_outputs.last_hidden_state.shape[1]).toBe(1 + 6 * 6);
  });

  test("are refused below the size of a patch", async () => {
    const pixel_values = { data: new Float32Array(2 * 3 * 6 * 40), shape: [2, 3, 6, 40] };
    const features = model.get_image_features({ ...inputs, pixel_values, interpolate_pos_encoding: true });
    await expect(features).rejects.toThrow("pixel_values: a patch has 7 x 7, got 6 x 40");
  });

  test("may be the model's own, or have a few pixels more: nothing is interpolated", async () => {
    const { data, shape } = inputs.pixel_values;
    const corner = (side: number) => {
      const cut = new Float32Array(2 * 3 * side * side);
      for (let i = 0; i < cut.length; i++) {
        const [x, y, plane] = [i % side, Math.floor(i / side) % side, Math.floor(i / side / side)];
        cut[i] = data[(plane * shape[2] + y) * shape[3] + x];
      }
      return { data: cut, shape: [2, 3, side, side] };
    };
    const read = async (side: number, interpolate_pos_encoding: boolean) => {
      const options = { ...inputs, pixel_values: corner(side), interpolate_pos_encoding };
      return (await model.get_image_features(options)).image_features.read();
    };
    const expected = await read(21, false);
    expect(await read(21, true)).toEqual(expected);
    expect(await read(24, true)).toEqual(expected);
    expect(await read(28, true)).not.toEqual(expected);
  });
});

test("the three Auto classes go together, for the compiler too", async () => {
  const folder = goldenFolder("blip2_opt");
  const processor = await AutoProcessor.from_pretrained(folder);
  const model = await AutoModelForImageTextToText.from_pretrained(folder, { device });
  const inputs = await processor({ images: [join(folder, "image_0.png")], text: ["a photo of"] });
  const sequences: number[][] = await model.generate({ ...inputs, max_new_tokens: 2 });
  expect(sequences[0].slice(0, inputs.input_ids[0].length)).toEqual(inputs.input_ids[0]);
  model.dispose();
});

describe("a legacy checkpoint", async () => {
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("legacy_llama"), { device });
  const inputs = await goldenInputs("legacy_llama");
  afterAll(() => model.dispose());
  const P = 3 + inputs.input_ids[0].length;

  test("counts features and prompt in max_length and min_length, and not in rows", async () => {
    const rows = await model.generate({ ...inputs, max_length: P + 2, eos_token_id: null });
    expect(rows.map((row) => row.length)).toEqual([2, 2]);
    await expect(model.generate({ ...inputs, max_length: P })).rejects.toThrow(
      `max_length must be more than the ${P} tokens of image and prompt`,
    );
    const [first] = await model.generate({ ...inputs, max_new_tokens: 1 });
    const end = { eos_token_id: first[0], max_new_tokens: 4 };
    const ended = await model.generate({ ...inputs, ...end, min_length: P });
    expect(ended[0][0]).toBe(first[0]);
    const later = await model.generate({ ...inputs, ...end, min_length: P + 1 });
    expect(later[0][0]).not.toBe(first[0]);
  });

  test("refuses placeholders that a processor has put in front all the same, not padding", async () => {
    const withThree = (id: number) => inputs.input_ids.map((row) => [id, id, id, ...row]);
    const mask = (visible: number) => inputs.attention_mask.map((row) => [visible, visible, visible, ...row]);
    const given = { ...inputs, input_ids: withThree(300), attention_mask: mask(1) };
    await expect(model.generate(given)).rejects.toMatchObject({
      code: "IMAGE_TOKENS",
      message: expect.stringContaining("input_ids row 0 begins with 3 times 300"),
      hint: expect.stringContaining("config.json has no image_token_index: set it to 300"),
    });
    const beyond = { ...given, input_ids: withThree(99999) };
    await expect(model.generate(beyond)).rejects.toMatchObject({ code: "IMAGE_TOKENS" });
    const padded = await model.generate({ ...given, attention_mask: mask(0), max_new_tokens: 4 });
    expect(padded).toEqual(await model.generate({ ...inputs, max_new_tokens: 4 }));
  });

  test("streams the answer alone", async () => {
    const put: unknown[] = [];
    const rows = await model.generate({
      ...inputs,
      max_new_tokens: 2,
      streamer: { put: (ids) => put.push(structuredClone(ids)), end: () => {} },
    });
    expect(put).toEqual([[[], []], ...[0, 1].map((step) => rows.map((row) => [row[step]]))]);
  });

  test("ranks answers by what forward() says of them", async () => {
    const one = Object.fromEntries(Object.entries(inputs).map(([name, rows]) => [name, (rows as number[][])[0]]));
    const { data, shape } = inputs.pixel_values;
    const first = {
      pixel_values: { data: data.slice(0, data.length / 2), shape: [1, ...shape.slice(1)] },
      input_ids: [one.input_ids],
      qformer_input_ids: [one.qformer_input_ids],
      qformer_attention_mask: [one.qformer_attention_mask],
    };
    const [{ sums }] = await model.rank_answers({ ...first, candidates: [[7, 9], [11]] });
    const labels = [...new Array<number>(P).fill(-100), 7, 9];
    const ids = [[...one.input_ids, 7, 9]];
    const { loss } = await model.forward({ ...first, input_ids: ids, labels: [labels] });
    expect(Math.abs(sums[0] - 2 * loss!)).toBeLessThan(1e-4); // sums of two logarithms, of logits that differ by some 1e-6
  });
});

describe("fix_vicuna_token_ids", () => {
  test("gives the tokenizer's ids, pad where the vocabulary has it", () => {
    const config = new LlamaConfig({ pad_token_id: -1, bos_token_id: 0, eos_token_id: 1, hidden_size: 512 });
    const fixed = fixVicunaTokenIds(config, 32001);
    expect(fixed).toMatchObject({ bos_token_id: 2, eos_token_id: 2, pad_token_id: 32000, hidden_size: 512 });
    expect(fixVicunaTokenIds(config, 32000).pad_token_id).toBe(2);
    expect(config.eos_token_id).toBe(1);
  });

  test("ends answers at </s>", async () => {
    const folder = withConfig(plain, (config) => {
      Object.assign(config.text_config as object, { pad_token_id: -1, bos_token_id: 0, eos_token_id: 1 });
    });
    const asPublished = await InstructBlipForConditionalGeneration.from_pretrained(folder, { device });
    expect(asPublished.config.text_config).toMatchObject({ eos_token_id: 1, pad_token_id: -1 });
    asPublished.dispose();
    const fixed = await InstructBlipForConditionalGeneration.from_pretrained(folder, {
      device,
      fix_vicuna_token_ids: true,
    });
    expect(fixed.config.text_config).toMatchObject({ bos_token_id: 2, eos_token_id: 2, pad_token_id: 2 });
    const { pixel_values, qformer_input_ids, input_ids } = await goldenInputs("plain_f32");
    const prompt = { pixel_values, qformer_input_ids, input_ids };
    const forced = { max_new_tokens: 4, return_full_text: false };
    const free = await fixed.generate({ ...prompt, ...forced });
    const ended = await fixed.generate({ ...prompt, ...forced, prefix_allowed_tokens_fn: () => [2] });
    expect(free[0].length).toBe(4);
    expect(ended).toEqual([[2]]);
    fixed.dispose();
  });

  test("is refused for another language model", async () => {
    const loading = InstructBlipForConditionalGeneration.from_pretrained(flan, { device, fix_vicuna_token_ids: true });
    await expect(loading).rejects.toMatchObject({ code: "NOT_VICUNA" });
  });
});
