/**
 * Logits processors, in Hugging Face's order. Greedy search and sampling pass raw logits, beam search log probabilities, of
 * which a repetition penalty always multiplies. Arithmetic is f32 where PyTorch's is, as a threshold may depend on the last
 * bit.
 *
 * Source: transformers 5.18, generation/logits_process.py and _get_logits_processor in generation/utils.py.
 */
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import { cumsum, finiteIndices, logSoftmaxInPlace, maximum, softmax, topIndices } from "./arithmetic.ts";
import type { DecodingConfig } from "./configuration.ts";
import type { ScoreEdits } from "./decoder.ts";
import type { Bans, CustomLogitsProcessor, LogitsProcessor } from "./types.ts";
import { watermark } from "./watermark/watermark.ts";

/** A processor of single rows. */
type RowProcessor = (ids: readonly number[], scores: Float32Array) => void;

const each =
  (process: RowProcessor): LogitsProcessor =>
  (rows, scores) => {
    for (const [i, ids] of rows.entries()) process(ids, scores[i]!);
  };

/** A processor that bans ids. Ids out of range are ignored. */
const ban = (bans: Bans): LogitsProcessor =>
  Object.assign(
    each((ids, scores) => {
      for (const id of bans(ids)) scores[id] = NEVER; // writes out of range of a typed array are ignored
    }),
    { bans },
  );

/** The distinct ids of a row that are in the vocabulary. */
const distinct = (ids: readonly number[], vocabulary: number): number[] =>
  [...new Set(ids)].filter((id) => id >= 0 && id < vocabulary);

const all = (ids: readonly number[]) => ids;

/**
 * The processors as a penalty and bans of ids, if they are nothing else.
 *
 * @returns undefined if the scores are needed
 */
export function scoreEdits(
  processors: readonly LogitsProcessor[],
  rows: readonly (readonly number[])[],
  vocabulary: number,
): ScoreEdits | undefined {
  // logitsProcessors() has a fixed order: it never gives several penalties, or a ban before one.
  if (!processors.every(({ penalty, bans }) => penalty !== undefined || bans !== undefined)) return undefined;
  const { penalty = 1, counted = all } = processors.find((processor) => processor.penalty !== undefined) ?? {};
  const penalised = rows.map((ids) => (penalty === 1 ? [] : distinct(counted(ids), vocabulary)));
  const banned = rows.map((ids) =>
    distinct(
      processors.flatMap(({ bans }) => (bans ? [...bans(ids)] : [])),
      vocabulary,
    ),
  );
  return { penalty, penalised, banned };
}

/**
 * A chain of processors that edits scores, then keeps the best k, perhaps scaled in between, so that later processors need
 * no other scores.
 *
 * @returns k, the processors that edit, and the rest, which begins with keeping the best k
 */
export function shortlistOf(
  processors: readonly LogitsProcessor[],
): { k: number; edits: LogitsProcessor[]; rest: LogitsProcessor[] } | undefined {
  const edits = processors.filter(({ penalty, bans }) => penalty !== undefined || bans !== undefined);
  const rest = processors.slice(edits.length);
  const at = rest.findIndex(({ best }) => best !== undefined);
  const clean = processors.slice(0, edits.length).every((processor, i) => processor === edits[i]);
  const k = rest[at]?.best;
  if (!clean || k === undefined || k > LONGEST_SHORTLIST || !rest.slice(0, at).every(({ ordered }) => ordered))
    return undefined;
  if (rest.some(({ byId }) => byId)) return undefined;
  return { k, edits, rest };
}

/** Largest k. The GPU takes a round for each of the best: from some hundreds on, reading the whole row is faster. */
const LONGEST_SHORTLIST = 256;

const f = Math.fround;
const NEVER = Number.NEGATIVE_INFINITY;
const F32_MAX = 3.4028234663852886e38;

/** The ids of a row that repetition_penalty counts. */
function penalizedIds({ penalized: { from, more } }: DecodingConfig): NonNullable<LogitsProcessor["counted"]> {
  return from === 0 && more.length === 0 ? all : (ids) => [...more, ...ids.slice(from)];
}

// --- processors --------------------------------------------------------------------------------------------------------

/** Adds a bias to the last id of a sequence if the row ends with the ids before it. */
export function sequenceBias(biases: NonNullable<DecodingConfig["sequence_bias"]>): LogitsProcessor {
  // Of two biases for one sequence the later value counts, in the earlier's position, as in a Python dict.
  const unique = [...new Map(biases.map(([ids, bias]) => [ids.join(), { ids, bias: f(bias) }])).values()];
  const ordered = [...unique.filter(({ ids }) => ids.length === 1), ...unique.filter(({ ids }) => ids.length > 1)];
  return each((row, scores) => {
    const sums = new Map<number, number>();
    for (const { ids, bias } of ordered) {
      const last = ids.at(-1)!;
      if (endsWith(row, ids)) sums.set(last, f((sums.get(last) ?? 0) + bias));
    }
    for (const [id, bias] of sums) scores[id]! += bias;
  });
}

/**
 * Divides positive and multiplies negative scores of every id in the row: prompt and image ids count too.
 *
 * @param counted the ids of a row that count
 */
export function repetitionPenalty(value: number, counted = all): LogitsProcessor {
  const penalty = f(value);
  return Object.assign(
    each((ids, scores) => {
      for (const id of distinct(counted(ids), scores.length)) {
        const score = scores[id]!;
        scores[id] = score < 0 ? score * penalty : score / penalty;
      }
    }),
    { penalty, counted },
  );
}

/** Bans ids that would repeat an n-gram of the row. */
export function noRepeatNgram(n: number): LogitsProcessor {
  return ban((ids) => {
    const found: number[] = [];
    const suffix = ids.length + 1 - n;
    for (let start = 0; start + n <= ids.length; start++) {
      let same = true;
      for (let i = 0; i < n - 1 && same; i++) same = ids[start + i] === ids[suffix + i];
      if (same) found.push(ids[start + n - 1]!);
    }
    return found;
  });
}

/** Bans the last id of each sequence if the row ends with the ids before it. */
export function badWords(words: readonly (readonly number[])[]): LogitsProcessor {
  return ban((row) => words.filter((ids) => endsWith(row, ids)).map((ids) => ids.at(-1)!));
}

/** Whether a row ends with all of `ids` but the last. */
function endsWith(row: readonly number[], ids: readonly number[]): boolean {
  const start = row.length - (ids.length - 1);
  for (let i = 0; i < ids.length - 1; i++) if (row[start + i] !== ids[i]) return false;
  return true;
}

/** Bans end ids while the row is shorter than `length`. */
export function minLength(length: number, eos: readonly number[]): LogitsProcessor {
  return ban((ids) => (ids.length < length ? eos : []));
}

/** Bans all ids but those of `allowed`. If no beam of a prompt has a score left for them, they get score 0 instead. */
export function prefixConstrained(
  allowed: (batch: number, ids: readonly number[]) => readonly number[],
  beams: number,
): LogitsProcessor {
  return (rows, scores) => {
    for (let first = 0; first < rows.length; first += beams) {
      const batch = first / beams;
      const lists = rows.slice(first, first + beams).map((ids) => {
        const list = allowed(batch, ids);
        if (!Array.isArray(list)) {
          const hint = "it returns a list of token ids, and no promise";
          throw new InputError("BAD_INPUT", `prefix_allowed_tokens_fn returned ${shown(list)}`, { hint });
        }
        if (list.length === 0) {
          throw new InputError("PARAM_RANGE", `prefix_allowed_tokens_fn allows no token for prompt ${batch}`);
        }
        return list;
      });
      const hopeless = lists.every((list, beam) => list.every((id) => scores[first + beam]![id] === NEVER));
      for (const [beam, list] of lists.entries()) {
        const row = scores[first + beam]!;
        const kept = list.map((id) => (hopeless ? 0 : row[id]!));
        row.fill(NEVER);
        for (const [i, id] of list.entries()) row[id] = kept[i]!;
      }
    }
  };
}

/** Bans all ids but `forced`, which gets score 0, when the row has `length` ids. */
export function forcedAt(length: number, forced: readonly number[]): LogitsProcessor {
  return each((ids, scores) => {
    if (ids.length !== length) return;
    scores.fill(NEVER);
    for (const id of forced) scores[id] = 0;
  });
}

/** NaN becomes 0, an infinity the largest number of its sign. */
export const removeInvalid: LogitsProcessor = each((_, scores) => {
  for (let i = 0; i < scores.length; i++) {
    const score = scores[i]!;
    if (Number.isNaN(score)) scores[i] = 0;
    else if (Math.abs(score) === Number.POSITIVE_INFINITY) scores[i] = Math.sign(score) * F32_MAX;
  }
});

/** Raises the score of end ids with every token beyond `start`. */
export function exponentialDecay(start: number, factor: number, eos: readonly number[]): LogitsProcessor {
  return each((ids, scores) => {
    const beyond = ids.length - start;
    if (beyond <= 0) return;
    const growth = f(factor ** beyond - 1);
    for (const id of new Set(eos)) scores[id]! += f(Math.abs(scores[id]!) * growth);
  });
}

export function suppress(forbidden: readonly number[]): LogitsProcessor {
  return ban(() => forbidden);
}

/** {@link suppress} when the row has `length` ids. */
export function suppressAt(length: number, forbidden: readonly number[]): LogitsProcessor {
  return ban((ids) => (ids.length === length ? forbidden : []));
}

/** A processor of the caller's. @throws InputError BAD_INPUT if it returns anything but scores of the same shape */
export function custom(process: CustomLogitsProcessor): LogitsProcessor {
  return (rows, scores) => {
    const result: unknown = process(rows, scores);
    if (result === undefined || result === scores) return;
    const isRow = (row: unknown, r: number) => row instanceof Float32Array && row.length === scores[r]?.length;
    if (!Array.isArray(result) || result.length !== scores.length || !result.every(isRow)) {
      const hint = "it changes scores in place, or returns as many Float32Arrays, and no promise";
      throw new InputError("BAD_INPUT", `a logits_processor returned ${typeof result}`, { hint });
    }
    for (const [r, row] of (result as Float32Array[]).entries()) if (row !== scores[r]) scores[r]!.set(row);
  };
}

/** Scores become log probabilities. */
export const renormalize: LogitsProcessor = each((_, scores) => logSoftmaxInPlace(scores));

// --- warpers: only when sampling ---------------------------------------------------------------------------------------
// `keep` tokens are always kept, so that beams have a continuation besides the end of the sequence.

export function temperature(T: number): LogitsProcessor {
  const t = f(T);
  return Object.assign(
    each((_, scores) => {
      for (let i = 0; i < scores.length; i++) scores[i]! /= t;
    }),
    { ordered: true as const },
  );
}

/** Keeps the most probable tokens up to a share of the entropy of the best 100. */
export function topH(share: number): LogitsProcessor {
  const h = f(share);
  return each((_, scores) => {
    const top = topIndices(scores, 100);
    const probabilities = softmax(top.map((i) => scores[i]!));
    const terms = probabilities.map((p) => -p * f(Math.log(p))); // NaN for 0, and NaN is not within
    const entropy = f(probabilities.reduce((sum, p, i) => sum + (p > 0 ? terms[i]! : 0), 0));
    const most = f(entropy * h);
    const spent = cumsum(terms);
    const kept = top.filter((_, rank) => rank === 0 || spent[rank]! <= most);
    keepOnly(scores, kept);
  });
}

/** Drops scores below the k-th largest; ties with it are kept. */
export function topK(k: number, keep: number): LogitsProcessor {
  const best = Math.max(k, keep);
  const process = each((_, scores) => {
    const n = Math.min(best, scores.length);
    // Insertion is quadratic in n: beyond some hundreds sorting all is faster.
    const least = n <= 256 ? scores[topIndices(scores, n).at(-1)!]! : scores.slice().sort().at(-n)!;
    dropWhere(scores, (i) => scores[i]! < least);
  });
  return Object.assign(process, { best });
}

/** Drops the least likely tokens whose probabilities together are at most 1 - p. */
export function topP(p: number, keep: number): LogitsProcessor {
  const most = f(1 - p);
  return each((_, scores) => {
    const rising = finiteIndices(scores).sort((a, b) => scores[a]! - scores[b]! || a - b);
    const mass = cumsum(softmax(rising.map((i) => scores[i]!)));
    for (const [rank, i] of rising.entries()) {
      if (mass[rank]! <= most && rank < rising.length - keep) scores[i] = NEVER;
    }
  });
}

/** Drops probabilities below `p` times the largest. */
export function minP(p: number, keep: number): LogitsProcessor {
  return each((_, scores) => {
    const probabilities = softmax(scores);
    const least = f(maximum(probabilities) * f(p));
    const kept = new Set(topIndices(probabilities, keep));
    dropWhere(scores, (i) => probabilities[i]! < least && !kept.has(i));
  });
}

/** Keeps the tokens whose information is nearest to the entropy, until their probabilities together reach `mass`. */
export function typicalP(mass: number, keep: number): LogitsProcessor {
  const most = f(mass);
  return each((_, scores) => {
    const left = finiteIndices(scores);
    const logs = Float32Array.from(left, (i) => scores[i]!);
    logSoftmaxInPlace(logs);
    const entropy = f(-logs.reduce((sum, log) => sum + f(log * f(Math.exp(log))), 0));
    const distance = logs.map((log) => Math.abs(-log - entropy));
    const order = [...left.keys()].sort((a, b) => distance[a]! - distance[b]! || a - b);
    const sums = cumsum(softmax(order.map((j) => scores[left[j]!]!)));
    const below = sums.filter((sum) => sum < most).length;
    if (below >= order.length && order.length < scores.length) return; // HF's threshold is then the infinity of a dropped token
    const farthest = distance[order[Math.min(below, order.length - 1)]!]!;
    for (const [rank, j] of order.entries()) {
      if (rank >= keep && distance[j]! > farthest) scores[left[j]!] = NEVER;
    }
  });
}

/** Drops probabilities below `epsilon`. */
export function epsilonCutoff(epsilon: number, keep: number): LogitsProcessor {
  return each((_, scores) => dropBelow(scores, softmax(scores), f(epsilon), keep));
}

/** Drops probabilities below `epsilon` or √epsilon·exp(-entropy), whichever is less. */
export function etaCutoff(epsilon: number, keep: number): LogitsProcessor {
  const e = f(epsilon);
  return each((_, scores) => {
    const probabilities = softmax(scores);
    const logs = scores.slice();
    logSoftmaxInPlace(logs);
    const entropy = f(-logs.reduce((sum, log, i) => sum + (log === NEVER ? 0 : f(log * probabilities[i]!)), 0));
    const eta = Math.min(e, f(f(Math.sqrt(e)) * f(Math.exp(-entropy))));
    dropBelow(scores, probabilities, eta, keep);
  });
}

function dropBelow(scores: Float32Array, probabilities: Float32Array, least: number, keep: number): void {
  const n = Math.min(keep, scores.length);
  const kept = scores[topIndices(scores, n).at(-1)!]!;
  dropWhere(scores, (i) => probabilities[i]! < least && scores[i]! < kept);
}

function dropWhere(scores: Float32Array, drops: (i: number) => boolean): void {
  for (let i = 0; i < scores.length; i++) if (drops(i)) scores[i] = NEVER;
}

function keepOnly(scores: Float32Array, kept: readonly number[]): void {
  const values = kept.map((i) => scores[i]!);
  scores.fill(NEVER);
  for (const [n, i] of kept.entries()) scores[i] = values[n]!;
}

// --- the chain -----------------------------------------------------------------------------------------

/**
 * All processors of a config but guidance, which comes before them. There are usually none, and the logits stay on the GPU.
 */
export function logitsProcessors(config: DecodingConfig): LogitsProcessor[] {
  const { eos_token_id: eos, prompt_length, max_length, num_beams } = config;
  const list: LogitsProcessor[] = [];
  const words = config.bad_words_ids.filter((word) => !(word.length === 1 && eos.includes(word[0]!)));

  if (config.sequence_bias.length) list.push(sequenceBias(config.sequence_bias));
  if (config.repetition_penalty !== 1) list.push(repetitionPenalty(config.repetition_penalty, penalizedIds(config)));
  if (config.no_repeat_ngram_size > 0) list.push(noRepeatNgram(config.no_repeat_ngram_size));
  if (words.length) list.push(badWords(words));
  if (config.min_length > prompt_length && eos.length) list.push(minLength(config.min_length, eos));
  if (config.prefix_allowed_tokens_fn) list.push(prefixConstrained(config.prefix_allowed_tokens_fn, num_beams));
  if (config.forced_bos_token_id !== null) list.push(forcedAt(1, [config.forced_bos_token_id]));
  if (config.forced_eos_token_id.length) list.push(forcedAt(max_length - 1, config.forced_eos_token_id));
  if (config.remove_invalid_values) list.push(removeInvalid);
  if (config.exponential_decay_length_penalty) {
    const [start, factor] = config.exponential_decay_length_penalty;
    list.push(exponentialDecay(start + prompt_length, factor, eos));
  }
  if (config.suppress_tokens.length) list.push(suppress(config.suppress_tokens));
  if (config.begin_suppress_tokens.length) {
    // A forced first token is skipped: the one after it is the answer's first.
    const begin = prompt_length > 1 || config.forced_bos_token_id === null ? prompt_length : prompt_length + 1;
    list.push(suppressAt(begin, config.begin_suppress_tokens));
  }
  list.push(...config.logits_processor.map(custom));
  if (config.do_sample) list.push(...warpers(config));
  if (config.watermarking_config) list.push(watermark(config.watermarking_config, config.vocabulary));
  if (config.renormalize_logits) list.push(renormalize);
  return list;
}

function warpers(config: DecodingConfig): LogitsProcessor[] {
  const keep = config.num_beams === 1 ? 1 : Math.max(2, config.eos_token_id.length + 1);
  const list: LogitsProcessor[] = [];
  if (config.temperature !== 1) list.push(temperature(config.temperature));
  if (config.top_h !== null) list.push(topH(config.top_h));
  if (config.top_k !== 0) list.push(topK(config.top_k, keep));
  if (config.top_p < 1) list.push(topP(config.top_p, keep));
  if (config.min_p !== null) list.push(minP(config.min_p, keep));
  if (config.typical_p < 1) list.push(typicalP(config.typical_p, keep));
  if (config.epsilon_cutoff > 0 && config.epsilon_cutoff < 1) list.push(epsilonCutoff(config.epsilon_cutoff, keep));
  if (config.eta_cutoff > 0 && config.eta_cutoff < 1) list.push(etaCutoff(config.eta_cutoff, keep));
  return list;
}
