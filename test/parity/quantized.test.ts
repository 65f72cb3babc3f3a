import { expect, test } from "vitest";
import { AutoModelForImageTextToText } from "../../src/instructblip/pretrained/auto_model.ts";
import { compare } from "../compare.ts";
import { testDevice } from "../device.ts";
import { goldenFolder } from "../golden_folder.ts";
import { ALL } from "../rounds.ts";
import { Golden } from "./golden.ts";
import { COMPUTE_F16, compareModes, GATES, passes } from "./quantized.ts";

const QUESTIONS = ALL ? 12 : 6;

test(`${QUESTIONS} questions: each mode keeps f32's answers, and its logits as near as it must`, async () => {
  const rows = await compareModes(await testDevice(), ["f16", "bf16", "int8", "int4", COMPUTE_F16], QUESTIONS);
  for (const row of rows) {
    expect(passes(row), JSON.stringify(row)).not.toBe(false);
    expect(row.tokens).toBeGreaterThanOrEqual(2 * QUESTIONS);
    // The checkpoint answers with a wide margin: even int4 changes no answer of these.
    expect(row.sameAnswers, row.dtype).toBe(1);
    expect(row.accuracy, row.dtype).toBeGreaterThanOrEqual(0.9);
  }
  // They are stored as they say: each loses more than the one before. The file is f16.
  const [f32, f16, bf16, int8, int4, computed] = rows.map(({ meanKl }) => meanKl);
  expect([f32, f16]).toEqual([0, 0]);
  expect(bf16).toBeGreaterThan(1e-10);
  expect(int8).toBeGreaterThan(bf16);
  expect(int4).toBeGreaterThan(2 * int8);
  expect(computed).toBeGreaterThan(1e-12);
  expect(computed).toBeLessThan(bf16);
}, 300_000);

test("a gate can fail", () => {
  const row = { dtype: "int4", tokens: 9, meanKl: 0.01, kl99: 1, maxKl: 2, top1: 0.95, sameAnswers: 1, accuracy: 1 };
  expect(passes(row)).toBe(true);
  expect(passes({ ...row, meanKl: 0.04 })).toBe(false);
  expect(passes({ ...row, top1: 0.92 })).toBe(false);
  expect(passes({ ...row, dtype: "int8" })).toBe(false);
  expect(passes({ ...row, dtype: "language_model=int4" })).toBeUndefined();
  expect(Object.keys(GATES)).toEqual(["f32", "f16", "int8", "int4", COMPUTE_F16]);
});

test.each(["odd_widths", "opt_plain", "t5_odd_f16"])("%s: int8 in every part of a model of odd sizes", async (name) => {
  const golden = await Golden.open(goldenFolder(name));
  const device = await testDevice();
  const { qformer_attention_mask: _, ...given } = await golden.inputs();
  const inputs = {
    ...given,
    ...(name.startsWith("t5") && { decoder_input_ids: await golden.rows("decoder_input_ids") }),
  };
  const logits: Float32Array[] = [];
  for (const dtype of ["f32", "int8"] as const) {
    const model = await AutoModelForImageTextToText.from_pretrained(golden.folder, { device, dtype, compile: false });
    logits.push(await device.scope(async () => (await model.forward(inputs)).logits.read()));
    model.dispose();
  }
  await golden.close();
  const { nmse } = compare(logits[1], logits[0], {});
  // Weights drawn at random, whose logits lie close together: 5e-4 to 3.1e-3.
  expect(nmse).toBeLessThan(1e-2);
  expect(nmse).toBeGreaterThan(1e-6);
});
