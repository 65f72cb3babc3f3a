/** What a decoded token costs besides arithmetic: one submit, and nothing that has to be made. */
import { afterAll, expect, test, vi } from "vitest";
import { InstructBlipForConditionalGeneration, InstructBlipProcessor } from "../../../src/index.node.ts";
import { otherDevice, testDevice } from "../../device.ts";
import { Golden } from "../../parity/golden.ts";

const FOLDER = "examples/shapes/checkpoint";
const device = await testDevice();
const model = await InstructBlipForConditionalGeneration.from_pretrained(FOLDER, { device });
const processor = await InstructBlipProcessor.from_pretrained(FOLDER);
afterAll(() => model.dispose());

test.each([
  ["greedy search", {}],
  ["5 beams", { num_beams: 5 }],
  ["a penalty and bans", { repetition_penalty: 1.2, no_repeat_ngram_size: 3 }],
])("%s: a token is one submit and no new buffer", async (_, options) => {
  const inputs = await processor({ images: ["examples/shapes/pictures/a.png"], text: ["Describe the image."] });
  const marks: { submits: number; bindGroups: number; created: number }[] = [];
  await model.generate({
    ...inputs,
    max_new_tokens: 24,
    eos_token_id: null,
    ...options,
    on_token: () => marks.push({ ...device.counts, created: device.memory.use.created }),
  });
  expect(marks.length).toBe(24);
  const [first, last] = [marks[5], marks[marks.length - 1]]; // by then all that is needed has been made once
  expect(last.submits - first.submits).toBe(marks.length - 6);
  expect(last.created - first.created).toBe(0);
  if (!("repetition_penalty" in options)) expect(last.bindGroups - first.bindGroups).toBe(0);
});

test.each(["plain_f32", "t5_flan", "opt_plain"])("loading %s has compiled what a greedy answer needs", async (name) => {
  const golden = await Golden.open(new URL(`../../golden/data/${name}`, import.meta.url).pathname);
  const [row, ids] = [await golden.rows("qformer_input_ids"), await golden.rows("input_ids")];
  const pixels = await golden.floats("pixel_values");
  await golden.close();
  const fresh = await otherDevice({});
  const compiled = vi.spyOn(fresh.handle, "createComputePipeline");
  const loaded = await InstructBlipForConditionalGeneration.from_pretrained(golden.folder, { device: fresh });
  const [, ...image] = pixels.shape;
  const one = { data: pixels.data.slice(0, pixels.data.length / pixels.shape[0]), shape: [1, ...image] };
  await loaded.generate({ pixel_values: one, qformer_input_ids: [row[0]], input_ids: [ids[0]], max_new_tokens: 4 });
  expect(compiled.mock.calls.map(([{ label }]) => label)).toEqual([]);
  fresh.destroy();
});
