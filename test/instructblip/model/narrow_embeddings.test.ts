/**
 * OPT with embeddings narrower than the model: image features fill the placeholders as in Hugging Face, number by number,
 * also if a row of features is not a whole number of embeddings. Live parity compares such models with PyTorch.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Checkpoint, InstructBlipForConditionalGeneration } from "../../../src/index.node.ts";
import { InstructBlipConfig } from "../../../src/instructblip/config/instructblip.ts";
import type { OPTForCausalLM } from "../../../src/instructblip/model/opt.ts";
import { Weights } from "../../../src/modules/weights.ts";
import { widen } from "../../../src/tensor/dtype.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { Random } from "../../random.ts";

const device = await testDevice();
const folder = goldenFolder("opt_post_norm_f16");
const given = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
const { hidden_size: D } = given.text_config;
/** 4 queries of 32 numbers are 11 embeddings and 7 numbers. */
const P = 11;

const file = await readFile(join(folder, "model.safetensors"));
const old = await Checkpoint.open(new MemorySource("old", file));
const entries: TensorEntry[] = [];
for (const { name, shape } of old.tensors.values()) {
  const cut = /embed_tokens|project_in/.test(name) ? [shape[0], P] : /project_out/.test(name) ? [P, D] : shape;
  const numbers = widen(await old.read(name), old.tensors.get(name)!.dtype as "f16" | "f32");
  const [width, kept] = [shape.at(-1)!, cut.at(-1)!];
  const data = numbers
    .filter((_, i) => i % width < kept)
    .subarray(
      0,
      cut.reduce((a, b) => a * b, 1),
    );
  entries.push({ name, dtype: "f32", shape: cut, data });
}
const checkpoint = await Checkpoint.open(new MemorySource("narrow", await serializeSafetensors(entries)));
const config = new InstructBlipConfig({ ...given, text_config: { ...given.text_config, word_embed_proj_dim: P } });
const weights = Weights.open(checkpoint, device);
const model = new InstructBlipForConditionalGeneration(weights, config);
await weights.load();
afterAll(() => weights.dispose());

test("features fill the placeholders one number after the other, of all rows", async () => {
  const { image_token, num_query_tokens: Q, vision_config } = config;
  const { image_size: S } = vision_config;
  const input_ids = [
    [...new Array<number>(Q).fill(image_token!), 5, 6],
    [...new Array<number>(Q).fill(image_token!), 7, 8],
  ];
  const pixel_values = { data: new Random(5).normal(2 * 3 * S * S), shape: [2, 3, S, S] };
  const inputs = { pixel_values, input_ids, qformer_input_ids: [[3], [4]] };
  const whole = await device.scope(async () => (await model.forward(inputs)).logits.read());

  const features = await device.scope(async () => (await model.get_image_features(inputs)).image_features.read());
  expect(features).toHaveLength(2 * Q * D);
  const table = await checkpoint.read("language_model.model.decoder.embed_tokens.weight");
  const rows = new Float32Array(table.buffer, table.byteOffset, table.byteLength / 4);
  let at = 0;
  const embeds = input_ids.flat().flatMap((id) => {
    if (id !== image_token) return [...rows.subarray(id * P, (id + 1) * P)];
    at += P;
    return [...features.subarray(at - P, at)];
  });
  const language_model = model.language_model as OPTForCausalLM;
  const logits = await device.scope(async () => {
    const inputs_embeds = device.tensor(Float32Array.from(embeds), [2, Q + 2, P]);
    const attention_mask = input_ids.map((row) => row.map(() => 1));
    return language_model.forward({ inputs_embeds, attention_mask }).logits.read();
  });
  expect(whole).toEqual(logits);
});

test("wider embeddings, and any others in a legacy config, are refused when the config is read", () => {
  const of = (word_embed_proj_dim: number, more: object = {}) =>
    new InstructBlipConfig({ ...given, ...more, text_config: { ...given.text_config, word_embed_proj_dim } });
  expect(of(D).text_config.hidden_size).toBe(D);
  expect(() => of(D + 1)).toThrow(expect.objectContaining({ code: "CONFIG_RANGE" }));
  const legacy = { image_token_index: undefined, image_token_id: undefined };
  expect(of(D, legacy).image_token).toBe(null);
  expect(() => of(16, legacy)).toThrow("without image_token_index");
});
