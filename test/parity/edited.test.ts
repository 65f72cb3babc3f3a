/** Interventions on committed goldens, against PyTorch's hooks (test/golden/edited): logits of forward, tokens of searches. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText } from "../../src/index.node.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { COMMITTED, goldenFolder } from "../golden_folder.ts";
import { TOLERANCES } from "../tolerances.ts";
import { goldenInputs } from "./golden.ts";
import type { ChangedCall } from "./live_cases.ts";

const device = await testDevice();
const FOLDER = join(COMMITTED, "edited/data");
const NAMES = readdirSync(FOLDER).map((file) => file.replace(".json", ""));

interface Case extends ChangedCall {
  /** Of forward(), of each row's last token. */
  readonly logits?: readonly (readonly number[])[];
  readonly sequences?: number[][];
}

describe.each(NAMES)("%s", async (name) => {
  const cases: readonly Case[] = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
  const inputs = await goldenInputs(name);
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  afterAll(() => model.dispose());

  test.each(cases.map((one) => [one.call, JSON.stringify(one.interventions), one] as const))(
    "%s with %s",
    async (_, __, { interventions, inputs: more, kwargs, logits, sequences }) => {
      if (logits) {
        const kept = { ...inputs, ...more, interventions, logits_to_keep: 1 };
        const ours = await device.scope(async () => (await model.forward(kept)).logits.read());
        expectClose(ours, logits.flat(), TOLERANCES.free_running, "logits");
      } else {
        const seed = kwargs?.do_sample ? { seed: 1 } : {};
        expect(await model.generate({ ...inputs, ...kwargs, ...seed, interventions })).toEqual(sequences);
      }
    },
  );
});
