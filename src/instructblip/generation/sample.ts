/**
 * Greedy search and sampling: for every row of a batch, the most probable token or a drawn one, one after another. Source:
 * transformers 5.18, _sample in generation/utils.py.
 */
import { argmaxOf } from "./arithmetic.ts";
import type { DecodingConfig } from "./configuration.ts";
import type { Decoder, Logits, Tokens } from "./decoder.ts";
import { guide, type Unconditional } from "./guidance.ts";
import { scoreEdits, shortlistOf } from "./logits_process.ts";
import { answerLogprobs, stepLogprobs } from "./logprobs.ts";
import { multinomial, RandomNumbers } from "./multinomial.ts";
import { expectChoice, hasDistribution, hasFault, ScoresError } from "./numerics.ts";
import { dropSteps, type GenerateOutput, repeatRows, rowsOf, StepRecords, type StepScores } from "./output.ts";
import { endsById, inTime } from "./stopping.ts";
import type { Streamer } from "./streamer.ts";
import type { AnswerToken, LogitsProcessor, StoppingCriterion } from "./types.ts";

export interface SearchOptions {
  readonly config: DecodingConfig;
  readonly processors: readonly LogitsProcessor[];
  /** With a guidance_scale other than 1. */
  readonly unconditional?: Unconditional | undefined;
  readonly stops: StoppingCriterion;
  /** Whether rows depend on each other, so that finished ones must be fed the filler, as in HF. Default false. */
  readonly couplesRows?: boolean | undefined;
  readonly streamer?: Streamer | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after every token of the batch, counted from 0. */
  readonly on_token?: ((step: number) => void) | undefined;
}

/** The next token of every row. */
interface Choice {
  /** With the filler in place of finished rows' tokens. */
  readonly ids: readonly number[];
  /** On the device. */
  readonly tensor: Tokens;
  /** With logprobs; of finished rows too. */
  readonly chosen?: readonly AnswerToken[] | undefined;
}

/**
 * @param prompt ids of every row, all of one length
 * @returns prompt and answer of every row; rows that ended early are filled with pad_token_id
 */
export async function sample(
  decoder: Decoder,
  prompt: readonly (readonly number[])[],
  { config, processors, unconditional, stops, couplesRows = false, streamer, signal, on_token }: SearchOptions,
): Promise<GenerateOutput> {
  const { do_sample, num_return_sequences: copies, pad_token_id: pad, check_numerics } = config;
  const scores: StepScores[] | undefined = config.return_dict_in_generate && config.output_scores ? [] : undefined;
  const raw: StepScores[] | undefined = config.return_dict_in_generate && config.output_logits ? [] : undefined;
  const logprobs = config.return_dict_in_generate && config.logprobs !== null ? config.logprobs : undefined;
  const records = new StepRecords();
  const fills = endsById(config) && pad !== null;
  const random = do_sample ? new RandomNumbers(config.seed) : undefined;
  const keepsScores = scores || raw || logprobs !== undefined;
  const inMemory = random || keepsScores || unconditional; // needs the scores themselves
  const shortlist = random && !keepsScores && !unconditional && decoder.topK ? shortlistOf(processors) : undefined;

  const rows = prompt.flatMap((ids) => Array.from({ length: copies }, () => [...ids]));
  const unfinished = rows.map(() => true);
  const chosenTokens: AnswerToken[][] = rows.map(() => []);
  streamer?.put(rows.map((ids) => [...ids]));

  let tokens: Tokens | undefined;
  for (let step = 0; ; step++) {
    signal?.throwIfAborted();
    const previous = tokens;
    const taken = decoder.scope(async (): Promise<Choice> => {
      const logits = previous ? decoder.step(previous) : decoder.prefill(); // [R, V], or [B, V] at first
      await records.add(decoder, previous ? 1 : copies);
      const without = previous ? unconditional?.step(previous) : unconditional?.prefill(); // [R, V]
      const edits = inMemory ? undefined : scoreEdits(processors, previous ? rows : prompt, config.vocabulary);
      if (edits && (processors.length === 0 || decoder.edit)) {
        const best = decoder.argmax(processors.length === 0 ? logits : decoder.edit!(logits, edits));
        const { ids, undecided } = await best.read();
        // If every id is banned there is no choice either, which is not the model's fault.
        refuse(undecided.filter((r) => edits.banned[r]!.length < config.vocabulary));
        const chosen = [...ids];
        return couplesRows ? fed(chosen) : { ids: fill(chosen), tensor: best.tokens };
      }
      let scored = logits;
      let left = processors;
      if (shortlist && (shortlist.edits.length === 0 || decoder.edit)) {
        const changes = scoreEdits(shortlist.edits, previous ? rows : prompt, config.vocabulary);
        if (shortlist.edits.length) scored = decoder.edit!(logits, changes!);
        left = shortlist.rest;
        const drawn = await drawFromShortlist(scored, previous ? rows.length : prompt.length, step);
        if (drawn) return fed(drawn);
      }
      const data = repeatRows(await scored.read(), previous ? rows.length : prompt.length, previous ? 1 : copies);
      const shape = [rows.length, data.length / rows.length] as const;
      raw?.push({ data: data.slice(), shape });
      const views = rowsOf(data, rows.length);
      const unguided = without && rowsOf(await without.read(), rows.length);
      // Processed scores may all be minus infinity, which is not the model's fault.
      const failed = (row: Float32Array) => (scored === logits ? !hasDistribution(row) : hasFault(row));
      refuse([...rows.keys()].filter((r) => failed(views[r]!) || (unguided && failed(unguided[r]!))));
      if (unguided) guide(views, unguided, config.guidance_scale);
      for (const process of left) process(rows, views);
      if (check_numerics) {
        for (const [r, row] of views.entries()) if (unfinished[r]) expectChoice(row, Math.floor(r / copies), do_sample);
      }
      scores?.push({ data, shape });
      const chosen = views.map((row, b) => (random ? multinomial(row, random.at(b, step)) : argmaxOf(row)));
      const tokenOf = logprobs === undefined ? undefined : stepLogprobs(views, logprobs);
      return { ...fed(chosen), chosen: tokenOf && chosen.map((id, r) => tokenOf(r, id)) };
    });
    const choice = await inTime(taken);
    if (!choice) {
      dropSteps(step, records, scores, raw);
      break;
    }
    previous?.dispose();
    tokens = choice.tensor;

    for (const [b, id] of choice.ids.entries()) {
      const row = rows[b]!;
      row.push(id);
      if (choice.chosen && (unfinished[b] || !fills)) chosenTokens[b]!.push(choice.chosen[b]!);
      if (unfinished[b] && stops(row)) unfinished[b] = false;
    }
    streamer?.put(choice.ids.map((id) => [id]));
    on_token?.(step);
    if (!unfinished.includes(true) || streamer?.cancelled) break;
    if (!previous && copies > 1) expand(decoder, prompt.length, copies);
  }
  tokens?.dispose();
  return {
    sequences: rows,
    ...(scores && { scores }),
    ...(raw && { logits: raw }),
    ...(logprobs !== undefined && { logprobs: chosenTokens.map(answerLogprobs) }),
    ...records.states,
    ...(random && { seed: random.seed }),
  };

  /** Throws if one of these rows, whose scores are invalid, is unfinished. */
  function refuse(undecided: readonly number[]): void {
    const failed = check_numerics ? undecided.find((r) => unfinished[r]) : undefined;
    if (failed !== undefined) throw new ScoresError(Math.floor(failed / copies), [...rows[failed]!]);
  }

  /**
   * Draws for every row from its best k scores, which alone are read back; undefined if more scores tie with the k-th, or if
   * there is nothing to draw.
   */
  async function drawFromShortlist(scored: Logits, R: number, step: number): Promise<number[] | undefined> {
    const { k, rest } = shortlist!;
    const K = Math.min(k + 1, config.vocabulary);
    const best = await decoder.topK!(scored, new Float32Array(R), 1, K);
    const drawn: number[] = [];
    for (const [b, ids] of rows.entries()) {
      const at = K * Math.floor((b * R) / rows.length);
      const largest = best.scores[at];
      if (largest === Number.NEGATIVE_INFINITY) return undefined;
      if (!Number.isFinite(largest)) refuse([b]);
      // By id, as in a whole row: sums are then added in the same order.
      const list = Array.from({ length: K }, (_, i) => ({ id: best.indices[at + i]!, score: best.scores[at + i]! }));
      const last = rest.slice(
        0,
        rest.findIndex((process) => process.best !== undefined),
      );
      const ends = Float32Array.from(list.slice(-2), ({ score }) => score);
      for (const process of last) process([ids], [ends]); // unequal scores may become equal
      if (K === k + 1 && ends[0] === ends[1] && ends[0]! > Number.NEGATIVE_INFINITY) return undefined;
      list.sort((one, other) => one.id - other.id);
      const values = Float32Array.from(list, ({ score }) => score);
      for (const process of rest) process([ids], [values]);
      drawn.push(list[multinomial(values, random!.at(b, step))]!.id);
    }
    return drawn;
  }

  /** Finished rows are fed the filler, as in HF, unless it is no token. */
  function fed(chosen: number[]): { ids: number[]; tensor: Tokens } {
    const ids = fill(chosen);
    const isToken = (id: number) => id >= 0 && id < config.vocabulary;
    return { ids, tensor: decoder.upload(ids.map((id, b) => (isToken(id) ? id : chosen[b]!))) };
  }

  /** A finished row emits pad; without an eos id it continues, as in HF, until all rows are finished. */
  function fill(chosen: number[]): number[] {
    return fills ? chosen.map((id, b) => (unfinished[b] ? id : pad!)) : chosen;
  }
}

/** The rows of `prompts` prompts become `copies` rows each. */
export function expand(decoder: Decoder, prompts: number, copies: number): void {
  if (!decoder.reorder) throw new Error("this decoder cannot have more rows than prompts");
  decoder.reorder(Array.from({ length: prompts * copies }, (_, i) => Math.floor(i / copies)));
}
