/**
 * Ranks candidate answers by their likelihood: the negative log-likelihood (NLL) of each one's tokens after the prompt. The
 * prompt is read once; candidates continue it in segments, padded on the right.
 *
 * The order is LAVIS's, by sums: its T5 sums, its Vicuna divides by the padded length of prompt and candidates, so that
 * values of different segments cannot be compared. Here padding does not count, and segments do not change the result.
 *
 * B prompts, C candidates, R candidates of a segment, T their longest, V vocabulary.
 * Source: salesforce/LAVIS, predict_class in lavis/models/blip2_models/blip2_{t5,vicuna}_instruct.py.
 */
import { refuseMore, refuseUnknown } from "../../tensor/arguments.ts";
import type { Device } from "../../tensor/device/device.ts";
import { InputError } from "../../tensor/errors.ts";
import { crossEntropy, IGNORED_LABEL } from "../../tensor/ops/cross_entropy.ts";
import { takeRows } from "../../tensor/ops/take_rows.ts";
import { shown } from "../../tensor/shown.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { flag, type OptionsOf, oneOf, option, readOptions, whole } from "../config/options.ts";
import type { Decoding, EmbeddedPrompt, Ids, LanguageModel } from "../model/language_model.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { ScoresError } from "./numerics.ts";
import type { Prompt } from "./prompt.ts";

/** The options of rank_answers(), besides the inputs. */
const RANKING = {
  /** Token ids as {@link candidateIds} gives them: [C][…] for every prompt, or [B][C][…]. */
  candidates: option<Ids | readonly Ids[]>(() => {}),
  /**
   * Groups of synonymous candidates: the group number of each, from 0: [C], or [B][C]. Groups are ranked instead, each by
   * the sum of its candidates' probabilities.
   */
  groups: option<readonly number[] | Ids>(() => {}),
  /** The NLL that is ranked by: the sum over tokens (default), or the mean. */
  reduction: oneOf("sum", "mean").default("sum"),
  /** Candidates scored at once, default 16. Memory grows with it; the result is the same. */
  segment_size: whole(1).default(16),
  /** Stops before the next segment; rank_answers() then rejects with the signal's reason. */
  signal: option<AbortSignal>(() => {}),
  /** Whether a likelihood that is NaN is an error. Default true; false returns it, ranked last. */
  check_numerics: flag().default(true),
};
export const RANK_OPTIONS = Object.keys(RANKING);

export interface RankOptions extends OptionsOf<typeof RANKING> {
  candidates: Ids | readonly Ids[];
}

export type Reduction = "sum" | "mean";

/** The candidates of one prompt, or their groups. */
export interface RankedAnswers {
  /** [C], in nats */
  readonly sums: readonly number[];
  /** [C], in nats: a sum divided by the number of its candidate's tokens */
  readonly means: readonly number[];
  /** [C] indices of candidates, the most probable first, lowest index first on ties */
  readonly ranks: readonly number[];
}

/**
 * Tokenizes candidates for `rank_answers`: the tokenizer's ids without a leading beginning-of-sequence token, as in LAVIS.
 * T5's tokenizer closes each with its end token; LLaMA's does not, so that "red" is never less likely than "red and blue".
 *
 * @param texts the candidate answers; for OPT's tokenizer, unlike the others, with a leading space
 * @param eos whether each ends with the end token. Default: the tokenizer's setting
 * @throws InputError BAD_INPUT, and those of the tokenizer
 */
export function candidateIds(
  tokenizer: Tokenizer,
  texts: readonly string[],
  eos?: boolean,
  ...more: never[]
): number[][] {
  refuseMore("candidateIds", [tokenizer, texts, eos, ...more], 3);
  if (eos !== undefined && eos !== null && typeof eos !== "boolean") {
    throw new InputError("BAD_INPUT", `eos must be true or false, got ${shown(eos)}`);
  }
  if (!Array.isArray(texts)) throw new InputError("BAD_INPUT", `texts must be a list of strings, got ${shown(texts)}`);
  if (typeof tokenizer?.encode !== "function") {
    const hint = "a processor has one: processor.tokenizer";
    throw new InputError("BAD_INPUT", `candidateIds needs a tokenizer, got ${shown(tokenizer)}`, { hint });
  }
  const { bos_token_id, eos_token_id } = tokenizer;
  return texts.map((text) => {
    const ids = tokenizer.encode(text);
    if (ids[0] === bos_token_id) ids.shift();
    const closed = ids.length > 0 && ids.at(-1) === eos_token_id;
    if (eos === false && closed) ids.pop();
    if (eos === true && !closed && eos_token_id !== undefined) ids.push(eos_token_id);
    return ids;
  });
}

/** Rank options, checked. */
export interface Ranking {
  /** [B][C][…] */
  readonly candidates: readonly Ids[];
  /** [B][C] */
  readonly groups: Ids | undefined;
  readonly reduction: Reduction;
  readonly segment_size: number;
  readonly signal: AbortSignal | undefined;
  readonly check_numerics: boolean;
}

/** @throws InputError UNKNOWN_OPTION, BAD_CANDIDATES, TOKEN_ID, PARAM_RANGE */
export function readRankOptions(
  options: RankOptions,
  B: number,
  { vocabulary, num_embeddings }: LanguageModel,
): Ranking {
  refuseUnknown("rank_answers", options, RANK_OPTIONS);
  const { groups: grouping, reduction, segment_size, signal, check_numerics } = readOptions(RANKING, options);
  const candidates = forEachPrompt("candidates", options.candidates, 3, B) as readonly Ids[];
  const most = Math.min(vocabulary, num_embeddings);
  candidates.forEach((list, b) => {
    if (!Array.isArray(list) || list.length === 0) bad(`prompt ${b} has no candidates`);
    list.forEach((ids, c) => {
      if (!Array.isArray(ids) || ids.length === 0) bad(`candidate ${c} of prompt ${b} has no tokens`);
      const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= most);
      if (wrong === undefined) return;
      throw new InputError(
        "TOKEN_ID",
        `candidate ${c} of prompt ${b}: ${shown(wrong)} is not a token id below ${most}`,
      );
    });
  });
  const groups = grouping === null ? undefined : (forEachPrompt("groups", grouping, 2, B) as Ids);
  groups?.forEach((numbers, b) => {
    const count = new Set(numbers).size;
    const fits = Array.isArray(numbers) && numbers.every((g) => Number.isInteger(g) && g >= 0 && g < count);
    const { length } = candidates[b]!;
    if (!fits || numbers.length !== length) {
      bad(`groups of prompt ${b} must be a number from 0 for each of its ${length} candidates, none left out`);
    }
  });
  return { candidates, groups, reduction, segment_size, signal: signal ?? undefined, check_numerics };
}

/** A list nested `depth` deep, or one less deep, which is then used for all prompts. */
function forEachPrompt(name: string, given: unknown, depth: number, B: number): readonly unknown[] {
  let found = 0;
  for (let x = given; found <= depth && Array.isArray(x); x = x[0]) found++;
  if (found === depth - 1) return Array.from({ length: B }, () => given);
  const rows = given as readonly unknown[];
  if (found !== depth)
    bad(`${name} must be nested ${depth - 1} deep for all prompts, or ${depth} with a list for each`);
  if (rows.length !== B) bad(`${name} has ${rows.length} lists for ${B} prompts`);
  return rows;
}

function bad(message: string): never {
  throw new InputError("BAD_CANDIDATES", message);
}

/** Moves padding to the front of a prompt: candidates continue the last token. */
export function padLeft({ B, L, ids, mask }: Prompt): Prompt {
  const starts = mask.map((row) => row.lastIndexOf(1) + 1);
  const turn = (rows: Ids) => rows.map((row, b) => [...row.slice(starts[b]), ...row.slice(0, starts[b])]);
  return { B, L, ids: turn(ids), mask: turn(mask) };
}

/**
 * Scores every prompt's candidates. Needs exclusive use of the device.
 *
 * @param L tokens of the prompt
 * @param embed inserts the image features into the prompt
 */
export async function rankAnswers(
  model: LanguageModel,
  device: Device,
  L: number,
  embed: () => EmbeddedPrompt,
  { candidates, groups, reduction, segment_size, signal, check_numerics }: Ranking,
): Promise<RankedAnswers[]> {
  const all = candidates.flatMap((list, prompt) => list.map((ids) => ({ prompt, ids })));
  const longest = all.reduce((most, { ids }) => Math.max(most, ids.length), 0);
  // The last token of a candidate is only a target.
  const capacity = (model.is_encoder_decoder ? 1 : L) + longest - 1;
  const room = Math.floor(device.caps.maxBindingBytes / (4 * model.vocabulary * Math.max(1, longest - 1)));
  const size = Math.max(1, Math.min(segment_size, room));
  const scores: number[] = [];
  await device.scope(async () => {
    const decoding = model.begin(candidates.length, capacity);
    try {
      const first = device.scope(() => decoding.prefill(embed())); // [B, V]
      for (let at = 0; at < all.length; at += size) {
        signal?.throwIfAborted();
        const segment = all.slice(at, at + size);
        scores.push(...(await device.scope(() => scoreSegment(device, decoding, first, segment))));
      }
    } finally {
      decoding.dispose();
    }
  });
  const failed = check_numerics ? scores.findIndex(Number.isNaN) : -1;
  if (failed >= 0) {
    const { prompt, ids } = all[failed]!;
    const what = `prompt ${prompt}: a candidate's likelihood is NaN, for the logits have a NaN or an infinity`;
    throw new ScoresError(prompt, ids.slice(0, -1), what);
  }
  let at = 0;
  return candidates.map((list, b) => {
    const sums = list.map(() => scores[at++]!);
    const means = list.map(({ length }, c) => sums[c]! / length);
    const of = (nll: readonly number[]) => (groups ? joinGroups(nll, groups[b]!) : nll);
    const ranked = { sums: of(sums), means: of(means) };
    return { ...ranked, ranks: rank(reduction === "sum" ? ranked.sums : ranked.means) };
  });
}

interface Continuation {
  readonly prompt: number;
  readonly ids: readonly number[];
}

/** @param first f32[B, V], logits after each prompt @returns NLL of each candidate, in nats */
async function scoreSegment(
  device: Device,
  decoding: Decoding,
  first: Tensor,
  segment: readonly Continuation[],
): Promise<number[]> {
  const R = segment.length;
  const steps = Math.max(...segment.map(({ ids }) => ids.length)) - 1;
  const prompts = segment.map(({ prompt }) => prompt);
  const heads = Uint32Array.from(segment, ({ ids }) => ids[0]!);
  const firstLogits = takeRows(first, device.tensor(Uint32Array.from(prompts), [R])); // [R, V]
  const ofFirst = crossEntropy(firstLogits, device.tensor(heads, [R]));
  if (steps === 0) return [...(await ofFirst.read())];

  // Row r reads ids[0 … steps - 1], with targets ids[1 … steps]; beyond its end any token, and an ignored label.
  const tokens = new Uint32Array(R * steps);
  const labels = new Uint32Array(R * steps).fill(IGNORED_LABEL);
  segment.forEach(({ ids }, r) => {
    tokens.set(ids.slice(0, -1), r * steps);
    labels.set(ids.slice(1), r * steps);
  });
  const logits = decoding.continuationLogits(prompts, device.tensor(tokens, [R, steps])); // [R, steps, V]
  const ofRest = crossEntropy(logits.reshape([R * steps, -1]), device.tensor(labels, [R * steps]));
  const rest = await ofRest.read();
  return [...(await ofFirst.read())].map((nll, r) =>
    rest.subarray(r * steps, (r + 1) * steps).reduce((sum, more) => sum + more, nll),
  );
}

/** NLL of a group: of the sum of its candidates' probabilities. */
function joinGroups(nll: readonly number[], groups: readonly number[]): number[] {
  const joined: number[] = new Array<number>(new Set(groups).size).fill(Number.POSITIVE_INFINITY);
  nll.forEach((value, c) => {
    const group = groups[c]!;
    const before = joined[group]!;
    const [low, high] = [Math.min(value, before), Math.max(value, before)];
    joined[group] = high === Number.POSITIVE_INFINITY ? low : low - Math.log1p(Math.exp(low - high));
  });
  return joined;
}

/** Indices of the smallest first, NaN last. */
function rank(nll: readonly number[]): number[] {
  const order = nll.map((value, i) => ({ value: Number.isNaN(value) ? Number.POSITIVE_INFINITY : value, i }));
  order.sort((a, b) => (a.value < b.value ? -1 : a.value > b.value ? 1 : a.i - b.i));
  return order.map(({ i }) => i);
}
