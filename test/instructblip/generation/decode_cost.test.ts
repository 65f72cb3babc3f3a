/** The overhead of a decoded token: one submit, and no objects created. */
import { afterAll, expect, test, vi } from "vitest";
import { InstructBlipForConditionalGeneration, InstructBlipProcessor } from "../../../src/index.node.ts";
import { otherDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";

const FOLDER = "examples/shapes/checkpoint";
// Not the shared one: a device that has launched with 1,024 kinds of params submits once more, whenever other tests bring it there.
const device = await otherDevice({});
const model = await InstructBlipForConditionalGeneration.from_pretrained(FOLDER, { device });
const processor = await InstructBlipProcessor.from_pretrained(FOLDER);
afterAll(() => {
  model.dispose();
  device.destroy();
});

test.each([
  ["greedy search", {}],
  ["5 beams", { num_beams: 5 }],
  ["a penalty and bans", { repetition_penalty: 1.2, no_repeat_ngram_size: 3 }],
])("%s: a token is one submit and no new buffer", async (_, options) => {
  const inputs = await processor({ images: ["examples/shapes/images/a.png"], text: ["Describe the image."] });
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
  const { pixel_values, qformer_input_ids, input_ids } = await goldenInputs(name, 1);
  const fresh = await otherDevice({});
  const compiled = vi.spyOn(fresh.handle, "createComputePipeline");
  const loaded = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder(name), { device: fresh });
  await loaded.generate({ pixel_values, qformer_input_ids, input_ids, max_new_tokens: 4 });
  expect(compiled.mock.calls.map(([{ label }]) => label)).toEqual([]);
  fresh.destroy();
});
