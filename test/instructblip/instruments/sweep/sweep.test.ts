/** Ablation and activation patching against PyTorch's by hooks in f64 (test/golden/sweeps), of every language model, and what it refuses. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, ablate, patchActivations } from "../../../../src/index.node.ts";
import { prepareAblation } from "../../../../src/instructblip/instruments/sweep/ablate.ts";
import type { SweepUnit } from "../../../../src/instructblip/instruments/sweep/units.ts";
import { expectClose } from "../../../compare.ts";
import { testDevice } from "../../../device.ts";
import { COMMITTED, goldenFolder } from "../../../golden_folder.ts";
import { type GoldenInputs, goldenRow } from "../../../parity/golden.ts";
import { TOLERANCES } from "../../../tolerances.ts";

const device = await testDevice();
const FOLDER = join(COMMITTED, "sweeps/data");
const NAMES = readdirSync(FOLDER).map((file) => file.replace(".json", ""));

type ExpectedUnit = readonly [group: string, row: string, column: string, logprob: number];
interface Expected {
  readonly row: number;
  readonly answer: number[];
  readonly clean: number;
  readonly ablate: readonly ExpectedUnit[];
  /** The same by the mean over the negated and the halved image: log-probabilities. */
  readonly mean: readonly number[];
  /** In a run of the negated image. */
  readonly image: ExpectedPatching;
  readonly instruction: ExpectedPatching & {
    readonly input_ids: number[][];
    readonly qformer_input_ids: number[][];
  };
}
interface ExpectedPatching {
  readonly corrupted: number;
  readonly units: readonly ExpectedUnit[];
}

const nameOf = ({ group, row, column }: SweepUnit) => `${group} ${row} ${column}`;

test("there are goldens of every language model", () => {
  expect(NAMES).toEqual(["opt_plain", "plain_f32", "t5_flan"]);
});

describe.each(NAMES)("%s", async (name) => {
  const expected: Expected = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  const inputs = (await goldenRow(name, expected.row)) as never;
  afterAll(() => model.dispose());
  const { answer } = expected;

  const { pixel_values } = inputs as GoldenInputs;
  const negated = { ...pixel_values, data: pixel_values.data.map((x) => -x) };
  const { input_ids, qformer_input_ids } = expected.instruction;
  test.each([
    ["image", { pixel_values: negated }],
    ["instruction", { input_ids, qformer_input_ids }],
  ] as const)("each part restored after another %s has PyTorch's effect", async (what, change) => {
    const before = device.memory.use.live;
    const corrupted = { ...(inputs as GoldenInputs), ...change } as never;
    const options = { answer, batch_size: 16, targets: ["**"] };
    const patching = await patchActivations(model, inputs, corrupted, options);
    expect(device.memory.use.live).toBe(before);
    const { corrupted: worst, units: expectedUnits } = expected[what];
    expectClose([patching.corrupted], [worst], TOLERANCES.beam_scores, "corrupted");
    // Another instruction changes nothing in the image encoder.
    const wanted = expectedUnits.filter(([group]) => what === "image" || !group.startsWith("vision_model"));
    expect(patching.units.map(nameOf)).toEqual(wanted.map(([group, row, column]) => `${group} ${row} ${column}`));
    // Not of the normalised effects: where both runs are nearly alike, their difference has few digits in f32.
    expectClose(
      patching.units.map(({ logprob }) => logprob - patching.corrupted),
      wanted.map(([, , , logprob]) => logprob - worst),
      TOLERANCES.free_running,
      "effects",
    );
    const clean = patching.logprobs.reduce((sum, x) => sum + x);
    for (const { logprob, effect } of patching.units) {
      expect(effect).toBeCloseTo((logprob - patching.corrupted) / (clean - patching.corrupted), 9);
    }
  });

  test("each part taken out has PyTorch's effect", async () => {
    const before = device.memory.use.live;
    const { units, logprobs } = await ablate(model, inputs, { answer, batch_size: 16 });
    expect(device.memory.use.live).toBe(before);
    expectClose([logprobs.reduce((sum, x) => sum + x)], [expected.clean], TOLERANCES.beam_scores, "clean");
    expect(units.map(nameOf)).toEqual(expected.ablate.map(([group, row, column]) => `${group} ${row} ${column}`));
    expectClose(
      units.map(({ effect }) => effect),
      expected.ablate.map(([, , , logprob]) => logprob - expected.clean),
      TOLERANCES.free_running,
      "effects",
    );
  });

  test("each part replaced by its mean over other images has PyTorch's effect", async () => {
    const before = device.memory.use.live;
    const { data, shape } = pixel_values;
    const images = [-1, 0.5].map((factor) => ({ data: data.map((x) => factor * x), shape }));
    const mean = images.map((image) => ({ ...(inputs as GoldenInputs), pixel_values: image }) as never);
    const { units } = await ablate(model, inputs, { answer, mean, batch_size: 16 });
    expect(device.memory.use.live).toBe(before);
    expectClose(
      units.map(({ effect }) => effect),
      expected.mean.map((logprob) => logprob - expected.clean),
      TOLERANCES.free_running,
      "effects",
    );
  });
});

describe("of one LLaMA", async () => {
  const name = "plain_f32";
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  const inputs = (await goldenRow(name, 0)) as never;
  afterAll(() => model.dispose());
  const look = (options: object = {}) => ablate(model, inputs, { answer: [5, 9], ...options });

  test("units are the same alone, and in any order", async () => {
    const targets = ["qformer.heads"];
    const { units } = await look({ targets });
    const sweep = await prepareAblation(model, inputs, { answer: [5, 9], targets, batch_size: 1 });
    for await (const { index, logprob } of sweep.scores([7, 2])) {
      expect(Math.abs(logprob - units[index].logprob)).toBeLessThan(1e-5);
    }
  });

  test("targets are groups, or patterns of them", async () => {
    const groups = async (...targets: string[]) => [
      ...new Set((await look({ targets })).units.map(({ group }) => group)),
    ];
    expect(await groups("**.heads", "qformer.queries")).toEqual([
      "vision_model.heads",
      "qformer.heads",
      "qformer.queries",
      "language_model.heads",
    ]);
    await expect(look({ targets: ["qformer.hats"] })).rejects.toMatchObject({
      code: "TARGETS",
      hint: expect.stringContaining("qformer.heads, "),
    });
  });

  test("what cannot be compared is refused, and says what it takes", async () => {
    const given = inputs as GoldenInputs;
    const { pixel_values, input_ids } = given;
    const patch = (change: object, options: object = {}) =>
      patchActivations(model, inputs, { ...given, ...change } as never, { answer: [5, 9], ...options });
    await expect(patch({})).rejects.toMatchObject({ code: "PATCH", hint: expect.stringContaining("another image") });
    const longer = { input_ids: [[...input_ids[0], 7]], attention_mask: undefined };
    await expect(patch(longer)).rejects.toMatchObject({
      code: "PATCH",
      message: expect.stringMatching(
        /^language_model\.layers needs .*: \S+ has \d+ positions in the clean run, \d+ in the corrupted/,
      ),
      hint: expect.stringContaining("qformer.queries alone"),
    });
    const { units } = await patch(longer, { targets: ["qformer.queries"] });
    expect(units.every(({ effect }) => Number.isFinite(effect))).toBe(true);
    const { data, shape } = pixel_values;
    const tall = { data: new Float32Array(data.length * 2), shape: shape.with(2, shape[2] * 2) };
    const wide = { pixel_values: tall, interpolate_pos_encoding: true };
    await expect(patch(wide)).rejects.toMatchObject({ code: "PATCH" });
    await expect(patch({}, { batch_size: 0 })).rejects.toMatchObject({ code: "PARAM_RANGE" });
  });

  test("what cannot be swept is refused", async () => {
    await expect(look({ batch_size: 0 })).rejects.toMatchObject({ code: "PARAM_RANGE" });
    await expect(look({ answer: [] })).rejects.toMatchObject({ code: "BAD_INPUT" });
    await expect(look({ mean: [] })).rejects.toMatchObject({ code: "MEAN_INPUTS" });
    const longer = { ...(inputs as GoldenInputs), input_ids: [[...(inputs as GoldenInputs).input_ids[0], 7]] };
    await expect(look({ mean: [inputs, { ...longer, attention_mask: undefined }] })).rejects.toMatchObject({
      code: "MEAN_INPUTS",
      message: expect.stringMatching(/^mean\[1\] has \d+ tokens in language_model\..*, the inputs have \d+/),
    });
    await expect(look({ layers: 3 })).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });
    await expect(look({ signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
  });
});
