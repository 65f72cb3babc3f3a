/** A NaN or an infinity in the weights is an error that names the first module with it. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, NumericError, type VisionLanguageModel } from "../../../src/index.node.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import { GpuDevice } from "../../../src/tensor/device/device.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";

const device = await testDevice();
/** As a GPU, whose steps are ahead of the ids that are read. */
const ahead = new GpuDevice(device.handle, { ...device.caps, isSoftware: false }, Number.POSITIVE_INFINITY);
const folder = mkdtempSync(join(tmpdir(), "numerics-"));
const models: VisionLanguageModel[] = [];
afterAll(() => {
  for (const model of models) model.dispose();
  rmSync(folder, { recursive: true });
});

const BITS = {
  NaN: { F32: 0x7fc00000, F16: 0x7e00, BF16: 0x7fc0 },
  Infinity: { F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 },
} as const;

/** A golden's checkpoint, of which one number is another: that at `place` of a tensor. */
async function open(golden: string, tensor?: string, number: keyof typeof BITS = "NaN", place = 0, on = device) {
  const inputs = (await goldenInputs(golden)) as InstructBlipInputs;
  const copy = join(folder, `${golden}-${tensor}-${number}`);
  cpSync(goldenFolder(golden), copy, { recursive: true });
  if (tensor) {
    const bytes = readFileSync(join(copy, "model.safetensors"));
    const start = 8 + Number(bytes.readBigUInt64LE(0));
    const { dtype, data_offsets } = JSON.parse(bytes.subarray(8, start).toString())[tensor];
    const bits = BITS[number][dtype as "F32"];
    if (dtype === "F32") bytes.writeUInt32LE(bits, start + data_offsets[0] + 4 * place);
    else bytes.writeUInt16LE(bits, start + data_offsets[0] + 2 * place);
    writeFileSync(join(copy, "model.safetensors"), bytes);
  }
  const model = (await AutoModelForImageTextToText.from_pretrained(copy, { device: on })) as unknown as Model;
  models.push(model);
  return { model, inputs };
}

type Model = VisionLanguageModel & {
  generate(options: object): Promise<number[][]>;
  forward(options: object): Promise<{ loss?: number }>;
  rank_answers(options: object): Promise<{ sums: number[]; ranks: number[] }[]>;
};

const WAYS = {
  "greedy search": {},
  "a penalty and bans": { repetition_penalty: 1.3, no_repeat_ngram_size: 3 },
  "scores on the host": { exponential_decay_length_penalty: [1, 1.1] },
  "drawing from the best": { do_sample: true, seed: 1 },
  "drawing from all": { do_sample: true, seed: 1, top_k: 0 },
  "several samples": { do_sample: true, seed: 1, num_return_sequences: 2 },
  beams: { num_beams: 3 },
  "beams on the host": { num_beams: 3, exponential_decay_length_penalty: [1, 1.1] },
  "drawn beams": { num_beams: 2, do_sample: true, seed: 1 },
} as const;

describe.each([
  ["plain_f32", "language_model.model.layers.1.mlp.down_proj.weight", "language_model.model.layers.1.mlp.down_proj"],
  [
    "t5_flan",
    "language_model.decoder.block.1.layer.1.EncDecAttention.v.weight",
    "language_model.decoder.block.1.layer.1.EncDecAttention.v",
  ],
  ["opt_plain", "language_model.model.decoder.layers.0.fc1.weight", "language_model.model.decoder.layers.0.fc1"],
])("a NaN in %s", async (golden, tensor, module) => {
  const { model, inputs } = await open(golden, tensor);
  const error = { name: "NumericError", code: "NUMERIC", module: expect.stringContaining(module) };

  // What a way does with its scores is nothing to the language model: of the first all, of the others every third.
  const ways = Object.keys(WAYS) as (keyof typeof WAYS)[];
  const first = ["plain_f32", "t5_flan", "opt_plain"].indexOf(golden);
  test.each(ways.filter((_, i) => ALL || first === 0 || i % 3 === first))("%s", async (way) => {
    const failing = model.generate({ ...inputs, max_new_tokens: 4, ...WAYS[way] });
    await expect(failing).rejects.toMatchObject(error);
    await expect(failing).rejects.toThrow(`the first module whose output has one is ${module}`);
  });

  test("ranking and a loss", async () => {
    const labels = model.language_model.is_encoder_decoder
      ? [
          [5, 6],
          [7, 8],
        ]
      : inputs.input_ids;
    await expect(model.forward({ ...inputs, labels })).rejects.toMatchObject(error);
    const { loss } = await model.forward({ ...inputs, labels, check_numerics: false });
    expect(loss).toBeNaN();
    await expect(model.rank_answers({ ...inputs, candidates: [[5], [6, 7]] })).rejects.toMatchObject(error);
    const [first] = await model.rank_answers({ ...inputs, candidates: [[5], [6, 7]], check_numerics: false });
    expect(first).toMatchObject({ sums: [Number.NaN, Number.NaN], ranks: [0, 1] });
  });

  test("who wants to go on, does", async () => {
    for (const on of [{ check_numerics: false }, { remove_invalid_values: true }]) {
      const rows = await model.generate({ ...inputs, max_new_tokens: 2, eos_token_id: null, ...on });
      expect(rows.length).toBe(inputs.input_ids.length);
    }
  });

  test("a streamer is told, and the device is as good as before", async () => {
    const ended: unknown[] = [];
    const streamer = { put() {}, end: (reason: unknown) => ended.push(reason) };
    await expect(model.generate({ ...inputs, streamer })).rejects.toMatchObject(error);
    expect(ended).toEqual([expect.any(NumericError)]);
    expect(device.observers).toEqual([]);
    const before = device.memory.use.live;
    await expect(model.generate({ ...inputs, max_new_tokens: 3 })).rejects.toMatchObject(error);
    expect(device.memory.use.live).toBe(before);
  });
});

test.each([
  ["head_dim_88_f16", "vision_model.encoder.layers.0.mlp.fc1.weight", "vision_model.encoder.layers.0.mlp.fc1"],
  [
    "grouped_heads_bf16",
    "qformer.encoder.layer.0.attention.attention.query.weight",
    "qformer.encoder.layer.0.attention.attention.query",
  ],
])("an infinity in %s, stored as half a number, is found in %s", async (golden, tensor, module) => {
  const { model, inputs } = await open(golden, tensor, "Infinity");
  await expect(model.generate({ ...inputs, max_new_tokens: 2 })).rejects.toMatchObject({ code: "NUMERIC", module });
});

test("a fault that comes with a later token is found in the row that has it", async () => {
  const sound = await open("odd_widths");
  const options = { max_new_tokens: 3, eos_token_id: null };
  const answers = await sound.model.generate({ ...sound.inputs, ...options, return_full_text: false });
  const [first] = answers[1];
  expect([...sound.inputs.input_ids.flat(), ...answers[0]]).not.toContain(first);
  const width = sound.model.config.text_config.hidden_size;
  const given: number[][][] = [];
  const streamer = { put: (ids: number[][]) => given.push(ids), end() {} };
  for (const on of [device, ahead]) {
    const { model, inputs } = await open(
      "odd_widths",
      "language_model.model.embed_tokens.weight",
      "NaN",
      first * width,
      on,
    );
    const failing = model.generate({ ...inputs, ...options, streamer });
    await expect(failing).rejects.toMatchObject({ module: "language_model.model.embed_tokens" });
    await expect(failing).rejects.toThrow("prompt 1: no token can be chosen");
    expect(given.splice(0).slice(1)).toEqual([answers.map(([id]) => [id])]); // what was known by then
    const beams = model.generate({ ...inputs, ...options, num_beams: 2 });
    await expect(beams).rejects.toMatchObject({ module: "language_model.model.embed_tokens" });
  }
});
