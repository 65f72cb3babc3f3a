/** Pipelined greedy search gives the same as greedy search that waits for every id. */
import { afterAll, describe, expect, test } from "vitest";
import { InstructBlipForConditionalGeneration, InstructBlipProcessor } from "../../../src/index.node.ts";
import type { LlamaConfig } from "../../../src/instructblip/config/llama.ts";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import { logitsProcessors } from "../../../src/instructblip/generation/logits_process.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import { canPipeline } from "../../../src/instructblip/generation/pipelined_greedy.ts";
import { type SearchInputs, search } from "../../../src/instructblip/generation/search.ts";
import { GpuDevice } from "../../../src/tensor/device/device.ts";
import { testDevice } from "../../device.ts";
import { GOLDENS, type SearchCase, settingOf, TableDecoder } from "./golden.ts";

async function run(one: SearchCase, inFlight: number, extra: GenerationOptions = {}, inputs: SearchInputs = {}) {
  const decoder = new TableDecoder(one.prompt, true);
  decoder.inFlight = inFlight;
  const config = decodingConfig({ ...one.kwargs, ...extra }, settingOf(one));
  return { ...(await search(decoder, one.prompt, config, inputs)), steps: decoder.steps, most: config.max_length };
}

const canLead = (one: SearchCase) => {
  const config = decodingConfig(one.kwargs, settingOf(one));
  return canPipeline({ config, processors: logitsProcessors(config) });
};
const CASES = GOLDENS.searches.filter(canLead);

test("rows that depend on each other cannot be pipelined: a finished one is fed what it would have said", () => {
  const config = decodingConfig(CASES[0].kwargs, settingOf(CASES[0]));
  expect(canPipeline({ config, processors: [], couplesRows: false })).toBe(true);
  expect(canPipeline({ config, processors: [], couplesRows: true })).toBe(false);
});

test("Hugging Face's tokens in every golden that needs no scores, at most `inFlight` steps further than needed", async () => {
  expect(CASES.length).toBeGreaterThan(10);
  for (const one of CASES) {
    for (const inFlight of [1, 3, 50]) {
      const { sequences, steps, most } = await run(one, inFlight);
      expect(sequences, JSON.stringify(one.kwargs)).toEqual(one.sequences);
      const needed = sequences[0].length - one.prompt[0].length - 1;
      expect(steps).toBeGreaterThanOrEqual(needed);
      expect(steps).toBeLessThanOrEqual(Math.min(needed + inFlight, most - one.prompt[0].length - 1));
    }
  }
});

test("a streamer gets every token once and in order, and may stop", async () => {
  const one = CASES.find(({ prompt }) => prompt.length === 1)!;
  const seen: number[] = [];
  const streamer = {
    cancelled: false,
    put: (ids: readonly (readonly number[])[]) => {
      seen.push(...ids[0]);
    },
    end() {},
  };
  expect((await run(one, 3, {}, { streamer })).sequences).toEqual([seen]);
  seen.length = 0;
  const stopping = Object.assign(streamer, {
    put(ids: readonly (readonly number[])[]) {
      seen.push(...ids[0]);
      streamer.cancelled = seen.length >= one.prompt[0].length + 2;
    },
  });
  const options = { eos_token_id: null, max_new_tokens: 9 };
  expect((await run(one, 3, options, { streamer: stopping })).sequences[0]).toHaveLength(one.prompt[0].length + 2);
});

test("an abort ends it with its reason", async () => {
  const controller = new AbortController();
  const on_token = (step: number) => {
    if (step === 1) controller.abort(new Error("enough"));
  };
  const options = { eos_token_id: null, max_new_tokens: 9 };
  await expect(run(CASES[0], 2, options, { signal: controller.signal, on_token })).rejects.toThrow("enough");
});

describe("on a device that is taken for a GPU", async () => {
  const { handle, caps } = await testDevice();
  const device = new GpuDevice(handle, { ...caps, isSoftware: false }, Number.POSITIVE_INFINITY);
  const folder = "examples/shapes/checkpoint";
  const processor = await InstructBlipProcessor.from_pretrained(folder);
  const ahead = await InstructBlipForConditionalGeneration.from_pretrained(folder, { device });
  const waiting = await InstructBlipForConditionalGeneration.from_pretrained(folder, { device: await testDevice() });
  afterAll(() => {
    ahead.dispose();
    waiting.dispose();
  });

  test("the embedded checkpoint's answers, of several rows that end apart", async () => {
    const inputs = await processor({
      images: ["a", "b"].map((name) => `examples/shapes/images/${name}.png`),
      text: ["Describe the image.", "How many shapes are there?"],
      padding: true,
    });
    const options = { ...inputs, max_new_tokens: 30 };
    expect(await ahead.generate(options)).toEqual(await waiting.generate(options));
  });

  test("a token takes six launches a layer, and six more", async () => {
    const inputs = await processor({ images: "examples/shapes/images/a.png", text: "Describe the image." });
    const launches = async (max_new_tokens: number) => {
      const before = device.counts.launches;
      await ahead.generate({ ...inputs, eos_token_id: null, max_new_tokens });
      return device.counts.launches - before;
    };
    const { num_hidden_layers } = ahead.config.text_config as LlamaConfig;
    // Norm and queries, keys and values; their rotation; attention; its output; norm and gate and up; down. And embedding, norm and
    // head, the choice, its copy, the position, the cache's length. 198 of a 7B.
    expect((await launches(12)) - (await launches(8))).toBe(4 * (6 * num_hidden_layers + 6));
  });
});
