/** Assisted decoding: Hugging Face's drafts, and the answers of searches without them. */
import { describe, expect, test } from "vitest";
import { expectKin, type Kin } from "../../../src/instructblip/generation/assisted/kin.ts";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import type { GenerateOutput } from "../../../src/instructblip/generation/output.ts";
import { type SearchInputs, search } from "../../../src/instructblip/generation/search.ts";
import { ALL } from "../../rounds.ts";
import { optionsOf, read, type SearchCase, settingOf, TableDecoder } from "./golden.ts";

/** assisted.py's: the drafts of every pass after the first, and whether an assistant made them. */
interface AssistedCase extends SearchCase {
  readonly assistant: boolean;
  readonly drafts: number[][];
}
const CASES = read<AssistedCase[]>("assisted.json.gz");
/** Of either kind every sixth. */
const SOME = ALL ? CASES : CASES.filter((_, i) => i % 12 < 2);
/** Stands for a model; the searches are given decoders. */
const assistant_model = { language_model: {} };
const DRAFTING = [
  "prompt_lookup_num_tokens",
  "max_matching_ngram_size",
  "num_assistant_tokens",
  "num_assistant_tokens_schedule",
  "assistant_confidence_threshold",
] as const;

/** Notes what is verified. */
class Verifier extends TableDecoder {
  readonly drafts: number[][] = [];

  override step(tokens: Parameters<TableDecoder["step"]>[0]) {
    this.drafts.push([]);
    return super.step(tokens);
  }

  override extend(tokens: Parameters<TableDecoder["extend"]>[0]) {
    this.drafts.push(tokens.ids.slice(1));
    return super.extend(tokens);
  }
}

interface Found extends GenerateOutput {
  readonly drafts: number[][];
  readonly reads: number;
}

async function assisted(
  one: AssistedCase,
  extra: GenerationOptions = {},
  { shortcuts = false, ends = [], ...inputs }: SearchInputs & { shortcuts?: boolean; ends?: readonly number[] } = {},
): Promise<Found> {
  const options = { ...optionsOf(one.kwargs), ...(one.assistant && { assistant_model }), ...extra };
  const config = decodingConfig(options, settingOf(one));
  const decoder = new Verifier(one.prompt, shortcuts);
  const assistant = one.assistant
    ? { decoder: new TableDecoder(one.prompt, shortcuts, true), eos_token_id: ends }
    : undefined;
  const output = await search(decoder, one.prompt, config, { ...inputs, assistant });
  return { ...output, drafts: decoder.drafts, reads: decoder.reads };
}

/** The same without drafts. */
async function plain(
  one: AssistedCase,
  extra: GenerationOptions = {},
  inputs: SearchInputs = {},
): Promise<GenerateOutput> {
  const options = { ...optionsOf(one.kwargs), ...extra };
  for (const name of DRAFTING) delete options[name];
  return search(new TableDecoder(one.prompt), one.prompt, decodingConfig(options, settingOf(one)), inputs);
}

/** Hugging Face's drafts as far as they can be accepted: its prompt lookup drafts beyond the longest row. */
function verifiable(one: AssistedCase): number[][] {
  const { max_length } = decodingConfig(optionsOf(one.kwargs), settingOf(one));
  const [row] = one.sequences;
  let length = one.prompt[0].length + 1;
  return one.drafts.map((drafts) => {
    const ahead = row.slice(length);
    const differs = drafts.findIndex((id, i) => id !== ahead[i]);
    const room = max_length - length - 1;
    length += 1 + (differs < 0 ? drafts.length : differs);
    return drafts.slice(0, room);
  });
}

const newTokens = ({ sequences }: GenerateOutput, { prompt }: SearchCase) => sequences[0].length - prompt[0].length;

describe("Hugging Face's", () => {
  test.each([
    ["prompt lookup", false],
    ["assistant", true],
  ])("%s: its drafts in every pass, and its answers, which are those without drafts", async (_, assistant) => {
    const cases = SOME.filter((one) => one.assistant === assistant);
    expect(cases.length).toBe(ALL ? 80 : 14);
    let accepted = 0;
    for (const one of cases) {
      const found = await assisted(one);
      const what = JSON.stringify(one.kwargs);
      expect(found.sequences, what).toEqual(one.sequences);
      expect(found.drafts, what).toEqual(verifiable(one));
      expect((await plain(one)).sequences, what).toEqual(one.sequences);
      expect((await assisted(one, {}, { shortcuts: true })).sequences, what).toEqual(one.sequences);
      const { passes, draft_tokens, accepted_tokens } = found.assisted!;
      expect(passes).toBe(1 + one.drafts.length);
      expect(draft_tokens).toBe(verifiable(one).flat().length);
      expect(passes + accepted_tokens).toBe(newTokens(found, one));
      accepted += accepted_tokens;
    }
    expect(accepted).toBeGreaterThan(ALL ? 40 : 5);
  });
});

test("where the options have no end, an assistant's own ends its drafts, and not the answer", async () => {
  const options = { eos_token_id: null, num_assistant_tokens_schedule: "constant" } as const;
  const one = SOME.find(({ assistant, kwargs }) => assistant && !kwargs.do_sample)!;
  const endless = await assisted(one, options);
  const [id] = endless.drafts.find((drafts) => drafts.length > 1)!;
  const ended = await assisted(one, options, { ends: [id] });
  expect(ended.sequences).toEqual(endless.sequences);
  expect(ended.drafts.some((drafts) => drafts.at(-1) === id)).toBe(true);
  expect(ended.drafts.filter((drafts) => drafts.indexOf(id) >= 0 && drafts.indexOf(id) < drafts.length - 1)).toEqual(
    [],
  );
  const given = await assisted(one, { ...options, eos_token_id: one.prompt[0][0] }, { ends: [id] });
  expect(given.drafts.some((drafts) => drafts.includes(id) && drafts.at(-1) !== id)).toBe(true);
});

/** Cases that accept drafts, of either kind. */
const ACCEPTING = [false, true].flatMap((kind) =>
  CASES.filter(
    (one) =>
      one.assistant === kind &&
      one.prompt[0].length > 1 &&
      one.sequences[0].length > one.prompt[0].length + one.drafts.length + 3,
  ).slice(0, ALL ? 4 : 1),
);

describe("the same as without drafts", () => {
  test("what a seed draws", async () => {
    let accepted = 0;
    for (const one of SOME) {
      const sampled = { do_sample: true, seed: 5, top_k: 4, temperature: 0.6 };
      const found = await assisted(one, sampled);
      expect(found.sequences, JSON.stringify(one.kwargs)).toEqual((await plain(one, sampled)).sequences);
      expect(found.seed).toBe(5);
      accepted += found.assisted!.accepted_tokens;
    }
    expect(accepted).toBeGreaterThan(ALL ? 60 : 10);
  });

  test("scores, logits and log-probabilities, a row for each token", async () => {
    expect(ACCEPTING.length).toBe(ALL ? 8 : 2);
    for (const one of ACCEPTING) {
      const all = { return_dict_in_generate: true, output_scores: true, output_logits: true, logprobs: 2 };
      const [found, expected] = [await assisted(one, all), await plain(one, all)];
      expect(found.scores).toEqual(expected.scores);
      expect(found.logits).toEqual(expected.logits);
      expect(found.logprobs).toEqual(expected.logprobs);
    }
  });

  test("criteria that stop within a pass, and what streamers and on_token get", async () => {
    let within = 0;
    for (const one of ACCEPTING) {
      for (let length = 1; length <= newTokens(await assisted(one), one); length++) {
        const end = one.prompt[0].length + length;
        const stopping_criteria = [(ids: readonly number[]) => ids.length === end];
        const calls: [number[], number[]] = [[], []];
        const listen = (got: number[]): SearchInputs => ({
          streamer: { put: ([ids]) => void got.push(...ids, -1), end() {} },
          on_token: (step) => void got.push(-2, step),
        });
        const found = await assisted(one, { stopping_criteria }, listen(calls[0]));
        const expected = await plain(one, { stopping_criteria }, listen(calls[1]));
        expect(found.sequences).toEqual(expected.sequences);
        expect(calls[0]).toEqual(calls[1]);
        if (found.assisted!.accepted_tokens < found.drafts.flat().length) within++;
      }
    }
    expect(within).toBeGreaterThan(0);
  });

  test("a streamer that has had enough, and an abort", async () => {
    for (const one of ACCEPTING) {
      const streamer = { cancelled: false, put: () => {}, end() {} };
      const cancel = (step: number) => {
        streamer.cancelled = step === 1;
      };
      expect(newTokens(await assisted(one, {}, { streamer, on_token: cancel }), one)).toBe(2);
      const controller = new AbortController();
      const abort = (step: number) => {
        if (step === 1) controller.abort(new Error("enough"));
      };
      const inputs = { signal: controller.signal, on_token: abort };
      await expect(assisted(one, {}, inputs)).rejects.toThrow("enough");
    }
  });
});

test("greedy search reads back ids alone", async () => {
  const one = ACCEPTING.find(({ kwargs }) => Object.keys(kwargs).length <= 4)!;
  expect((await assisted(one, {}, { shortcuts: true })).reads).toBe(0);
});

test("scores that are NaN are an error where the answer gets to them, not in a rejected draft", async () => {
  const one = ACCEPTING[0];
  const nan = (ids: readonly number[], at: number) => ids.length >= one.prompt[0].length + at;
  const spoilt = (at: number) => [
    (rows: readonly (readonly number[])[], scores: readonly Float32Array[]) => {
      if (nan(rows[0], at)) scores[0].fill(Number.NaN);
    },
  ];
  const length = newTokens(await assisted(one), one);
  const all = { logits_processor: spoilt(length) };
  expect((await assisted(one, all)).sequences).toEqual(one.sequences);
  await expect(assisted(one, { logits_processor: spoilt(length - 1) })).rejects.toThrow("no valid score");
});

describe("an assistant with", () => {
  const own: Kin = { is_encoder_decoder: false, vocabulary: 32001, image_token: 32000, num_query_tokens: 32 };
  test.each<[string, Partial<Kin>, RegExp]>([
    ["another kind of language model", { is_encoder_decoder: true }, /has an encoder, the model's has no encoder/],
    [
      "another vocabulary",
      { vocabulary: 500 },
      /its vocabulary differs: it has 500 tokens, the model has 32001\n.*ids/,
    ],
    ["another image token", { image_token: 7 }, /its image token differs: it has id 7, the model has id 32000/],
    ["no image token", { image_token: null }, /its image token differs: it has none, the model has id 32000/],
    ["other tokens an image", { num_query_tokens: 5 }, /image tokens differs: it has 5 for an image, the model has 32/],
  ])("%s is refused", (_, other, message) => {
    expect(() => expectKin(own, own)).not.toThrow();
    expect(() => expectKin(own, { ...own, ...other })).toThrow(
      expect.objectContaining({ code: "BAD_INPUT", message: expect.stringMatching(message) }),
    );
  });
});

describe("what cannot be combined", () => {
  const setting = { promptLength: 4, vocabulary: 48, eos_token_id: 2, pad_token_id: 0 };
  test.each<[string, GenerationOptions]>([
    ["num_beams", { num_beams: 2 }],
    ["num_return_sequences", { num_return_sequences: 2, do_sample: true }],
    ["guidance_scale", { guidance_scale: 2 }],
    ["output_attentions", { output_attentions: true, return_dict_in_generate: true }],
    ["output_hidden_states", { output_hidden_states: true, return_dict_in_generate: true }],
    ["watermarking_config", { watermarking_config: { ngram_len: 3, keys: [1, 2] } }],
  ])("%s is refused", (name, options) => {
    for (const drafts of [{ prompt_lookup_num_tokens: 3 }, { assistant_model }]) {
      expect(() => decodingConfig({ ...drafts, ...options }, setting)).toThrow(
        expect.objectContaining({ code: "UNSUPPORTED_OPTION", message: expect.stringContaining(`not with ${name}`) }),
      );
    }
  });

  test("two that draft are refused, and options of the one that does not are warned of", () => {
    const both = { prompt_lookup_num_tokens: 3, assistant_model };
    expect(() => decodingConfig(both, setting)).toThrow(/prompt_lookup_num_tokens: one drafts/);
    const { warnings } = decodingConfig({ num_assistant_tokens: 3, max_matching_ngram_size: 3 }, setting);
    expect(warnings).toEqual([
      "max_matching_ngram_size has no effect: prompt_lookup_num_tokens is null",
      "num_assistant_tokens has no effect: assistant_model is null",
    ]);
    const heuristic = { assistant_model, num_assistant_tokens_schedule: "heuristic" } as const;
    expect(decodingConfig(heuristic, setting).warnings).toEqual([expect.stringContaining("as heuristic_transient")]);
  });
});
