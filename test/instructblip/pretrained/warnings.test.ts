/** Warnings about options without effect: by default to the console, each once. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { InstructBlipForConditionalGeneration } from "../../../src/index.node.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";

const device = await testDevice();
const folder = goldenFolder("odd_widths");
const { pixel_values, qformer_input_ids, input_ids } = await goldenInputs("odd_widths");
const inputs: InstructBlipInputs = { pixel_values, qformer_input_ids, input_ids };
const models: InstructBlipForConditionalGeneration[] = [];
const open = async (options: object) => {
  models.push(await InstructBlipForConditionalGeneration.from_pretrained(folder, { device, ...options }));
  return models[models.length - 1];
};
afterAll(() => {
  for (const model of models) model.dispose();
});
const console_ = vi.spyOn(console, "warn").mockImplementation(() => {});
afterEach(() => console_.mockClear());

const asked = { ...inputs, max_new_tokens: 1, temperature: 0.5 };
const WARNING = "temperature has no effect: do_sample is not true";

test("the console, once, with the library's name", async () => {
  const model = await open({});
  await model.generate(asked);
  await model.generate(asked);
  await model.generate(asked, { length_penalty: 2 });
  expect(console_.mock.calls).toEqual([
    [`instructblip-webgpu: ${WARNING}`],
    ["instructblip-webgpu: length_penalty has no effect: num_beams is 1"],
  ]);
});

test("a listener of the model, once; a listener of a call, each time; none", async () => {
  const heard: string[] = [];
  const model = await open({ on_warning: (message: string) => heard.push(message) });
  await model.generate(asked);
  await model.generate(asked);
  expect(heard.splice(0)).toEqual([WARNING]);
  for (let i = 0; i < 2; i++) await model.generate({ ...asked, on_warning: (message) => heard.push(message) });
  expect(heard).toEqual([WARNING, WARNING]);
  await model.generate({ ...asked, top_p: 0.5, on_warning: null });
  await (await open({ on_warning: null })).generate(asked);
  expect(heard).toEqual([WARNING, WARNING]);
  expect(console_).not.toHaveBeenCalled();
});

test("warnings about a checkpoint", async () => {
  const heard: string[] = [];
  const options = { kv_cache_dtype: "f16", on_warning: (message: string) => heard.push(message) };
  const model = await open(options);
  expect(model.warnings).toHaveLength(1);
  expect(heard).toEqual(model.warnings);
});

test("a prompt that is padded on the right", async () => {
  const model = await open({});
  const heard: string[] = [];
  const attention_mask = inputs.input_ids.map((row) => row.map((_, i) => Number(i < row.length - 1)));
  const on_warning = (message: string) => heard.push(message);
  await model.generate({ ...inputs, attention_mask, max_new_tokens: 1, on_warning });
  expect(heard.join()).toMatch(/padded on the right: .*padding_side: "left"/);
});

test("a listener may return a promise; its rejection is thrown to the caller", async () => {
  const refused = new Error("the log is full");
  const rejecting = async () => {
    throw refused;
  };
  const model = await open({ on_warning: rejecting });
  await expect(model.generate(asked)).rejects.toBe(refused);
  await expect(model.generate({ ...asked, on_warning: rejecting })).rejects.toBe(refused);
  await expect(open({ kv_cache_dtype: "f16", on_warning: rejecting })).rejects.toBe(refused);
  await expect(open({ on_progress: rejecting })).rejects.toBe(refused);
  const folder = await mkdtemp(join(tmpdir(), "callbacks-"));
  try {
    await expect(model.save_pretrained(folder, { on_progress: rejecting })).rejects.toBe(refused);
    expect(await readdir(folder)).toEqual([]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
