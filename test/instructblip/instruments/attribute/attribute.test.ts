/** Attribution against PyTorch's in f64 (test/golden/attributions), of every kind of model, and what it refuses. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, attribute } from "../../../../src/index.node.ts";
import type { OcclusionFill } from "../../../../src/instructblip/instruments/attribute/occlusion.ts";
import type { OccludedWord } from "../../../../src/instructblip/instruments/attribute/words.ts";
import { expectClose } from "../../../compare.ts";
import { testDevice } from "../../../device.ts";
import { COMMITTED, goldenFolder } from "../../../golden_folder.ts";
import { type GoldenInputs, goldenRow } from "../../../parity/golden.ts";
import { ALL } from "../../../rounds.ts";
import { TOLERANCES } from "../../../tolerances.ts";

const device = await testDevice();
const FOLDER = join(COMMITTED, "attributions/data");
const NAMES = readdirSync(FOLDER).map((file) => file.replace(".json", ""));
const SAMPLE = ["plain_f32", "opt_post_norm_f16", "t5_flan", "blip2_opt", "video_4_frames"];

interface Expected {
  readonly row: number;
  readonly answer: number[];
  readonly logprobs: number[];
  readonly image: readonly {
    readonly window: number;
    readonly stride: number;
    readonly fill: OcclusionFill;
    readonly windows: readonly [frame: number, row: number, column: number, logprobs: number[]][];
  }[];
  readonly words: readonly (OccludedWord & { readonly logprobs: number[] })[];
  readonly attention: readonly {
    readonly rollout: Readonly<Record<string, number | number[]>>;
    readonly cross_attention: Readonly<Record<string, number | number[]>>;
  }[];
}

/** All numbers of an object of numbers and lists, by the names of `keys`. */
const flat = (of: object, keys: readonly string[]) =>
  keys.flatMap((key) => {
    const value = (of as Record<string, number | Iterable<number>>)[key]!;
    return typeof value === "number" ? [value] : [...value];
  });

test("there are goldens of every kind of model", () => {
  for (const part of ["plain", "opt", "t5", "blip2_opt", "blip2_t5", "legacy", "video"]) {
    expect(NAMES.some((name) => name.startsWith(part))).toBe(true);
  }
});

describe.each(ALL ? NAMES : SAMPLE)("%s", async (name) => {
  const expected: Expected = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  const inputs = (await goldenRow(name, expected.row)) as never;
  afterAll(() => model.dispose());
  const { answer, logprobs, words } = expected;
  const settings = expected.image.filter(
    ({ fill }) => ALL || fill === "mean" || (fill === "blur" && name === "plain_f32"),
  );

  test.each(settings)("occluded windows of $window patches, filled with $fill, drop as PyTorch's", async (setting) => {
    const { window, stride, fill, windows } = setting;
    const before = device.memory.use.live;
    const progress: number[] = [];
    const on_progress = ({ done, total }: { done: number; total: number }) => progress.push(done / total);
    const options = { answer, methods: ["image"], window, stride, fill, batch_size: 5, on_progress } as const;
    const found = await attribute(model, inputs, options);
    expect(device.memory.use.live).toBe(before);
    const isAlone = name === "opt_post_norm_f16"; // a batch would spread image features over its rows
    expect(progress).toHaveLength(isAlone ? windows.length : Math.ceil(windows.length / 5));
    expect(progress.at(-1)).toBe(1);
    expectClose(found.logprobs, logprobs, TOLERANCES.beam_scores, "log-probabilities");
    expect(found).toMatchObject({
      image: { window, stride, fill, windows: windows.length },
      words: null,
      attention: null,
    });
    // The mean of the windows over each patch, the obvious way.
    const { frames, rows, columns } = found.grid;
    const wanted = answer.flatMap((_, t) =>
      Array.from({ length: frames * rows * columns }, (_, i) => {
        const [f, y, x] = [Math.floor(i / rows / columns), Math.floor(i / columns) % rows, i % columns];
        const covers = (from: number, at: number) => from <= at && at < from + window;
        const over = windows.filter(([frame, row, column]) => frame === f && covers(row, y) && covers(column, x));
        return over.reduce((sum, [, , , after]) => sum + logprobs[t]! - after[t]!, 0) / over.length;
      }),
    );
    const ours = found.image!.drops.flatMap((drops) => [...drops]);
    expectClose(ours, wanted, TOLERANCES.free_running, "drops");
  });

  test("words that are removed or hidden drop as PyTorch's", async () => {
    const found = await attribute(model, inputs, { answer, methods: ["words"], words, batch_size: 3 });
    expectClose(
      found.words!.flat(),
      words.flatMap((word) => word.logprobs.map((after, t) => logprobs[t]! - after)),
      TOLERANCES.free_running,
      "drops",
    );
  });

  test("rollout and cross-attention are those of PyTorch's attentions", async () => {
    const before = device.memory.use.live;
    const found = await attribute(model, inputs, { answer, methods: ["attention"] });
    expect(device.memory.use.live).toBe(before);
    expect(found.attention).toHaveLength(answer.length);
    for (const [t, { rollout, cross_attention }] of found.attention!.entries()) {
      const wanted = expected.attention[t]!;
      const keys = Object.keys(wanted.rollout);
      expect(Object.keys(rollout).toSorted()).toEqual(keys.toSorted());
      for (const key of ["patches", "instruction", "prompt"] as const) {
        expect(rollout[key]).toHaveLength((wanted.rollout[key] as number[]).length);
      }
      expectClose(flat(rollout, keys), flat(wanted.rollout, keys), TOLERANCES.free_running, `rollout of token ${t}`);
      const both = ["patches", "class_token"];
      const [ours, theirs] = [flat(cross_attention, both), flat(wanted.cross_attention, both)];
      expectClose(ours, theirs, TOLERANCES.free_running, `cross-attention of token ${t}`);
      for (const shares of [flat(rollout, keys), ours]) {
        expect(Math.abs(shares.reduce((sum, x) => sum + x) - 1)).toBeLessThan(1e-5);
      }
    }
  });
});

test("of a padded prompt T5's attention is that of the prompt alone", async () => {
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder("t5_flan"), { device });
  const row: GoldenInputs = await goldenRow("t5_flan", 0);
  const pad = (rows: readonly (readonly number[])[], value: number) => [[...rows[0], value, value]];
  const padded = {
    ...row,
    input_ids: pad(row.input_ids, 0),
    attention_mask: pad([row.input_ids[0].map(() => 1)], 0),
    qformer_input_ids: pad(row.qformer_input_ids!, 0),
    qformer_attention_mask: pad([row.qformer_input_ids![0].map(() => 1)], 0),
  };
  const look = async (inputs: object) => {
    const options = { answer: [5, 9], methods: ["words", "attention"] } as const;
    const { logprobs, attention } = await attribute(model, inputs as never, options);
    return attention!.flatMap(({ rollout, cross_attention }, t) => [
      logprobs[t],
      ...rollout.patches,
      ...rollout.prompt,
      ...rollout.instruction.subarray(0, row.qformer_input_ids![0].length),
      ...cross_attention.patches,
    ]);
  };
  expectClose(await look(padded), await look(row), TOLERANCES.module, "padded");
  model.dispose();
});

describe("of one LLaMA", async () => {
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder("plain_f32"), { device });
  const inputs = (await goldenRow("plain_f32", 0)) as never;
  afterAll(() => model.dispose());
  const look = (options: object = {}) => attribute(model, inputs, { answer: [5, 9], ...options });

  test("without an answer it is generate()'s, and without words none are occluded", async () => {
    const found = await attribute(model, inputs, { generation: { max_new_tokens: 2 } });
    const call = { max_new_tokens: 2, return_full_text: false, return_dict_in_generate: true, logprobs: 1 } as const;
    const { sequences, logprobs } = await model.generate(inputs, call);
    expect(found.answer).toEqual(sequences[0]);
    const wanted = logprobs![0]!.tokens.map(({ logprob }) => logprob);
    expectClose(found.logprobs, wanted, TOLERANCES.beam_scores, "log-probabilities");
    expect(found).toMatchObject({ image: { window: 1, stride: 1, fill: "mean", windows: 16 }, words: [] });
  });

  test("rows of a batch do not depend on each other", async () => {
    const options = { methods: ["image"], window: 3 };
    const [one, many] = [await look({ ...options, batch_size: 1 }), await look({ ...options, batch_size: 7 })];
    for (const [t, drops] of one.image!.drops.entries()) {
      expectClose(many.image!.drops[t]!, drops, TOLERANCES.ranking_twin, `token ${t}`);
    }
  });

  test.each([
    [{ methods: [] }, "PARAM_RANGE", /methods must be some of image, words, attention, got \[\]/],
    [{ methods: ["gradients"] }, "PARAM_RANGE", /methods must be/],
    [{ fill: "black" }, "PARAM_RANGE", /fill must be one of mean, blur, image_mean, got "black"/],
    [{ window: 5 }, "PARAM_RANGE", /window must be a whole number from 1 to 4/],
    [{ window: 2, stride: 3 }, "PARAM_RANGE", /stride must be a whole number from 1 to 2/],
    [{ stride: 0 }, "PARAM_RANGE", /stride/],
    [{ batch_size: 0 }, "PARAM_RANGE", /batch_size/],
    [{ answer: [] }, "BAD_INPUT", /no token/],
    [{ interventions: [] }, "UNKNOWN_OPTION", /interventions/],
  ])("%j is refused", async (options, code, message) => {
    await expect(look(options)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test("forward() in two halves has its logits, of one image for many instructions too", async () => {
    const one: GoldenInputs = inputs;
    const asked = ({ input_ids, qformer_input_ids }: GoldenInputs) => {
      const turned = (rows: readonly (readonly number[])[]) => [rows[0], rows[0].toReversed()];
      return { input_ids: turned(input_ids), qformer_input_ids: turned(qformer_input_ids!) };
    };
    const instructions = { pixel_values: one.pixel_values, ...asked(one) };
    const { data, shape } = one.pixel_values;
    const twice = { data: Float32Array.from([...data, ...data]), shape: shape.with(0, 2) };
    await device.scope(async () => {
      const { logits } = await model.forward({ ...instructions, pixel_values: twice } as never);
      const states = await model.imageStates(one);
      const ours = await model.logitsOfStates(states, instructions as never);
      expect(ours.shape).toEqual(logits.shape);
      expectClose(await ours.read(), await logits.read(), TOLERANCES.free_running, "logits");
      const own = await model.logitsOfStates(await model.imageStates({ pixel_values: twice }), instructions as never);
      expectClose(await own.read(), await logits.read(), TOLERANCES.free_running, "of an image each");
      const three = { data: Float32Array.from([...data, ...data, ...data]), shape: shape.with(0, 3) };
      const wrong = model.logitsOfStates(await model.imageStates({ pixel_values: three }), instructions as never);
      await expect(wrong).rejects.toMatchObject({ code: "BATCH_MISMATCH" });
    });
    const nan = { data: Float32Array.from(data, () => Number.NaN), shape };
    await expect(model.imageStates({ pixel_values: nan })).rejects.toMatchObject({ code: "BAD_PIXELS" });
  });

  test("it stops between batches", async () => {
    const stop = new AbortController();
    const on_progress = () => stop.abort(new Error("enough"));
    const before = device.memory.use.live;
    await expect(look({ batch_size: 2, on_progress, signal: stop.signal })).rejects.toThrow("enough");
    expect(device.memory.use.live).toBe(before);
  });
});
