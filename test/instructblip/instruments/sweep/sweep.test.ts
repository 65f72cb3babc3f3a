/** Ablation against PyTorch's by hooks in f64 (test/golden/sweeps), of every language model, and what it refuses. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, ablate } from "../../../../src/index.node.ts";
import { prepareAblation } from "../../../../src/instructblip/instruments/sweep/ablate.ts";
import type { SweepUnit } from "../../../../src/instructblip/instruments/sweep/units.ts";
import { expectClose } from "../../../compare.ts";
import { testDevice } from "../../../device.ts";
import { COMMITTED, goldenFolder } from "../../../golden_folder.ts";
import { type GoldenInputs, goldenInputs } from "../../../parity/golden.ts";
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
}

/** One row of a golden's inputs. */
async function rowOf(name: string, row: number): Promise<GoldenInputs> {
  const { pixel_values, ...ids } = await goldenInputs(name);
  const { data, shape } = pixel_values;
  const size = data.length / shape[0];
  const image = { data: data.slice(row * size, (row + 1) * size), shape: shape.with(0, 1) };
  const rows = Object.entries(ids).map(([key, value]) => [key, value && [value[row]]]);
  return { pixel_values: image, ...Object.fromEntries(rows) } as GoldenInputs;
}

const nameOf = ({ group, row, column }: SweepUnit) => `${group} ${row} ${column}`;

test("there are goldens of every language model", () => {
  expect(NAMES).toEqual(["opt_plain", "plain_f32", "t5_flan"]);
});

describe.each(NAMES)("%s", async (name) => {
  const expected: Expected = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  const inputs = (await rowOf(name, expected.row)) as never;
  afterAll(() => model.dispose());
  const { answer } = expected;

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
});

describe("of one LLaMA", async () => {
  const name = "plain_f32";
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  const inputs = (await rowOf(name, 0)) as never;
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

  test("what cannot be swept is refused", async () => {
    await expect(look({ batch_size: 0 })).rejects.toMatchObject({ code: "PARAM_RANGE" });
    await expect(look({ answer: [] })).rejects.toMatchObject({ code: "BAD_INPUT" });
    await expect(look({ layers: 3 })).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });
    await expect(look({ signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
  });
});
