/**
 * Searches that keep scores on the device: they read back K candidates of each prompt, or one id and one flag of each row,
 * and give the same results as with all logits.
 */
import { afterAll, describe, expect, test, vi } from "vitest";
import { InstructBlipForConditionalGeneration } from "../../../src/index.node.ts";
import type { GenerateOptions } from "../../../src/instructblip/generation/generate.ts";
import type { GenerateOutput } from "../../../src/instructblip/generation/output.ts";
import { CausalLanguageModel } from "../../../src/instructblip/model/language_model.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { TOLERANCES } from "../../tolerances.ts";

const device = await testDevice();

/** A golden's model and inputs. */
async function open(name: string) {
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder(name), { device });
  return { model, inputs: await goldenInputs(name) };
}

describe.each(["plain_f32", "opt_plain", "t5_flan"])("%s", async (name) => {
  const { model, inputs } = await open(name);
  afterAll(() => model.dispose());
  const B = inputs.input_ids.length;
  const V = model.language_model.vocabulary;

  /** The answer, and bytes of every tensor that was read for it. */
  async function run(options: GenerateOptions): Promise<{ output: GenerateOutput; reads: number[] }> {
    const spy = vi.spyOn(device, "read");
    try {
      const output = await model.generate({ ...inputs, ...options, return_dict_in_generate: true });
      return { output, reads: spy.mock.calls.map(([tensor]) => tensor.bytes) };
    } finally {
      spy.mockRestore();
    }
  }

  const processed = { repetition_penalty: 1.4, no_repeat_ngram_size: 2, min_new_tokens: 3, suppress_tokens: [7, 9] };
  // With E end ids, max(2, 1 + E) candidates for each beam.
  test.each([
    [{ num_beams: 5, eos_token_id: 2 }, 10],
    [{ num_beams: 3, eos_token_id: [2, 3, 4] }, 12],
    [{ num_beams: 4, eos_token_id: null }, 8],
    [{ num_beams: 4, num_return_sequences: 2, eos_token_id: 2, ...processed }, 8],
  ])("%o reads %i scores and ids of each prompt in each step, and no more", async (beams, K) => {
    const options = { ...beams, max_new_tokens: 7, early_stopping: false, length_penalty: 0 };
    const { output, reads } = await run(options);
    expect(new Set(reads)).toEqual(new Set([8 * K * B]));
    const steps = output.beam_indices![0].length;
    expect(reads.length).toBeGreaterThanOrEqual(steps);
    expect(reads.length).toBeLessThanOrEqual(7);

    // Whoever asks for the scores gets them, and the search is made of them.
    const host = await run({ ...options, output_scores: true });
    expect(host.reads[0]).toBe(4 * B * V);
    expect(host.reads[1]).toBe(4 * B * V * beams.num_beams);
    expect(host.reads.length).toBe(reads.length);
    expect(output.sequences).toEqual(host.output.sequences);
    expect(output.beam_indices).toEqual(host.output.beam_indices);
    expectClose(output.sequences_scores!, host.output.sequences_scores!, TOLERANCES.beam_scores, "scores");
  });

  test.each([
    [{ top_k: 5, temperature: 0.7, top_p: 0.9 }, 6],
    [{ top_k: 9, typical_p: 0.8, min_p: 0.01, num_return_sequences: 3, ...processed }, 10],
    [{ top_k: 1, epsilon_cutoff: 1e-4, temperature: 3 }, 2],
    [{ top_k: 7, eta_cutoff: 0.02, repetition_penalty: 0.8, renormalize_logits: true }, 8],
  ])("sampling with %o reads %i scores and ids of each row, and draws what it would from all", async (ways, K) => {
    const options = { do_sample: true, seed: 11, max_new_tokens: 9, eos_token_id: 2, ...ways };
    const { output, reads } = await run(options);
    const R = B * ("num_return_sequences" in ways ? ways.num_return_sequences! : 1);
    expect(reads[0]).toBe(8 * K * B);
    expect(new Set(reads.slice(1))).toEqual(new Set([8 * K * R]));
    const host = await run({ ...options, output_scores: true });
    expect(host.reads[0]).toBe(4 * B * V);
    expect(output.sequences).toEqual(host.output.sequences);
    expect(output.sequences).not.toEqual((await run({ ...options, seed: 12, top_k: 20 })).output.sequences);
  });

  test("a prompt that is read in pieces is read as a whole", async () => {
    const { language_model } = model;
    if (!(language_model instanceof CausalLanguageModel)) return; // an encoder sees all at once
    const options = {
      max_new_tokens: 6,
      eos_token_id: null,
      output_logits: true,
      return_dict_in_generate: true as const,
    };
    const whole = await model.generate({ ...inputs, ...options });
    const length = inputs.input_ids[0].length;
    for (const chunk of [1, 7, length - 1, length]) {
      language_model.prefill_chunk = chunk;
      const parts = await model.generate({ ...inputs, ...options });
      expect(parts.sequences).toEqual(whole.sequences);
      expectClose(
        parts.logits![0].data,
        whole.logits![0].data,
        TOLERANCES.free_running,
        `${name} in pieces of ${chunk}`,
      );
    }
    language_model.prefill_chunk = 512;
  });

  test("greedy search with a penalty and bans reads an id and a flag of each row", async () => {
    const options = { max_new_tokens: 7, eos_token_id: 2, ...processed };
    const { output, reads } = await run(options);
    // The flag says whether the largest score is a number; without it a row of NaN would be answered with some token.
    expect(new Set(reads)).toEqual(new Set([8 * B]));
    expect(reads.length).toBeGreaterThanOrEqual(3);
    const host = await run({ ...options, output_scores: true });
    expect(host.reads[0]).toBe(4 * B * V);
    expect(output.sequences).toEqual(host.output.sequences);
    expect(output.sequences).not.toEqual((await run({ max_new_tokens: 7, eos_token_id: 2 })).output.sequences);
  });
});
