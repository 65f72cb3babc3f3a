/**
 * Guided answers against PyTorch's, of decoder-only models; and first tokens, drawn thousands of times from one prompt,
 * against PyTorch's probabilities.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { InstructBlipForConditionalGeneration } from "../../src/index.node.ts";
import type { GenerationOptions } from "../../src/instructblip/generation/options.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { COMMITTED, goldenFolder } from "../golden_folder.ts";
import { expectFits } from "../instructblip/generation/chi_squared.ts";
import { TOLERANCES } from "../tolerances.ts";
import { goldenInputs } from "./golden.ts";

interface Answers {
  readonly guided: readonly {
    readonly kwargs: object;
    readonly sequences: number[][];
    /** [step][row][best] */
    readonly best_ids?: number[][][];
    readonly best_scores?: number[][][];
  }[];
  readonly drawn: readonly {
    readonly kwargs: GenerationOptions;
    /** [row]: ids that may be drawn, with their probabilities */
    readonly probabilities: readonly (readonly (readonly [number, number])[])[];
  }[];
}

const device = await testDevice();
/** As many as generate() makes at once, and how often. */
const [DRAWS, CALLS] = [1024, 4];

const GOLDENS = ["plain_f32", "grouped_heads_bf16", "opt_plain", "t5_flan", "legacy_llama"];

describe.each(GOLDENS)("%s", async (name) => {
  const { guided, drawn }: Answers = JSON.parse(readFileSync(join(COMMITTED, `answers/data/${name}.json`), "utf8"));
  const inputs = await goldenInputs(name);
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder(name), {
    device,
    image_cache: 0,
  });
  afterAll(() => model.dispose());

  const generate = (kwargs: object) => model.generate({ ...inputs, ...kwargs, return_dict_in_generate: true });

  const named = <T extends { kwargs: object }>(calls: readonly T[]) =>
    calls.map((call) => [JSON.stringify(call.kwargs), call] as const);

  test.each(named(guided))("guided by %s", async (_, { kwargs, sequences, best_ids, best_scores }) => {
    const asked = Object.entries(kwargs).map(([key, value]) => [key, value === "input_ids" ? inputs.input_ids : value]);
    const before = device.memory.use.live;
    const output = await generate({
      ...Object.fromEntries(asked),
      eos_token_id: null,
      max_new_tokens: 8,
      output_scores: true,
    });
    expect(output.sequences).toEqual(sequences);
    expect(device.memory.use.live).toBe(before);
    const theirs = best_scores?.flat(2) ?? [];
    const ours = output.scores!.flatMap(({ data, shape: [, V] }, step) =>
      (best_ids?.[step] ?? []).flatMap((ids, row) => ids.map((id) => data[row * V + id])),
    );
    expectClose(ours, theirs, TOLERANCES.guidance, "scores");
  });

  test.each(named(drawn))("draws by %s fit PyTorch's probabilities", async (_, { kwargs, probabilities }) => {
    const seen = probabilities.map(() => new Map<number, number>());
    for (let seed = 0; seed < CALLS; seed++) {
      const sampling = { do_sample: true, num_return_sequences: DRAWS, max_new_tokens: 1, seed };
      const { sequences } = await generate({ ...kwargs, ...sampling });
      for (const [i, ids] of sequences.entries()) {
        const counts = seen[Math.floor(i / DRAWS)];
        const id = ids[ids.length - 1];
        counts.set(id, (counts.get(id) ?? 0) + 1);
      }
    }
    for (const [row, pairs] of probabilities.entries()) {
      const ids = pairs.map(([id]) => id);
      expect([...seen[row].keys()].filter((id) => !ids.includes(id))).toEqual([]);
      expectFits(
        ids.map((id) => seen[row].get(id) ?? 0),
        pairs.map(([, p]) => p * DRAWS * CALLS),
      );
    }
  });

  test("a generation_config.json may be given", async () => {
    const given = JSON.parse(readFileSync(join(goldenFolder(name), "generation_config.json"), "utf8"));
    const { num_beams = 1, num_return_sequences = num_beams } = given;
    const { sequences } = await generate({ ...given, max_new_tokens: 2, num_return_sequences });
    expect(sequences).toHaveLength(inputs.input_ids.length * num_beams);
  });

  if (model.language_model.is_encoder_decoder) {
    test("guidance is refused, before anything is run", async () => {
      await expect(generate({ guidance_scale: 2 })).rejects.toThrow("transformers fails there too");
    });
  } else {
    test("guidance alters the answer, and a scale of 1 does not", async () => {
      const plain = await generate({ eos_token_id: null, max_new_tokens: 8 });
      const one = await generate({ eos_token_id: null, max_new_tokens: 8, guidance_scale: 1 });
      expect(one.sequences).toEqual(plain.sequences);
      expect(guided[0].sequences).not.toEqual(plain.sequences);
    });
  }
});
