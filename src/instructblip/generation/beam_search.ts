/**
 * Beam search and beam sampling, exactly as transformers 5.18 (`_beam_search`): sums, masks of -1e9 and divisions are
 * rounded to f32 where PyTorch's are, because they decide ties. Of equal scores the lowest index is first; PyTorch leaves
 * the order open. With beam_rules "4.33" sequences are scored and ended as there (beam_hypotheses.ts).
 *
 * B prompts, n beams, K candidates for each prompt, P prompt tokens, c tokens in a row so far.
 * Source: transformers 5.18, _beam_search in generation/utils.py.
 */
import { logSoftmaxInPlace, topIndices } from "./arithmetic.ts";
import { Hypotheses } from "./beam_hypotheses.ts";
import type { Candidates, Decoder, Logits, Tokens } from "./decoder.ts";
import { scoreEdits } from "./logits_process.ts";
import { answerLogprobs, stepLogprobs } from "./logprobs.ts";
import { multinomialWithoutReplacement, RandomNumbers } from "./multinomial.ts";
import { expectChoice, hasDistribution, ScoresError } from "./numerics.ts";
import { dropSteps, type GenerateOutput, repeatRows, rowsOf, StepRecords, type StepScores } from "./output.ts";
import type { SearchOptions } from "./sample.ts";
import { inTime } from "./stopping.ts";
import type { AnswerToken } from "./types.ts";

const f = Math.fround;
/** The score of an excluded beam; exact in f32. */
const NEG_LARGE = -1e9;

/** One sequence, running or finished. */
interface Beam {
  readonly ids: readonly number[];
  readonly score: number;
  /** The beam that each new token came from. */
  readonly from: readonly number[];
  /** With logprobs: of each new token. */
  readonly tokens: readonly AnswerToken[];
  readonly done: boolean;
}

/** A running beam with one more token. */
interface Candidate extends Omit<Beam, "done"> {
  /** Whether it ends here. */
  readonly finished: boolean;
}

/** The candidates of all prompts, and with logprobs the log-probability of a beam's token. */
interface Found extends Candidates {
  readonly tokenOf?: ReturnType<typeof stepLogprobs> | undefined;
}

/** One prompt's search. */
interface Item {
  running: readonly Beam[];
  finished: readonly Beam[];
  /** Whether a running beam may still beat a finished one. */
  canImprove: boolean;
  /** The finished ones, by the rules of transformers 4.33. */
  readonly hypotheses: Hypotheses<Beam> | undefined;
}

/** A running beam, ended without an end token. */
const stopped = (beam: Beam): Candidate => ({ ...beam, finished: true });

const isFull = ({ finished, hypotheses }: Item) => !hypotheses && finished.every(({ done }) => done);

/**
 * @param prompt ids of every prompt, all of one length P
 * @returns num_return_sequences sequences for each prompt, best first, cropped to the longest, filled with pad_token_id
 */
export async function beamSearch(
  decoder: Decoder,
  prompt: readonly (readonly number[])[],
  { config, processors, stops, streamer, signal, on_token }: SearchOptions,
): Promise<GenerateOutput> {
  const { num_beams: n, length_penalty, early_stopping, max_length, do_sample, eos_token_id } = config;
  const B = prompt.length;
  const { prompt_length: P, vocabulary: V, check_numerics } = config;
  // Enough for n that continue, even if the best continuations of every beam end the sequence.
  const K = Math.max(2, 1 + eos_token_id.length) * n;
  const scores: StepScores[] | undefined = config.return_dict_in_generate && config.output_scores ? [] : undefined;
  const raw: StepScores[] | undefined = config.return_dict_in_generate && config.output_logits ? [] : undefined;
  const logprobs = config.return_dict_in_generate && config.logprobs !== null ? config.logprobs : undefined;
  const records = new StepRecords();
  const random = do_sample ? new RandomNumbers(config.seed) : undefined;
  const keepsScores = scores || raw || logprobs !== undefined;
  const inMemory = random || keepsScores || !decoder.topK || !decoder.logSoftmax; // needs the scores themselves

  // All beams start equal, so all but the first are excluded at first.
  const items = prompt.map((ids): Item => {
    const beam = (score: number): Beam => ({ ids, score, from: [], tokens: [], done: false });
    const running = Array.from({ length: n }, (_, i) => beam(i === 0 ? 0 : NEG_LARGE));
    const rules = { num_beams: n, length_penalty, early_stopping, most: max_length - P };
    const hypotheses = config.beam_rules === "4.33" ? new Hypotheses<Beam>(rules) : undefined;
    return { running, finished: running.map(() => beam(NEG_LARGE)), canImprove: true, hypotheses };
  });
  streamer?.put(prompt.map((ids) => [...ids]));

  let tokens: Tokens | undefined;
  for (let step = 0; ; step++) {
    signal?.throwIfAborted();
    const previous = tokens;
    const taken = decoder.scope(async () => {
      const logits = previous ? decoder.step(previous) : decoder.prefill(); // [B * n, V], or [B, V] at first
      await records.add(decoder, previous ? 1 : n);
      return onTheDevice(logits, previous !== undefined) ?? onTheHost(logits, previous !== undefined, step);
    });
    const found = await inTime(taken);
    previous?.dispose();
    if (!found) {
      dropSteps(step, records, scores, raw);
      for (const item of items) if (!item.hypotheses) item.finished = finish(item, item.running.map(stopped));
      break;
    }

    let allFinished = true;
    for (const [b, item] of items.entries()) {
      const candidates = candidatesOf(item, b, found);
      allFinished = allFinished && candidates.every(({ finished }) => finished);
      if (item.hypotheses) {
        advance(item, item.hypotheses, candidates);
        continue;
      }
      const runningScores = candidates.map(({ score, finished }) => f(score + (finished ? NEG_LARGE : 0)));
      item.finished = finish(item, candidates);
      item.running = topIndices(runningScores, n).map((j) => ({
        ...candidates[j]!,
        score: runningScores[j]!,
        done: false,
      }));
      item.canImprove = item.canImprove && canImprove(item);
    }
    streamer?.best?.(items.map(bestSoFar));
    on_token?.(step);
    if (allFinished || !items.some(({ canImprove }) => canImprove) || (early_stopping === true && items.every(isFull)))
      break;

    const rows = items.flatMap(({ running }) => running.map(({ from }) => from.at(-1)!));
    if (!previous)
      decoder.reorder!(rows.map((row) => Math.floor(row / n))); // the cache has one row per prompt
    else if (rows.some((row, i) => row !== i)) decoder.reorder!(rows);
    tokens = decoder.upload(items.flatMap(({ running }) => running.map(({ ids }) => ids.at(-1)!)));
  }
  for (const item of items) if (item.hypotheses) close(item, item.hypotheses);
  return output();

  /** The K best of every prompt from f32[B, V] or f32[B * n, V] in the host's memory. */
  async function onTheHost(logits: Logits, expanded: boolean, step: number): Promise<Found> {
    const data = repeatRows(await logits.read(), expanded ? B * n : B, expanded ? 1 : n);
    const shape = [B * n, V] as const;
    raw?.push({ data: data.slice(), shape });
    const views = rowsOf(data, B * n);
    const rows = items.flatMap(({ running }) => running.map(({ ids }) => ids));
    if (check_numerics) {
      const failed = views.findIndex((row) => !hasDistribution(row));
      if (failed >= 0) throw new ScoresError(Math.floor(failed / n), [...rows[failed]!]);
    }
    for (const row of views) logSoftmaxInPlace(row);
    for (const process of processors) process(rows, views);
    if (check_numerics) for (const [r, row] of views.entries()) expectChoice(row, Math.floor(r / n), false);
    scores?.push({ data: data.slice(), shape });

    const tokenOf = logprobs === undefined ? undefined : stepLogprobs(views, logprobs);
    const best: Found = { tokenOf, scores: new Float32Array(B * K), indices: new Uint32Array(B * K) };
    for (const [b, { running }] of items.entries()) {
      const sums = data.subarray(b * n * V, (b + 1) * n * V);
      for (let i = 0; i < sums.length; i++) sums[i]! += running[Math.floor(i / V)]!.score;
      const chosen = random
        ? multinomialWithoutReplacement(sums, K, (draw) => random.at(b, step, draw))
        : topIndices(sums, K);
      for (const [j, index] of chosen.entries()) {
        best.scores[b * K + j] = sums[index]!;
        best.indices[b * K + j] = index;
      }
    }
    return best;
  }

  /** The same on the device, if possible: K numbers are read back. At first only one beam counts. */
  function onTheDevice(logits: Logits, expanded: boolean): Promise<Found> | undefined {
    if (inMemory) return undefined;
    const beams = items.flatMap(({ running }) => running.slice(0, expanded ? n : 1));
    const edits = scoreEdits(
      processors,
      beams.map(({ ids }) => ids),
      V,
    );
    if (!edits || (processors.length > 0 && !decoder.edit)) return undefined;
    if (edits.banned.some((ids) => V - ids.length < K)) return undefined; // excluded beams would become candidates
    const logProbs = decoder.logSoftmax!(logits);
    const edited = processors.length === 0 ? logProbs : decoder.edit!(logProbs, edits);
    const sums = Float32Array.from(beams, ({ score }) => score);
    return decoder.topK!(edited, sums, expanded ? n : 1, K).then(expectNumbers);
  }

  /** Checks that no candidate's score is NaN. */
  function expectNumbers(found: Candidates): Candidates {
    const failed = check_numerics ? found.scores.findIndex(Number.isNaN) : -1;
    if (failed < 0) return found;
    const b = Math.floor(failed / K);
    const { running } = items[b]!;
    const { ids } = running[Math.floor(found.indices[failed]! / V)]!;
    throw new ScoresError(b, [...ids]);
  }

  function candidatesOf({ running }: Item, b: number, { scores: found, indices, tokenOf }: Found): Candidate[] {
    return Array.from({ length: K }, (_, j) => {
      const [index, score] = [indices[b * K + j]!, found[b * K + j]!];
      const beam = Math.floor(index / V);
      const before = running[beam]!;
      const ids = [...before.ids, index % V];
      const from = [...before.from, b * n + beam];
      const tokens = tokenOf ? [...before.tokens, tokenOf(b * n + beam, index % V)] : [];
      const finished = stops(ids) || streamer?.cancelled === true;
      return { ids, from, tokens, score, finished };
    });
  }

  /** Old and new finished sequences, the best n. Only the first n candidates count: the others are reserves. */
  function finish(item: Item, candidates: readonly Candidate[]): Beam[] {
    const closed = early_stopping === true && isFull(item);
    const length = f((candidates[0]!.ids.length - P) ** length_penalty);
    const added = candidates.map((one, j): Beam => {
      const eligible = one.finished && j < n;
      let score = f(one.score / length);
      score = f(score + (closed ? NEG_LARGE : 0));
      score = f(score + (item.canImprove ? 0 : NEG_LARGE));
      score = f(score + (eligible ? 0 : NEG_LARGE));
      return { ids: one.ids, from: one.from, tokens: one.tokens, score, done: eligible };
    });
    const merged = [...item.finished, ...added];
    return topIndices(
      merged.map(({ score }) => score),
      n,
    ).map((i) => merged[i]!);
  }

  /** A step by the rules of transformers 4.33, where the first n candidates that do not end run on. */
  function advance(item: Item, hypotheses: Hypotheses<Beam>, candidates: readonly Candidate[]): void {
    const t = candidates[0]!.ids.length - P;
    const isEnd = ({ ids }: Candidate) => eos_token_id.includes(ids.at(-1)!);
    const beam = (one: Candidate): Beam => ({ ...one, done: true });
    if (item.canImprove) {
      // Every end is written as the first of the eos ids.
      for (const one of candidates.slice(0, n).filter(isEnd))
        hypotheses.add(beam({ ...one, ids: one.ids.with(-1, eos_token_id[0]!) }), one.score, t);
      item.canImprove = !hypotheses.isDone(candidates[0]!.score, t);
    }
    item.running = candidates
      .filter((one) => !isEnd(one))
      .slice(0, n)
      .map((one) => ({ ...one, done: false }));
  }

  /** Adds the beams that still run, if they count. */
  function close(item: Item, hypotheses: Hypotheses<Beam>): void {
    if (item.canImprove) for (const one of item.running) hypotheses.add(one, one.score, one.ids.length - P + 1);
    item.finished = hypotheses.best().map(({ sequence, score }) => ({ ...sequence, score: f(score), done: true }));
  }

  /** Whether the best running beam could still beat a finished one. For "never" at its best possible length. */
  function canImprove({ running, finished }: Item): boolean {
    const best = running[0]!;
    const length = early_stopping === "never" && length_penalty > 0 ? max_length : best.ids.length;
    const bound = f(best.score / f((length - P) ** length_penalty));
    const worst = finished.reduce((least, { score }) => Math.min(least, score), Number.POSITIVE_INFINITY);
    return finished.some(({ done }) => bound > (done ? worst : NEG_LARGE));
  }

  function bestSoFar({ running, finished }: Item): readonly number[] {
    const [ahead, ended] = [running[0]!, finished[0]!];
    const score = f(ahead.score / f((ahead.ids.length - P) ** length_penalty));
    const best = ended.done && ended.score >= score ? ended : ahead;
    return best.ids.slice(P);
  }

  function output(): GenerateOutput {
    const returned = items.flatMap(({ finished }) => finished.slice(0, config.num_return_sequences));
    const longest = Math.max(...returned.map(({ from }) => from.length));
    // HF's rule, and not greedy search's: pad, or the first eos id if pad is 0.
    const [eos] = eos_token_id;
    const filler = eos === undefined ? -1 : config.pad_token_id || eos;
    return {
      sequences: returned.map(({ ids }) => [...ids, ...new Array<number>(P + longest - ids.length).fill(filler)]),
      sequences_scores: returned.map(({ score }) => score),
      beam_indices: returned.map(({ from }) => [...from, ...new Array<number>(longest - from.length).fill(-1)]),
      ...(scores && { scores }),
      ...(raw && { logits: raw }),
      ...(logprobs !== undefined && { logprobs: returned.map(({ tokens }) => answerLogprobs(tokens)) }),
      ...records.states,
      ...(random && { seed: random.seed }),
    };
  }
}
