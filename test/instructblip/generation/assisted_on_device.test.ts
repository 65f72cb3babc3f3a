/** Drafts on a device: a pass over several tokens is as many steps, and answers are those without drafts. */
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, AutoProcessor } from "../../../src/index.node.ts";
import type { GenerateOptions } from "../../../src/instructblip/generation/generate.ts";
import { type Decoding, upload } from "../../../src/instructblip/model/language_model.ts";
import type { FromPretrainedOptions } from "../../../src/instructblip/pretrained/load.ts";
import type { VisionLanguageModel } from "../../../src/instructblip/pretrained/vision_language_model.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenRow } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";
import { TOLERANCES } from "../../tolerances.ts";
import { twoRows } from "./two_rows.ts";

const device = await testDevice();
const TOKENS = ALL ? 16 : 8;
const opened: VisionLanguageModel[] = [];
async function open(folder: string, options: FromPretrainedOptions = {}): Promise<VisionLanguageModel> {
  const model = await AutoModelForImageTextToText.from_pretrained(folder, { device, compile: false, ...options });
  opened.push(model);
  return model;
}
afterAll(() => {
  for (const model of opened) model.dispose();
});

/** The same tokens read in passes of `widths`, with `wrong` tokens read and forgotten before each: logits of every token. */
async function passes(
  { language_model }: VisionLanguageModel,
  widths: readonly number[],
  wrong: number,
): Promise<number[]> {
  const prompt = twoRows(device, language_model);
  const decoding: Decoding = language_model.begin(2, 24);
  const [V, found] = [language_model.vocabulary, [[], []] as number[][]];
  const rows = (from: number, T: number) => [0, 1].map((b) => Array.from({ length: T }, (_, t) => 3 + from + t + b));
  try {
    decoding.prefill(prompt);
    let at = 0;
    for (const T of widths) {
      if (wrong > 0) {
        decoding.extend(upload(device, rows(9, wrong)));
        decoding.crop(wrong);
      }
      const tokens = upload(device, rows(at, T));
      const logits = T === 1 ? decoding.step(tokens.reshape([2])) : decoding.extend(tokens);
      const data = await logits.read();
      for (const b of [0, 1]) found[b].push(...data.subarray(b * T * V, (b + 1) * T * V));
      at += T;
    }
    return found.flat();
  } finally {
    decoding.dispose();
  }
}

describe.each([
  ["t5_flan", "f16"],
  ...(ALL
    ? ([
        ["plain_f32", "f32"],
        ["plain_f32", "f16"],
        ["opt_plain", "f32"],
        ["opt_plain", "f16"],
        ["t5_flan", "f32"],
        ["grouped_heads_bf16", "f16"],
        ["opt_post_norm_f16", "f32"],
        ["t5_odd_f16", "f32"],
        ["head_dim_88_f16", "f16"],
      ] as const)
    : []),
] as const)("%s, cache %s", async (name, kv_cache_dtype) => {
  const model = await open(goldenFolder(name), { kv_cache_dtype });

  test("several tokens in one pass, after others were forgotten, are as many steps", async () => {
    const steps = await passes(model, [1, 1, 1, 1, 1, 1, 1, 1], 0);
    expectClose(await passes(model, [1, 1, 3, 1, 2], 2), steps, TOLERANCES.free_running, "passes");
  });

  test("prompt lookup, an assistant and sampling answer as without drafts", async () => {
    const inputs = await goldenRow(name, 0);
    const assistant_model = kv_cache_dtype === "f32" ? await open(goldenFolder(name), { dtype: "int8" }) : model;
    const answer = (options: GenerateOptions) =>
      model.generate({
        ...inputs,
        max_new_tokens: TOKENS,
        eos_token_id: null,
        ...options,
        return_dict_in_generate: true,
      });
    const processed = { repetition_penalty: 1.3, no_repeat_ngram_size: 3 };
    const sampled = { do_sample: true, seed: 3, top_k: 4 };
    for (const options of ALL ? [{}, processed, sampled] : [processed]) {
      const { sequences } = await answer(options);
      for (const drafts of [
        { prompt_lookup_num_tokens: 4, max_matching_ngram_size: 1 },
        { assistant_model, num_assistant_tokens: 3, assistant_confidence_threshold: 0 },
      ]) {
        const found = await answer({ ...options, ...drafts });
        expect(found.sequences, JSON.stringify(Object.keys({ ...options, ...drafts }))).toEqual(sequences);
        const { passes, draft_tokens, accepted_tokens } = found.assisted!;
        expect(passes + accepted_tokens).toBe(TOKENS);
        expect(draft_tokens).toBeGreaterThanOrEqual(accepted_tokens);
        // A model that assists itself is always right: prefill, then three drafts and one token of its own a pass.
        if ("assistant_model" in drafts && assistant_model === model)
          expect(passes).toBe(1 + Math.ceil((TOKENS - 1) / 4));
      }
    }
  });
});

describe("the embedded checkpoint", async () => {
  const folder = "examples/shapes/checkpoint";
  const processor = await AutoProcessor.from_pretrained(folder);
  const model = await open(folder);
  const text = "Describe the image.";
  const inputs = await processor({ images: "examples/shapes/images/a.png", text });

  test("the same answer in fewer passes: from a prompt that has it, and by an int4 copy of the model", async () => {
    const answer = async (text: string, options: GenerateOptions) => {
      const given = { ...(await processor({ images: "examples/shapes/images/a.png", text })), max_new_tokens: 60 };
      const { sequences, assisted } = await model.generate({ ...given, ...options, return_dict_in_generate: true });
      expect(sequences).toEqual(await model.generate(given));
      return assisted!;
    };
    // 30 and 8 tokens: docs/usage.md has the figures.
    const repeating =
      "a yellow triangle at the top left, a red star at the top right, an orange square on the left and a purple triangle on " +
      "the right. Describe the image.";
    expect(await answer(repeating, { prompt_lookup_num_tokens: 5 })).toEqual({
      passes: 4,
      draft_tokens: 10,
      accepted_tokens: 4,
    });
    if (!ALL) return;
    expect(await answer(text, { prompt_lookup_num_tokens: 5 })).toMatchObject({ passes: 27 });
    const assistant_model = await open(folder, { dtype: "int4" });
    expect(await answer(text, { assistant_model, num_assistant_tokens: 5 })).toEqual({
      passes: 6,
      draft_tokens: 25,
      accepted_tokens: 24,
    });
  });

  test("what is no assistant, several prompts and interventions are refused", async () => {
    const drafts = { ...inputs, prompt_lookup_num_tokens: 3 };
    const two = await processor({
      images: ["examples/shapes/images/a.png", "examples/shapes/images/b.png"],
      text: [text, text],
    });
    const zero = { module: "language_model.model.layers.0", op: "zero" } as const;
    await expect(model.generate({ ...drafts, interventions: [zero] })).rejects.toThrow(/not with interventions/);
    await expect(model.generate({ ...two, prompt_lookup_num_tokens: 3 })).rejects.toThrow(/one prompt at a time/);
    const stranger = { language_model: {} };
    await expect(model.generate({ ...inputs, assistant_model: stranger })).rejects.toThrow(/must be a model that/);
    await expect(model.generate({ ...inputs, assistant_model: opened[0] })).rejects.toThrow(/^assistant_model: /);
  });
});
