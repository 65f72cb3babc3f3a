/** Questions about one image encode it once, and are answered as without the cache. */
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { AutoModelForImageTextToText, traceOutputs } from "../../../src/index.node.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import { expectClose } from "../../compare.ts";
import { otherDevice, testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { Golden } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";

type Model = Awaited<ReturnType<typeof AutoModelForImageTextToText.from_pretrained>>;

const device = await testDevice();
const models: Model[] = [];
const open = async (folder: string, options: object = {}) => {
  models.push(await AutoModelForImageTextToText.from_pretrained(folder, { device, on_warning: null, ...options }));
  return models[models.length - 1];
};
afterAll(() => {
  for (const model of models) model.dispose();
});
afterEach(() => vi.restoreAllMocks());

async function read(name: string) {
  const golden = await Golden.open(goldenFolder(name));
  const ids = async (key: string) => (golden.has(key) ? { [key]: await golden.rows(key) } : {});
  const inputs = {
    pixel_values: await golden.floats("pixel_values"),
    ...(await ids("qformer_input_ids")),
    ...(await ids("qformer_attention_mask")),
    ...(await ids("input_ids")),
    ...(await ids("attention_mask")),
  } as unknown as InstructBlipInputs;
  await golden.close();
  return { folder: golden.folder, inputs };
}

/** Rows of inputs, in this order. */
function pick(inputs: InstructBlipInputs, rows: readonly number[]): InstructBlipInputs {
  const { data, shape } = inputs.pixel_values;
  const size = data.length / shape[0];
  const pixels = new Float32Array(rows.length * size);
  for (const [i, row] of rows.entries()) pixels.set(data.subarray(row * size, (row + 1) * size), i * size);
  const picked = Object.entries(inputs)
    .filter(([, value]) => Array.isArray(value))
    .map(([name, value]) => [name, rows.map((row) => (value as unknown[])[row])]);
  return { ...Object.fromEntries(picked), pixel_values: { data: pixels, shape: [rows.length, ...shape.slice(1)] } };
}

/** The bits of each image. */
function rowsOf({ pixel_values: { data, shape } }: InstructBlipInputs): string[] {
  const size = shape.slice(-3).reduce((product, n) => product * n, 1);
  return Array.from({ length: data.length / size }, (_, i) => String(data.subarray(i * size, (i + 1) * size)));
}

/** Row 0, with an image unlike that of every other seed. */
function image(inputs: InstructBlipInputs, seed: number): InstructBlipInputs {
  const one = pick(inputs, [0]);
  one.pixel_values.data[0] += seed;
  return one;
}

/** How many images each pass of the image encoder takes from here on. */
function passes(model: Model): number[] {
  const rows: number[] = [];
  const { vision_model } = model;
  const forward = vision_model.forward.bind(vision_model);
  vi.spyOn(vision_model, "forward").mockImplementation((pixels, interpolate) => {
    rows.push(pixels.shape[0]);
    return forward(pixels, interpolate);
  });
  return rows;
}

const STEPS = { max_new_tokens: 4 };
const odd = await read("odd_widths");

/** T5 reads the videos too. */
const WITH_T5 = ["with T5", "t5_odd_f16"];

describe.each([
  ["InstructBLIP", "odd_widths"],
  ["BLIP-2", "blip2_opt"],
  ["InstructBLIP for videos", "video_3_frames_t5"],
  ...(ALL ? [WITH_T5] : []),
])("%s", (_, name) => {
  test("forward encodes an image of several rows once, unless it is looked at", async () => {
    const { folder, inputs } = await read(name);
    const model = await open(folder, { image_cache: 0 });
    const seen = passes(model);
    const given = pick(inputs, [0, inputs.input_ids.length - 1, 0]);
    const start = model.language_model.decoder_start_token_id;
    const decoder = start === undefined ? {} : { decoder_input_ids: [[start], [start], [start]] };
    const pass = (options: object = {}) =>
      device.scope(async () => {
        const output = await model.forward({ ...given, ...decoder } as never, options);
        const { last_hidden_state, pooler_output } = output.vision_outputs;
        const tensors = [last_hidden_state, pooler_output, output.logits];
        return Promise.all(tensors.map(async (x) => ({ shape: x.shape, data: await x.read() })));
      });
    const once = await pass();
    const each = await pass({ observer: { wants: () => false, see: () => undefined } });
    const [, F] = inputs.pixel_values.shape;
    const images = inputs.pixel_values.shape.length === 5 ? 3 * F : 3;
    expect(seen).toEqual([new Set(rowsOf(given)).size, images]);
    for (const [i, { shape, data }] of each.entries()) {
      expect(once[i].shape).toEqual(shape);
      expectClose(once[i].data, data, { nmse: 1e-11 }, `${i}`);
    }
    // A row that is changed is not another's.
    const edit = { module: "vision_model.encoder.layers.0", op: "zero", index: { row: [2] } } as const;
    const [states] = await pass({ interventions: [edit] });
    const size = states.data.length / 3;
    expect(states.data.slice(0, size)).not.toEqual(states.data.slice(2 * size));
  });

  test("n questions about an image run the encoder once, with equal answers", async () => {
    const { folder, inputs } = await read(name);
    const [model, plain] = [await open(folder), await open(folder, { image_cache: 0 })];
    const [seen, all] = [passes(model), passes(plain)];
    const [B, F] = inputs.pixel_values.shape;
    const frames = inputs.pixel_values.shape.length === 5 ? F : 1;
    const rows = [...new Array(B).keys()];
    for (const row of rows) {
      for (const question of [...rows, 0]) {
        const asked = { ...pick(inputs, [question]), pixel_values: pick(inputs, [row]).pixel_values };
        expect(await model.generate(asked, STEPS)).toEqual(await plain.generate(asked, STEPS));
        const beams = { ...STEPS, num_beams: 3 };
        expect(await model.generate(asked, beams)).toEqual(await plain.generate(asked, beams));
        const candidates = [[3, 4], [5]];
        const sums = (model: Model) => model.rank_answers(asked, { candidates }).then(([{ sums }]) => sums);
        expect(await sums(model)).toEqual(await sums(plain));
      }
    }
    expect(seen).toEqual(rows.map(() => frames));
    expect(all).toHaveLength(3 * B * (B + 1));
  });
});

test("BLIP-2's Q-Former, which reads no text, runs once too; InstructBLIP's for each question", async () => {
  const runs = async (name: string) => {
    const { folder, inputs } = await read(name);
    const model = await open(folder);
    const forward = vi.spyOn(model.qformer as unknown as { forward: () => unknown }, "forward");
    for (let i = 0; i < 3; i++) await model.generate(pick(inputs, [0]), STEPS);
    return forward.mock.calls.length;
  };
  expect(await runs("blip2_opt")).toBe(1);
  expect(await runs("odd_widths")).toBe(3);
});

test("a batch encodes images that are not cached, and equal ones once", async () => {
  const { folder, inputs } = odd;
  const [model, plain] = [await open(folder), await open(folder, { image_cache: 0 })];
  const seen = passes(model);
  for (const rows of [
    [0, 0, 0],
    [0, 1, 0],
    [1, 0],
  ]) {
    expect(await model.generate(pick(inputs, rows), STEPS)).toEqual(await plain.generate(pick(inputs, rows), STEPS));
  }
  expect(seen).toEqual([1, 1]);
});

test("concurrent questions", async () => {
  const model = await open(odd.folder);
  const seen = passes(model);
  const asked = pick(odd.inputs, [0]);
  const answers = await Promise.all([1, 2, 3].map(() => model.generate(asked, STEPS)));
  expect(answers[1]).toEqual(answers[0]);
  expect(seen).toEqual([1]);
});

test("the key of an image is all its numbers, its size, and the options of the encoder", async () => {
  const model = await open(odd.folder);
  const seen = passes(model);
  const asked = pick(odd.inputs, [0]);
  await model.generate(asked, STEPS);
  const { data, shape } = asked.pixel_values;
  const other = data.slice();
  other[other.length - 1] = -other[other.length - 1];
  await model.generate({ ...asked, pixel_values: { data: other, shape } }, STEPS);
  await model.generate({ ...asked, interpolate_pos_encoding: true }, STEPS);
  await model.generate(asked, STEPS);
  expect(seen).toEqual([1, 1, 1]);
});

test("the least recently used images are evicted, and all are freed at the end", async () => {
  const before = device.memory.use.live;
  const model = await open(odd.folder, { image_cache: 2 });
  const seen = passes(model);
  const ask = (n: number) => model.generate(image(odd.inputs, n), STEPS);
  for (const n of [1, 2]) await ask(n);
  const full = device.memory.use.live;
  for (const n of [1, 3]) await ask(n); // 2 goes
  await ask(1);
  expect(seen.splice(0)).toHaveLength(3);
  await ask(2);
  expect(seen).toHaveLength(1);
  expect(device.memory.use.live).toBe(full);
  model.clear_image_cache();
  expect(device.memory.use.live).toBeLessThan(full);
  await ask(2);
  expect(seen).toHaveLength(2);
  model.dispose();
  expect(device.memory.use.live).toBe(before);
});

test("a call with an observer runs the image encoder, and its results are not cached", async () => {
  const model = await open(odd.folder);
  const asked = pick(odd.inputs, [0]);
  const expected = await model.generate(asked, STEPS);
  const path = "vision_model.encoder.layers.1.mlp";
  const seen = passes(model);
  const { outputs } = await traceOutputs(device, () => model.generate(asked, STEPS), undefined, path);
  expect([...outputs.keys()]).toEqual([path]);
  const zero = (_: string, output: { shape: readonly number[]; size: number }) =>
    device.tensor(new Float32Array(output.size), output.shape) as never;
  const other = { ...image(odd.inputs, 1), candidates: [[3, 4], [5]] };
  const { result } = await traceOutputs(device, () => model.rank_answers(other), zero, path);
  expect((await model.rank_answers(other))[0].sums).not.toEqual(result[0].sums);
  expect(await model.generate(asked, STEPS)).toEqual(expected);
  expect(seen).toEqual([1, 1, 1]);
});

test("results of a failed call are not cached", async () => {
  const model = await open(odd.folder);
  const seen = passes(model);
  const asked = { ...pick(odd.inputs, [0]), ...STEPS };
  const stopped = new Error("enough");
  const before = device.memory.use.live;
  const on_token = () => {
    throw stopped;
  };
  await expect(model.generate({ ...asked, on_token })).rejects.toBe(stopped);
  expect(device.memory.use.live).toBe(before);
  await model.generate(asked);
  await model.generate(asked);
  expect(seen).toEqual([1, 1]);
  // A call that never had its turn takes nothing from the one that has it.
  const controller = new AbortController();
  const running = model.generate(image(odd.inputs, 1), STEPS);
  const waiting = model.generate({ ...image(odd.inputs, 1), signal: controller.signal }, STEPS);
  controller.abort(stopped);
  await expect(waiting).rejects.toBe(stopped);
  await running;
  await model.generate(image(odd.inputs, 1), STEPS);
  expect(seen).toEqual([1, 1, 1]);
});

test("cached images of a batch are not evicted while the batch is computed, even if memory is short", async () => {
  const [model, plain] = [await open(odd.folder), await open(odd.folder, { image_cache: 0 })];
  await model.generate(pick(odd.inputs, [0]), STEPS);
  const forward = model.vision_model.forward.bind(model.vision_model);
  vi.spyOn(model.vision_model, "forward").mockImplementation((pixels, interpolate) => {
    expect(device.memory.shortage.size).toBeGreaterThan(0);
    for (const giveBack of device.memory.shortage) giveBack();
    return forward(pixels, interpolate);
  });
  const both = pick(odd.inputs, [1, 0]);
  expect(await model.generate(both, STEPS)).toEqual(await plain.generate(both, STEPS));
});

test("cached images are freed before a call fails for lack of memory", async () => {
  const small = await otherDevice({ memory_budget: 2 ** 26 });
  const model = await open(odd.folder, { device: small });
  const ask = (seed: number) => model.generate(image(odd.inputs, seed), STEPS);
  await ask(1);
  const { live } = small.memory.use;
  model.clear_image_cache();
  const kept = live - small.memory.use.live;
  /** Whether an answer fits into memory of which `bytes` are taken. */
  const fits = async (bytes: number) => {
    const filler = small.persistent([bytes / 4]);
    const code = await ask(1).then(
      () => undefined,
      (error) => error.code,
    );
    expect([undefined, "BUDGET"]).toContain(code);
    model.clear_image_cache();
    filler.dispose();
    return code === undefined;
  };
  let [most, tooMuch] = [0, 2 ** 26 - live];
  while (tooMuch - most > kept / 2) {
    const middle = 16 * Math.round((most + tooMuch) / 32);
    if (await fits(middle)) most = middle;
    else tooMuch = middle;
  }
  const filler = small.persistent([most / 4]);
  for (let seed = 1; seed <= 4; seed++) await ask(seed);
  filler.dispose();
  small.destroy();
});

test.each([[-1], [1.5], ["8"], [Number.NaN]])("image_cache: %j is refused", async (image_cache) => {
  const refused = { code: "PARAM_RANGE", message: expect.stringMatching(/image_cache must be a whole number/) };
  await expect(open(odd.folder, { image_cache })).rejects.toMatchObject(refused);
});
