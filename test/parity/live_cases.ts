/**
 * The cases of live parity for a drawn composite besides the stages of golden.ts: decoding options that JSON cannot express,
 * the scores of every step, hidden states and attention maps, losses, candidates, and calls of the processor. The drawing is
 * test/golden/decoding.py, states.py, likelihood.py and processor_calls.py.
 */
import { join } from "node:path";
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  type GenerateOutput,
  type InterventionData,
  logitLens,
  type StepScores,
  type VisionLanguageModel,
} from "../../src/index.node.ts";
import type { GenerateOptions } from "../../src/instructblip/generation/generate.ts";
import type { TokenTexts } from "../../src/instructblip/generation/stopping.ts";
import { TOLERANCES } from "../tolerances.ts";
import type { Comparisons, Golden } from "./golden.ts";
import { type Numbers, numbersIn } from "./numbers_in.ts";

/** `asked` of golden.json. */
export interface Asked {
  /** Names of generations. */
  readonly calls: readonly string[];
  readonly labels: readonly (readonly number[])[];
  /** generate() calls of which states and maps are recorded. */
  readonly states: Readonly<Record<string, GenerateOptions>>;
  readonly candidates: readonly (readonly (readonly number[])[])[] | null;
  readonly processor: readonly ProcessorCall[];
  readonly interventions: readonly ChangedCall[];
  /** Texts for the retrieval model, one for each image. */
  readonly retrieval: readonly string[];
  /** generate() calls of one row, with drafts of prompt lookup or of the golden's assistant. */
  readonly drafts: readonly DraftsCall[];
  /** Ids of an answer to one of the prompts. */
  readonly lens: { readonly row: number; readonly answer: readonly number[] };
}

/** A forward() or generate() with interventions. */
export interface ChangedCall {
  readonly name: string;
  readonly call: "forward" | "greedy" | "beams" | "samples";
  readonly interventions: readonly InterventionData[];
  /** Of forward(). */
  readonly inputs?: { readonly decoder_input_ids: number[][] };
  /** Of generate(). */
  readonly kwargs?: GenerateOptions;
}

interface DraftsCall {
  readonly name: string;
  readonly row: number;
  readonly assistant: boolean;
  readonly kwargs: Readonly<Record<string, unknown>>;
}

interface ProcessorCall {
  readonly text: string | readonly string[];
  /** Numbers of the golden's images; of a video, of each one's frames. */
  readonly images?: readonly (number | readonly number[])[];
  readonly options: object;
}

const ASKED = { output_hidden_states: true, output_attentions: true } as const;

/** What stands in JSON for what a program must write. */
interface SpelledFunctions {
  readonly prefix_allowed_tokens_fn?: { readonly but_every: number };
  readonly logits_processor?: readonly { readonly every: number; readonly add: number }[];
  readonly stopping_criteria?: readonly { readonly multiple_of: number }[];
}

/** A call's options as generate() takes them; decoding.py has the same of Hugging Face's. */
export function ready(
  kwargs: Readonly<Record<string, unknown>>,
  vocabulary: number,
  tokenizer: TokenTexts,
): GenerateOptions {
  const { prefix_allowed_tokens_fn, logits_processor, stopping_criteria, ...plain } = kwargs as SpelledFunctions;
  const every = Array.from({ length: vocabulary }, (_, id) => id);
  return {
    ...plain,
    ...(prefix_allowed_tokens_fn && {
      prefix_allowed_tokens_fn: (batch: number, ids: readonly number[]) =>
        every.filter((id) => (id + batch + ids.length) % prefix_allowed_tokens_fn.but_every !== 0),
    }),
    ...(logits_processor && {
      logits_processor: logits_processor.map(({ every, add }) => (rows, scores) => {
        for (const [r, row] of scores.entries())
          for (let id = rows[r].length % every; id < row.length; id += every) row[id] += Math.fround(add);
      }),
    }),
    ...(stopping_criteria && {
      stopping_criteria: stopping_criteria.map(
        ({ multiple_of }) =>
          (ids) =>
            ids[ids.length - 1] % multiple_of === 0,
      ),
    }),
    ...(kwargs.stop_strings !== undefined && { tokenizer }),
    ...(kwargs.do_sample === true && { seed: 1 }),
  };
}

/** Scores f32[steps, R, V]: infinite where PyTorch's are, and close where these are finite. */
export async function compareSteps(
  golden: Golden,
  found: Comparisons,
  name: string,
  steps: readonly StepScores[] = [],
): Promise<void> {
  const { data: expected, shape } = await golden.floats(name);
  found.equal("scores", `${name}.shape`, [steps.length, ...(steps[0]?.shape ?? [])], shape);
  const actual = steps.flatMap(({ data }) => [...data]);
  const known = (_: number, i: number) => Number.isFinite(expected[i]);
  const infinite = (values: ArrayLike<number>) =>
    Array.from(values, (value, i) => (Number.isFinite(value) ? "" : `${i}: ${value}`)).filter(Boolean);
  found.equal("scores", `${name}.infinite`, infinite(actual), infinite(expected));
  found.numbers("scores", name, actual.filter(known), expected.filter(known), TOLERANCES.free_running);
}

/** Log-probabilities of an answer's tokens: from the scores, as transformers computes them, and as generate() gives them. */
export async function compareTransitions(
  golden: Golden,
  found: Comparisons,
  call: string,
  model: VisionLanguageModel,
  { sequences, scores, beam_indices, logprobs }: GenerateOutput,
): Promise<void> {
  const name = `${call}.transition_scores`;
  const { data: expected, shape } = await golden.floats(name);
  const ours = model.compute_transition_scores(sequences, scores!, beam_indices, true);
  found.equal("scores", `${name}.shape`, [ours.length, ours[0]!.length], shape);
  const banned = (values: ArrayLike<number>) => Array.from(values, (value) => value === Number.NEGATIVE_INFINITY);
  const finite = (values: ArrayLike<number>) =>
    Array.from(values, (value) => (value === Number.NEGATIVE_INFINITY ? 0 : value));
  found.equal("scores", `${name}.infinite`, banned(ours.flat()), banned(expected));
  found.numbers("scores", name, finite(ours.flat()), finite(expected), TOLERANCES.beam_scores);
  const given = logprobs!.map(({ tokens }) => tokens.map(({ logprob }) => logprob));
  const same = ours.map((row, r) => row.slice(0, given[r]!.length));
  found.equal("scores", `${call}.logprobs`, given, same);
}

type Inputs = Parameters<VisionLanguageModel["forward"]>[0];

/** One row of inputs. */
function rowOf(inputs: Inputs, row: number): Inputs {
  const { data, shape } = inputs.pixel_values;
  const size = data.length / shape[0];
  const pixel_values = { data: data.slice(row * size, (row + 1) * size), shape: shape.with(0, 1) };
  const entries = Object.entries(inputs).map(([key, value]) => [key, Array.isArray(value) ? [value[row]] : value]);
  return { ...Object.fromEntries(entries), pixel_values };
}

/** Tokens with drafts, and how many passes and drafts they took. */
async function compareDrafts(golden: Golden, found: Comparisons, model: VisionLanguageModel, inputs: Inputs) {
  const { drafts } = golden.json.asked!;
  const { device } = model;
  const folder = join(golden.folder, "assistant");
  const assistant_model = drafts.some(({ assistant }) => assistant)
    ? await AutoModelForImageTextToText.from_pretrained(folder, { device })
    : undefined;
  try {
    for (const { name, row, assistant, kwargs } of drafts) {
      const { sequences, assisted } = await model.generate({
        ...rowOf(inputs, row),
        ...kwargs,
        ...(kwargs.do_sample === true && { seed: 1 }),
        ...(assistant && { assistant_model }),
        return_dict_in_generate: true,
      });
      found.equal("tokens", name, sequences, await golden.rows(`${name}.sequences`));
      if (!golden.has(`${name}.counts`)) continue;
      const { passes, draft_tokens, accepted_tokens } = assisted!;
      found.equal("drafts", name, [[passes, draft_tokens, accepted_tokens]], await golden.rows(`${name}.counts`));
    }
  } finally {
    assistant_model?.dispose();
  }
}

/** The logit lens of one row. */
async function compareLens(
  golden: Golden,
  found: Comparisons,
  model: VisionLanguageModel,
  inputs: Inputs,
): Promise<void> {
  const { row, answer } = golden.json.asked!.lens;
  const lens = await logitLens(model, rowOf(inputs, row), { answer, top_k: 3 });
  const tokens = [...lens.image, ...lens.answer];
  const states = Array.from({ length: lens.states }, (_, i) => i);
  const [positions] = await golden.rows("lens.positions");
  found.equal(
    "lens",
    "positions",
    tokens.map(({ position }) => position),
    positions,
  );
  const best = states.flatMap((i) => tokens.flatMap((token) => token.states[i].top.map(({ logprob }) => logprob)));
  const ours = states.flatMap((i) => lens.answer.map((token) => token.states[i].logprob ?? Number.NaN));
  found.numbers("lens", "best", best, (await golden.floats("lens.best")).data, TOLERANCES.beam_scores);
  found.numbers("lens", "answer", ours, (await golden.floats("lens.answer")).data, TOLERANCES.beam_scores);
  const maps = lens.maps.weights.flatMap((map) => [...map]);
  found.numbers("lens", "maps", maps, (await golden.floats("lens.maps")).data, TOLERANCES.free_running);
}

/** Compares everything but generations. `inputs` are PyTorch's own. */
export async function compareAsked(
  golden: Golden,
  found: Comparisons,
  model: VisionLanguageModel,
  inputs: Inputs,
): Promise<void> {
  const { asked } = golden.json;
  if (!asked) return;
  const { decoder_input_ids: _, ...given } = inputs;
  const compareStates = async (part: string, output: unknown) => {
    const ours = await numbersIn(output, `states.${part}`);
    for (const name of golden.names(`states.${part}.`).filter((name) => golden.isFloat(name)))
      compareShaped(found, name, ours.get(name), await golden.floats(name));
    // Nothing layer by layer that Hugging Face does not give.
    const more = [...ours.keys()].filter((name) => /\.\d+$/.test(name) && !golden.has(name));
    found.equal("states", `${part}, others`, more, []);
  };

  const decoder = golden.has("states.decoder_input_ids")
    ? { decoder_input_ids: await golden.rows("states.decoder_input_ids") }
    : {};
  await model.device.scope(async () => {
    const output = await model.forward({ ...given, ...decoder, labels: asked.labels, ...ASKED });
    found.numbers(
      "loss",
      "loss",
      [output.loss ?? Number.NaN],
      (await golden.floats("states.loss")).data,
      TOLERANCES.drawn_loss,
    );
    for (const part of ["vision_outputs", "qformer_outputs", "language_model_outputs"] as const) {
      await compareStates(part, output[part]);
    }
  });
  if (golden.has("states.loss_of_last")) {
    const last = asked.labels.map((row) => row.slice(-3));
    const { loss } = await model.device.scope(() => model.forward({ ...given, labels: last }));
    found.numbers(
      "loss",
      "loss_of_last",
      [loss ?? Number.NaN],
      (await golden.floats("states.loss_of_last")).data,
      TOLERANCES.drawn_loss,
    );
  }
  for (const [call, kwargs] of Object.entries(asked.states)) {
    const output = await model.generate({ ...given, ...kwargs, ...ASKED, return_dict_in_generate: true });
    found.equal("tokens", call, output.sequences, await golden.rows(`states.${call}.sequences`));
    await compareStates(call, output);
  }

  for (const { name, call, interventions, inputs: more, kwargs } of asked.interventions) {
    try {
      if (call === "forward") {
        const logits = await model.device.scope(async () =>
          (await model.forward({ ...given, ...more, interventions })).logits.read(),
        );
        const { data } = await golden.floats(`${name}.logits`);
        found.numbers("interventions", `${name}.logits`, logits, data, TOLERANCES.free_running);
      } else {
        const seed = kwargs?.do_sample ? { seed: 1 } : {};
        const sequences = await model.generate({ ...given, ...kwargs, ...seed, interventions });
        found.equal("interventions", `${name}.sequences`, sequences, await golden.rows(`${name}.sequences`));
      }
    } catch (error) {
      found.fail("interventions", name, (error as Error).message);
    }
  }

  await compareDrafts(golden, found, model, given);
  await compareLens(golden, found, model, given);

  if (asked.candidates) {
    const ranked = await model.rank_answers({ ...given, candidates: asked.candidates, segment_size: 3 });
    const sums = ranked.flatMap((row) => row.sums);
    found.numbers("ranking", "sums", sums, (await golden.floats("ranking.sums")).data, TOLERANCES.ranking);
  }

  const processor = await AutoProcessor.from_pretrained(golden.folder);
  const file = (number: number) => join(golden.folder, golden.json.images[number]);
  for (const [i, { text, images: numbers, options }] of asked.processor.entries()) {
    const images = numbers?.map((of) => (typeof of === "number" ? file(of) : of.map(file)));
    let made: Record<string, unknown>;
    try {
      made = await processor({
        text,
        ...options,
        allow_image_token: true,
        ...(images && { images: images as string[] }),
      });
    } catch (error) {
      found.fail("processor", `call_${i}`, (error as Error).message);
      continue;
    }
    const names = golden.names(`processor.${i}.`).map((name) => name.split(".")[2]);
    found.equal("processor", "names", Object.keys(made).sort(), names.sort());
    for (const name of names) {
      const key = `processor.${i}.${name}`;
      if (name === "pixel_values")
        compareShaped(found, key, made[name] as Numbers | undefined, await golden.floats(key), true);
      else found.equal("processor", name, made[name], await golden.rows(key));
    }
  }
}

function compareShaped(
  found: Comparisons,
  name: string,
  ours: Numbers | undefined,
  theirs: Numbers,
  pixels = false,
): void {
  const [stage, ...rest] = pixels
    ? ["processor" as const, "pixel_values"]
    : ["states" as const, ...name.split(".").slice(1)];
  const label = rest.join(".");
  if (!ours) found.fail(stage, label, "is not given here");
  else if (String(ours.shape) !== String(theirs.shape)) {
    found.fail(stage, label, `has the shape [${ours.shape}], expected [${theirs.shape}]`);
  } else found.numbers(stage, label, ours.data, theirs.data, pixels ? TOLERANCES.pixels : TOLERANCES.free_running);
}
