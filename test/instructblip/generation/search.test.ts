/** Whole searches against Hugging Face's generate(), with a table model. */
import { describe, expect, test } from "vitest";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import type { GenerateOutput } from "../../../src/instructblip/generation/output.ts";
import { type SearchInputs, search } from "../../../src/instructblip/generation/search.ts";
import {
  floats,
  GOLDENS,
  MARKED,
  optionsOf,
  type SearchCase,
  settingOf,
  TableDecoder,
  unconditionalOf,
  V,
} from "./golden.ts";

/** f32 sums in another order: log_softmax over 48 scores, a dozen of them added. */
const SCORE = 2e-6;

function run(
  one: SearchCase,
  extra: GenerationOptions = {},
  shortcuts = false,
  inputs?: SearchInputs,
): Promise<GenerateOutput> {
  const config = decodingConfig({ ...optionsOf(one.kwargs), ...extra }, settingOf(one));
  const unconditional = unconditionalOf(config, one);
  return search(new TableDecoder(one.prompt, shortcuts), one.prompt, config, { ...inputs, unconditional });
}

const ONE: SearchCase = {
  prompt: [[5, 9, 14]],
  kwargs: { max_new_tokens: 6, eos_token_id: null },
  ids: { eos_token_id: 2, pad_token_id: 0 },
  sequences: [],
};

/** What differs from Hugging Face's answer; empty when nothing does. */
function differences(one: SearchCase, output: GenerateOutput): string[] {
  const wrong: string[] = [];
  const same = (name: string, ours: unknown, theirs: unknown) => {
    const [a, b] = [JSON.stringify(ours), JSON.stringify(theirs)];
    if (a !== b) wrong.push(`${name}: ${a} is not ${b}, for ${JSON.stringify(one.kwargs)}`);
  };
  same("sequences", output.sequences, one.sequences);
  same("beam_indices", output.beam_indices, one.beam_indices);
  one.sequences_scores?.forEach((score, i) => {
    const ours = output.sequences_scores?.[i] ?? Number.NaN;
    if (!(Math.abs(ours - score) <= SCORE * Math.max(1, Math.abs(score)))) {
      wrong.push(`score ${ours} is not ${score}, for ${JSON.stringify(one.kwargs)}`);
    }
  });
  return wrong;
}

describe("beam search", () => {
  test("gives Hugging Face's tokens and scores in 144 of 144 configurations", async () => {
    expect(GOLDENS.beams_144).toHaveLength(144);
    const wrong = [];
    for (const one of GOLDENS.beams_144) wrong.push(...differences(one, await run(one)));
    expect(wrong).toEqual([]);
  });

  test("gives the same by the device in all 144, which reads no logits back", async () => {
    const wrong = [];
    for (const one of GOLDENS.beams_144) {
      const decoder = new TableDecoder(one.prompt, true);
      const output = await search(decoder, one.prompt, decodingConfig(one.kwargs, settingOf(one)));
      wrong.push(...differences(one, output));
      expect(decoder.reads).toBe(0);
    }
    expect(wrong).toEqual([]);
  });
});

test("every search of the goldens: lengths, fillers, eos lists, 1 to 6 beams, processors, encoder-decoders", async () => {
  expect(GOLDENS.searches.length).toBeGreaterThan(300);
  const wrong = [];
  for (const one of GOLDENS.searches) {
    for (const shortcuts of [false, true]) wrong.push(...differences(one, await run(one, {}, shortcuts)));
  }
  expect(wrong).toEqual([]);
});

test("every search with guidance, watermarks, a caller's own processors and criteria", async () => {
  const having = (name: keyof GenerationOptions) => MARKED.searches.filter(({ kwargs }) => name in kwargs);
  expect(having("guidance_scale").length).toBeGreaterThan(30);
  expect(having("watermarking_config").length).toBeGreaterThan(50);
  expect(having("logits_processor").length).toBeGreaterThan(20);
  expect(having("stopping_criteria").length).toBeGreaterThan(20);
  const wrong = [];
  for (const one of MARKED.searches) {
    for (const shortcuts of [false, true]) wrong.push(...differences(one, await run(one, {}, shortcuts)));
  }
  expect(wrong).toEqual([]);
});

test("most of those searches differ from what would be found without", async () => {
  const names = ["guidance_scale", "watermarking_config", "logits_processor", "stopping_criteria"] as const;
  for (const name of names) {
    const cases = MARKED.searches.filter(({ kwargs }) => name in kwargs);
    const changed = [];
    for (const one of cases) {
      const plain = await run(one, { [name]: null });
      if (differences(one, plain).length > 0) changed.push(one);
    }
    expect(changed.length, name).toBeGreaterThan(cases.length / 2);
  }
});

test("scores and logits of every step", async () => {
  const cases = [...GOLDENS.searches, ...MARKED.searches].filter(({ scores }) => scores);
  expect(cases.length).toBeGreaterThan(10);
  for (const one of cases) {
    const all = { return_dict_in_generate: true, output_scores: true, output_logits: true };
    const output = await run(one, all);
    for (const [name, text] of [
      ["scores", one.scores],
      ["logits", one.logits],
    ] as const) {
      const theirs = floats(text!);
      const ours = output[name]!.flatMap(({ data }) => [...data]);
      expect(output[name]![0].shape[1]).toBe(V);
      expect(ours).toHaveLength(theirs.length);
      const far = ours.filter(
        (x, i) => x !== theirs[i] && !(Math.abs(x - theirs[i]) <= SCORE * Math.max(1, Math.abs(x))),
      );
      expect(far).toEqual([]);
    }
    expect(differences(one, output)).toEqual([]);
  }
});

test("where fewer tokens are allowed than beams, the rest are -1e9 below", async () => {
  const allowed = () => [10, 11, 12];
  const options = { max_new_tokens: 1, num_beams: 4, num_return_sequences: 4, prefix_allowed_tokens_fn: allowed };
  const { sequences_scores } = await run(ONE, options);
  expect(sequences_scores!.filter((score) => score > -20)).toHaveLength(3);
  expect(sequences_scores![3]).toBe(-1e9);
});

/** Each id is a word of its own. */
const WORDS = {
  encode: () => [0],
  decode: (ids: number[]) => `abcdef<${ids[1]}>`,
  convert_ids_to_tokens: (id: number) => `<${id}>`,
};

describe("stop_strings", () => {
  const two: SearchCase = {
    ...ONE,
    prompt: [
      [5, 9, 14],
      [7, 3, 30],
    ],
  };
  test("end a row, which is then filled", async () => {
    const free = (await run(two, { eos_token_id: 2, min_new_tokens: 6 })).sequences;
    const options = { eos_token_id: 2, min_new_tokens: 6, pad_token_id: 1, stop_strings: `<${free[0][4]}>` };
    const { sequences } = await run(two, options, false, { tokenizer: WORDS });
    expect(free[1]).not.toContain(free[0][4]);
    expect(sequences).toEqual([[...free[0].slice(0, 5), 1, 1, 1, 1], free[1]]);
  });

  test("without any eos id end the batch only when every row has one, as in Hugging Face", async () => {
    const free = (await run(two)).sequences;
    const stop_strings = [`<${free[0][4]}>`, `<${free[1][6]}>`];
    const { sequences } = await run(two, { stop_strings, pad_token_id: 1 }, false, { tokenizer: WORDS });
    expect(sequences).toEqual(free.map((ids) => ids.slice(0, 7)));
  });

  test("end beams", async () => {
    const [free] = (await run(ONE, { num_beams: 3 })).sequences;
    const { sequences } = await run(ONE, { num_beams: 3, length_penalty: 0, stop_strings: `<${free[4]}>` }, false, {
      tokenizer: WORDS,
    });
    expect(sequences[0].slice(3, -1)).not.toContain(free[4]);
    expect(sequences[0][sequences[0].length - 1]).toBe(free[4]);
  });
});

test("max_time ends the search with what there is", async () => {
  for (const num_beams of [1, 3]) {
    const { sequences } = await run(ONE, { num_beams, max_time: 1e-9 });
    expect(sequences[0]).toHaveLength(3 + 1);
  }
});

test("a batch gives each prompt what it gets alone", async () => {
  for (const one of GOLDENS.beams_144.filter((_, i) => i % 12 === 0)) {
    const [first] = (await run(one, { num_return_sequences: 1, return_full_text: false })).sequences;
    const alone = { ...one, prompt: [one.prompt[0]] };
    const [same] = (await run(alone, { num_return_sequences: 1, return_full_text: false })).sequences;
    const filler = (ids: number[]) => ids.join().replace(/(,[02])+$/, "");
    expect(filler(same)).toBe(filler(first));
  }
});

describe("greedy search", () => {
  test("reads no logits without processors", async () => {
    const decoder = new TableDecoder(ONE.prompt);
    await search(decoder, ONE.prompt, decodingConfig(ONE.kwargs, settingOf(ONE)));
    expect(decoder.reads).toBe(0);
    expect(decoder.steps).toBe(5); // and does not take a step whose result nobody wants
  });

  test("nor with a repetition penalty and bans, where the device can apply them", async () => {
    const options = { repetition_penalty: 1.5, no_repeat_ngram_size: 2, min_new_tokens: 2, suppress_tokens: [4] };
    const plain = await run(ONE, options);
    const decoder = new TableDecoder(ONE.prompt, true);
    const output = await search(decoder, ONE.prompt, decodingConfig({ ...ONE.kwargs, ...options }, settingOf(ONE)));
    expect(output.sequences).toEqual(plain.sequences);
    expect(decoder.reads).toBe(0);
  });

  test("return_full_text: false leaves the prompt out", async () => {
    const whole = (await run(ONE)).sequences[0];
    expect((await run(ONE, { return_full_text: false })).sequences[0]).toEqual(whole.slice(3));
    const beams = (await run(ONE, { num_beams: 3 })).sequences[0];
    expect((await run(ONE, { num_beams: 3, return_full_text: false })).sequences[0]).toEqual(beams.slice(3));
  });

  test("an aborted signal's reason is thrown at the next token", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const inputs = { signal: controller.signal, on_token: (step: number) => step === 1 && controller.abort(reason) };
    for (const num_beams of [1, 3]) {
      await expect(run(ONE, { num_beams }, false, inputs as SearchInputs)).rejects.toBe(reason);
    }
  });
});

describe("sampling", () => {
  const sampled = { do_sample: true, seed: 7, return_dict_in_generate: true };

  test("the same seed gives the same tokens, another seed others", async () => {
    for (const extra of [{ num_return_sequences: 4 }, { num_beams: 3, num_return_sequences: 3 }]) {
      const first = await run(ONE, { ...sampled, ...extra });
      expect(first.seed).toBe(7);
      expect((await run(ONE, { ...sampled, ...extra })).sequences).toEqual(first.sequences);
      expect((await run(ONE, { ...sampled, ...extra, seed: 8 })).sequences).not.toEqual(first.sequences);
      const rows = first.sequences.map((ids) => ids.join());
      expect(new Set(rows).size).toBe(rows.length);
    }
  });

  test("without a seed, the one that was drawn makes it happen again", async () => {
    const first = await run(ONE, { ...sampled, seed: null });
    expect((await run(ONE, { ...sampled, seed: first.seed! })).sequences).toEqual(first.sequences);
  });

  test("top_k 1 is greedy search, and min_p 1 too", async () => {
    const greedy = await run(ONE);
    expect((await run(ONE, { ...sampled, top_k: 1 })).sequences).toEqual(greedy.sequences);
    expect((await run(ONE, { ...sampled, min_p: 1 })).sequences).toEqual(greedy.sequences);
  });
});

describe("streaming", () => {
  test("greedy and sampled tokens come one by one and make up the result", async () => {
    for (const extra of [{}, { do_sample: true, seed: 1 }]) {
      const seen: number[] = [];
      const streamer = { put: (ids: readonly (readonly number[])[]) => seen.push(...ids[0]), end: () => {} };
      const { sequences } = await run(ONE, extra, false, { streamer: streamer as SearchInputs["streamer"] });
      expect(seen).toEqual(sequences[0]);
    }
  });

  test("beams tell their best answer so far, the last of which is the result", async () => {
    const seen: (readonly number[])[] = [];
    const streamer = {
      put: () => {},
      end: () => {},
      best: ([ids]: readonly (readonly number[])[]) => void seen.push(ids),
    };
    const { sequences } = await run(ONE, { num_beams: 3, return_full_text: false }, false, { streamer });
    expect(seen).toHaveLength(6);
    expect(seen.map((ids) => ids.length)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(seen[5]).toEqual(sequences[0]);
  });

  test("a finished beam that leads is the best answer", async () => {
    const ending = GOLDENS.beams_144.filter(
      ({ kwargs }) => kwargs.early_stopping === false && kwargs.length_penalty === 0,
    );
    expect(ending.length).toBeGreaterThan(5);
    for (const one of ending) {
      let last: readonly (readonly number[])[] = [];
      const best = (answers: typeof last) => {
        last = answers;
      };
      const streamer = { put: () => {}, end: () => {}, best };
      const extra = { num_return_sequences: 1, return_full_text: false };
      const { sequences } = await run(one, extra, false, { streamer });
      // As long as the longest, filled with eos (pad is 0).
      expect(sequences.map((ids, b) => ids.slice(0, last[b].length))).toEqual(last);
      for (const [b, ids] of sequences.entries()) expect(ids.slice(last[b].length).every((id) => id === 2)).toBe(true);
    }
  });

  test("a streamer that leaves stops the search", async () => {
    for (const num_beams of [1, 3]) {
      let count = 0;
      const streamer = {
        put: () => {},
        best: () => {},
        end: () => {},
        get cancelled() {
          return count >= 2;
        },
      };
      const inputs = { streamer, on_token: () => void count++ };
      const { sequences } = await run(ONE, { num_beams }, false, inputs);
      expect(sequences[0].length).toBeLessThan(3 + 6);
    }
  });

  test("a streamer without best() is refused with beams", async () => {
    const streamer = { put: () => {}, end: () => {} };
    await expect(run(ONE, { num_beams: 2 }, false, { streamer })).rejects.toMatchObject({ code: "STREAM_BEAMS" });
  });
});

test("prefix_allowed_tokens_fn is asked for every row and obeyed", async () => {
  for (const extra of [{}, { num_beams: 3, num_return_sequences: 3 }]) {
    const allowed = (batch: number, ids: readonly number[]) => (ids.length % 2 ? [10 + batch, 20] : [30, 31, 32]);
    const { sequences } = await run(ONE, { ...extra, prefix_allowed_tokens_fn: allowed });
    for (const ids of sequences) {
      ids.slice(3).forEach((id, i) => {
        expect(allowed(0, ids.slice(0, 3 + i))).toContain(id);
      });
    }
  }
  await expect(run(ONE, { prefix_allowed_tokens_fn: () => [] })).rejects.toMatchObject({ code: "PARAM_RANGE" });
});

describe("a caller's own", () => {
  test("processors see every row so far and may not be asynchronous", async () => {
    const seen: number[][][] = [];
    const logits_processor = [
      (rows: readonly (readonly number[])[], scores: readonly Float32Array[]) => {
        seen.push(rows.map((ids) => [...ids]));
        for (const row of scores) row.fill(Number.NEGATIVE_INFINITY, 0, 40);
      },
    ];
    const { sequences } = await run(ONE, { logits_processor });
    expect(seen.map(([ids]) => ids)).toEqual(
      sequences[0].slice(2, -1).map((_, step) => sequences[0].slice(0, step + 3)),
    );
    expect(sequences[0].slice(3).every((id) => id >= 40)).toBe(true);
    const late = (async () => {}) as unknown as () => void;
    const thrown = expect(run(ONE, { logits_processor: [late] })).rejects;
    await thrown.toThrow(/logits_processor returned object[\s\S]*no promise/);
  });

  test("a processor is run whatever it calls itself", async () => {
    const nothing = Object.assign(() => {}, { bans: () => [9], penalty: 3, ordered: true as const });
    expect((await run(ONE, { logits_processor: [nothing] })).sequences).toEqual((await run(ONE)).sequences);
  });

  test("criteria end a row after the token that they are shown, and say yes or no", async () => {
    const [free] = (await run(ONE)).sequences;
    const { sequences } = await run(ONE, { stopping_criteria: [(ids) => ids.length === 5] });
    expect(sequences).toEqual([free.slice(0, 5)]);
    const unsure = (() => undefined) as unknown as () => boolean;
    const thrown = expect(run(ONE, { stopping_criteria: [unsure] })).rejects;
    await thrown.toThrow(/stopping_criteria returned undefined[\s\S]*true or false/);
  });
});
