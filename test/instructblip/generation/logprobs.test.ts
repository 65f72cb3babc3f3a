/**
 * Log-probabilities of answers: transition scores against Hugging Face's of whole searches with a table model, `logprobs` of
 * generate() against them, and both against PyTorch's logits of committed composites.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { InstructBlipForConditionalGeneration } from "../../../src/index.node.ts";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import { computeTransitionScores } from "../../../src/instructblip/generation/logprobs.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import type { GenerateOutput } from "../../../src/instructblip/generation/output.ts";
import { search } from "../../../src/instructblip/generation/search.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { COMMITTED, goldenFolder } from "../../golden_folder.ts";
import { Golden, goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";
import { TOLERANCES } from "../../tolerances.ts";
import {
  GOLDENS,
  MARKED,
  optionsOf,
  read,
  type SearchCase,
  settingOf,
  TableDecoder,
  unconditionalOf,
  V,
} from "./golden.ts";

interface Transitions {
  readonly of: "beams_144" | "searches" | "marked";
  readonly at: number;
  /** null: -Infinity */
  readonly raw: readonly (readonly (number | null)[])[];
  readonly normalised: readonly (readonly (number | null)[])[];
}

const TRANSITIONS = read<Transitions[]>("transitions.json.gz");
/** f32 sums and logarithms in another order, of 48 scores; guided ones are up to some 50. */
const SCORE = 2e-5;
const SCORES = { return_dict_in_generate: true, output_scores: true } as const;

const caseOf = ({ of, at }: Transitions): SearchCase => (of === "marked" ? MARKED.searches[at] : GOLDENS[of][at]);

function run(one: SearchCase, extra: GenerationOptions): Promise<GenerateOutput> {
  const config = decodingConfig({ ...optionsOf(one.kwargs), ...extra }, settingOf(one));
  const unconditional = unconditionalOf(config, one);
  return search(new TableDecoder(one.prompt, true), one.prompt, config, { unconditional });
}

/** One of `every`, or all. */
const sample = (every: number) => TRANSITIONS.filter((_, i) => ALL || i % every === 0);

/** How far numbers are from Hugging Face's at most; infinite if their shapes differ, or one is infinite or NaN. */
function distance(ours: readonly (readonly number[])[], theirs: Transitions["raw"]): number {
  if (ours.map(({ length }) => length).join() !== theirs.map(({ length }) => length).join())
    return Number.POSITIVE_INFINITY;
  const far = ours.flatMap((row, r) =>
    row.map((x, t) => {
      const y = theirs[r][t] ?? Number.NEGATIVE_INFINITY;
      return x === y ? 0 : Math.abs(x - y);
    }),
  );
  return far.some(Number.isNaN) ? Number.POSITIVE_INFINITY : Math.max(...far);
}

test("transition scores are Hugging Face's: beams, processors, ends, encoder-decoders, guidance", async () => {
  expect(TRANSITIONS.length).toBeGreaterThan(200);
  for (const one of sample(2)) {
    const { sequences, scores, beam_indices } = await run(caseOf(one), SCORES);
    const [raw, normalised] = [false, true].map((yes) =>
      computeTransitionScores(sequences, scores!, beam_indices, yes),
    );
    expect(distance(raw, one.raw), JSON.stringify(caseOf(one).kwargs)).toBeLessThan(SCORE);
    expect(distance(normalised, one.normalised), JSON.stringify(caseOf(one).kwargs)).toBeLessThan(SCORE);
  }
});

test("logprobs are the normalised ones up to each answer's end, sum and alternatives", async () => {
  let ended = 0;
  for (const one of sample(6)) {
    const { sequences, scores, beam_indices, logprobs } = await run(caseOf(one), { ...SCORES, logprobs: 3 });
    const normalised = computeTransitionScores(sequences, scores!, beam_indices, true);
    for (const [r, { sum, tokens }] of logprobs!.entries()) {
      const steps = normalised[r].length;
      const ids = sequences[r].slice(sequences[r].length - steps);
      ended += Number(tokens.length < steps);
      expect(tokens.map(({ id }) => id)).toEqual(ids.slice(0, tokens.length));
      expect(tokens.map(({ logprob }) => logprob)).toEqual(normalised[r].slice(0, tokens.length));
      expect(sum).toBe(tokens.reduce((total, { logprob }) => total + logprob, 0));
      // What is left is filler.
      expect(new Set(ids.slice(tokens.length)).size).toBeLessThanOrEqual(1);
      if (beam_indices) expect(tokens).toHaveLength(beam_indices[r].filter((beam) => beam >= 0).length);
      for (const { top, logprob, id } of tokens) {
        expect(top.length).toBeLessThanOrEqual(3);
        const better = top.filter((other) => other.logprob > logprob);
        expect(better.length === 3 || top.some((other) => other.id === id) || top.at(-1)!.logprob === logprob).toBe(
          true,
        );
        expect(top.map((other) => other.logprob)).toEqual(top.map((other) => other.logprob).sort((a, b) => b - a));
        expect(Number.isFinite(top[0].logprob)).toBe(true);
      }
    }
    // They change no answer, and need no scores to be kept.
    const alone = await run(caseOf(one), { return_dict_in_generate: true, logprobs: 0 });
    expect(alone.sequences).toEqual(sequences);
    expect(alone.scores).toBeUndefined();
    expect(alone.logprobs!.map(({ sum }) => sum)).toEqual(logprobs!.map(({ sum }) => sum));
    expect(alone.logprobs!.flatMap(({ tokens }) => tokens).every(({ top }) => top.length === 0)).toBe(true);
  }
  expect(ended).toBeGreaterThan(8);
});

const DRAWN: SearchCase = {
  prompt: [
    [5, 9, 14],
    [7, 3, 30],
  ],
  kwargs: { max_new_tokens: 6, do_sample: true, seed: 3, num_return_sequences: 3 },
  ids: { eos_token_id: 2, pad_token_id: 0 },
  sequences: [],
};

test("of samples they are in the distribution that was drawn from", async () => {
  for (const kwargs of [
    {},
    { num_beams: 3 },
    { top_k: 5, temperature: 2, stop_strings: null },
    { top_p: 0.7, eos_token_id: null },
  ]) {
    const output = await run({ ...DRAWN, kwargs: { ...DRAWN.kwargs, ...kwargs } }, { ...SCORES, logprobs: V });
    const normalised = computeTransitionScores(output.sequences, output.scores!, output.beam_indices, true);
    for (const [r, { tokens }] of output.logprobs!.entries()) {
      expect(tokens.map(({ logprob }) => logprob)).toEqual(normalised[r].slice(0, tokens.length));
      for (const { top } of tokens) {
        // All that may be drawn is there, and its probabilities are a distribution.
        expect(top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0)).toBeCloseTo(1, 5);
        if ("top_k" in kwargs) expect(top).toHaveLength(5);
      }
    }
  }
});

test("arrays that do not belong together are refused", async () => {
  const { sequences, scores, beam_indices } = await run(
    { ...DRAWN, kwargs: { max_new_tokens: 4, num_beams: 2 } },
    SCORES,
  );
  const refused = (...given: Parameters<typeof computeTransitionScores>) =>
    expect(() => computeTransitionScores(...given)).toThrow(expect.objectContaining({ code: "BAD_INPUT" }));
  refused(sequences, scores!.slice(1), beam_indices);
  refused([...sequences, sequences[0]], scores!, beam_indices);
  refused([[1], [2]], scores!);
  refused(
    sequences.map((ids) => ids.map(() => V)),
    scores!,
    beam_indices,
  );
});

const device = await testDevice();

describe.each(["plain_f32", "grouped_heads_bf16", "t5_flan", "opt_plain"])("%s", async (name) => {
  const golden = await Golden.open(goldenFolder(name));
  const inputs = await goldenInputs(name);
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder(name), { device });
  afterAll(async () => {
    model.dispose();
    await golden.close();
  });

  test("greedy: those of PyTorch's logits, as far as an answer goes", async () => {
    const { data, shape } = await golden.floats("greedy.logits");
    const [steps, B, vocabulary] = shape;
    const { kwargs } = golden.json.generations.find((one) => one.name === "greedy")!;
    const call = { ...inputs, ...kwargs, ...SCORES } as const;
    const { sequences, logprobs } = await model.generate({ ...call, logprobs: 2 });
    const theirs = Array.from({ length: steps }, (_, t) => {
      const rows = data.subarray(t * B * vocabulary, (t + 1) * B * vocabulary);
      return { data: Float32Array.from(rows), shape: [B, vocabulary] as const };
    });
    const expected = computeTransitionScores(sequences, theirs, undefined, true);
    for (const [r, { tokens }] of logprobs!.entries()) {
      expect(tokens.length).toBeGreaterThan(0);
      const ours = tokens.map(({ logprob }) => logprob);
      expectClose(ours, expected[r].slice(0, tokens.length), TOLERANCES.beam_scores, `row ${r}`);
      for (const { id, top } of tokens) expect([top.length, top[0].id]).toEqual([2, id]); // greedy
    }
    // The model's own method, on all that generate() returned.
    const { scores } = await model.generate(call);
    const own = model.compute_transition_scores(sequences, scores!, null, true);
    for (const [r, { tokens }] of logprobs!.entries()) {
      expect(tokens.map(({ logprob }) => logprob)).toEqual(own[r].slice(0, tokens.length));
    }
  });

  test("need return_dict_in_generate, and say so", async () => {
    const warnings: string[] = [];
    const on_warning = (line: string) => void warnings.push(line);
    const rows = await model.generate({ ...inputs, max_new_tokens: 2, logprobs: 2, on_warning });
    expect(rows).toEqual(await model.generate({ ...inputs, max_new_tokens: 2, on_warning: null }));
    expect(warnings.filter((line) => line.includes("logprobs"))).toEqual([
      "logprobs has no effect: return_dict_in_generate is not true",
    ]);
  });
});

interface Drawn {
  /** [row]: ids that may be drawn, with PyTorch's probabilities */
  readonly drawn: readonly {
    readonly kwargs: GenerationOptions;
    readonly probabilities: readonly (readonly (readonly [number, number])[])[];
  }[];
}

test.each(["plain_f32", "t5_flan"])(
  "%s: the first tokens' are PyTorch's probabilities of what may be drawn",
  async (name) => {
    const { drawn }: Drawn = JSON.parse(readFileSync(join(COMMITTED, `answers/data/${name}.json`), "utf8"));
    const inputs = await goldenInputs(name);
    const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder(name), { device });
    for (const { kwargs, probabilities } of drawn) {
      const sampling = {
        ...kwargs,
        do_sample: true,
        max_new_tokens: 1,
        seed: 1,
        logprobs: 1000,
        return_dict_in_generate: true,
      } as const;
      const { logprobs } = await model.generate({ ...inputs, ...sampling });
      for (const [r, { tokens }] of logprobs!.entries()) {
        const ours = new Map(tokens[0].top.map(({ id, logprob }) => [id, Math.exp(logprob)]));
        // A probability of 0 in f32 is that of a token that is banned or all but.
        const known = probabilities[r].filter(([, p]) => p > 1e-9);
        expect([...ours].filter(([id, p]) => p > 1e-8 && !known.some(([other]) => other === id))).toEqual([]);
        expectClose(
          known.map(([id]) => ours.get(id) ?? Number.NaN),
          known.map(([, p]) => p),
          { abs: 2e-5 },
          JSON.stringify(kwargs),
        );
      }
    }
    model.dispose();
  },
);
