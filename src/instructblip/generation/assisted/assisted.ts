/**
 * Assisted decoding: draft tokens are verified by the model in one pass, which also gives the token after the last that it
 * accepts. A token is accepted if it is the one that the model would have chosen: the most probable, or the one that the seed
 * draws. The answer is therefore that of `sample`, as far as a pass over several tokens and passes over one round alike.
 *
 * Hugging Face's _assisted_decoding, but for three things. Stopping criteria are asked after every token, not after every
 * pass. Drafts begin after the first token: transformers 5.18 drafts before it, and with embeddings of image and prompt does
 * not read those drafts, so that the answer is not that of greedy search. And what do_sample draws from an assistant's drafts
 * is what the seed draws without them, where HF accepts by the ratio of the probabilities.
 * Source: transformers 5.18, _assisted_decoding in generation/utils.py.
 */
import { argmaxOf } from "../arithmetic.ts";
import type { Decoder, Logits } from "../decoder.ts";
import { scoreEdits } from "../logits_process.ts";
import { answerLogprobs, stepLogprobs } from "../logprobs.ts";
import { multinomial, RandomNumbers } from "../multinomial.ts";
import { expectChoice, hasDistribution, ScoresError } from "../numerics.ts";
import { type AssistedCounts, type GenerateOutput, rowsOf, type StepScores } from "../output.ts";
import type { SearchOptions } from "../sample.ts";
import { inTime } from "../stopping.ts";
import type { AnswerToken } from "../types.ts";
import { type Assistant, AssistedCandidateGenerator, PromptLookupCandidateGenerator } from "./candidates.ts";

/** The token that the model chooses after some of the drafts. */
interface Choice {
  readonly id: number;
  /** In place of a valid choice; thrown if the answer gets there. */
  readonly error?: unknown;
  /** f32[V], where they are wanted. */
  readonly raw?: Float32Array;
  readonly scores?: Float32Array;
  readonly logprobs?: AnswerToken;
}

/**
 * @param decoder of one row, with extend() and crop()
 * @param prompt ids of that row
 * @param assistant of assistant_model, with the same prompt
 */
export async function assistedDecoding(
  decoder: Decoder,
  [prompt, ...others]: readonly (readonly number[])[],
  { config, processors, stops, streamer, signal, on_token }: SearchOptions,
  assistant: Assistant | undefined,
): Promise<GenerateOutput> {
  if (others.length > 0 || !decoder.extend || !decoder.crop)
    throw new Error("drafts are of one row, and can be forgotten");
  if (config.assistant_model && !assistant) throw new Error("the assistant has no decoder");
  const { do_sample, check_numerics, max_length, return_dict_in_generate: whole } = config;
  const wanted = {
    raw: whole && config.output_logits,
    scores: whole && config.output_scores,
    logprobs: whole ? config.logprobs : null,
  };
  const random = do_sample ? new RandomNumbers(config.seed) : undefined;
  const onDevice = !random && !wanted.raw && !wanted.scores && wanted.logprobs === null;
  const generator = assistant
    ? new AssistedCandidateGenerator(assistant, config, random)
    : new PromptLookupCandidateGenerator(config);

  const row = [...prompt!];
  const counts: AssistedCounts = { passes: 0, draft_tokens: 0, accepted_tokens: 0 };
  const kept: Choice[] = [];
  streamer?.put([[...row]]);
  for (let finished = false; !finished; ) {
    signal?.throwIfAborted();
    const isFirst = counts.passes === 0;
    const pass = async () => {
      const drafts = isFirst ? [] : await generator.candidates(row, max_length - row.length - 1);
      signal?.throwIfAborted();
      return { drafts, choices: await decoder.scope(() => choose(read(drafts, isFirst), drafts)) };
    };
    const done = await inTime(pass());
    if (!done) break;
    const { drafts, choices } = done;
    counts.passes++;
    counts.draft_tokens += drafts.length;
    let added = 0;
    for (const choice of choices) {
      if (choice.error !== undefined) throw choice.error;
      row.push(choice.id);
      kept.push(choice);
      finished = stops(row);
      streamer?.put([[choice.id]]);
      on_token?.(kept.length - 1);
      added++;
      finished ||= streamer?.cancelled === true;
      if (finished) break;
    }
    counts.accepted_tokens += added - 1;
    if (finished) break;
    if (drafts.length > added - 1) decoder.crop(drafts.length - (added - 1));
    if (!isFirst) generator.update(added - 1);
  }
  const stepsOf = (arrays: readonly (Float32Array | undefined)[]): StepScores[] =>
    arrays.map((data) => ({ data: data!, shape: [1, data!.length] as const }));
  return {
    sequences: [row],
    ...(wanted.scores && { scores: stepsOf(kept.map(({ scores }) => scores)) }),
    ...(wanted.raw && { logits: stepsOf(kept.map(({ raw }) => raw)) }),
    ...(wanted.logprobs !== null && { logprobs: [answerLogprobs(kept.map(({ logprobs }) => logprobs!))] }),
    ...(random && { seed: random.seed }),
    assisted: counts,
  };

  /** The logits after the row and after each draft: f32[1 + drafts, V]. */
  function read(drafts: readonly number[], isFirst: boolean): Logits {
    if (isFirst) return decoder.prefill();
    const tokens = decoder.upload([row.at(-1)!, ...drafts]);
    return drafts.length === 0 ? decoder.step(tokens) : decoder.extend!(tokens);
  }

  /** The model's choices up to the first that is not the draft. */
  async function choose(logits: Logits, drafts: readonly number[]): Promise<Choice[]> {
    const prefixes = [row, ...drafts.map((_, i) => [...row, ...drafts.slice(0, i + 1)])];
    const edits = onDevice ? scoreEdits(processors, prefixes, config.vocabulary) : undefined;
    const agreed = (choices: readonly Choice[]) => {
      const differs = choices.findIndex(({ id, error }, i) => error !== undefined || id !== drafts[i]);
      return choices.slice(0, differs < 0 ? choices.length : differs + 1);
    };
    if (edits && (processors.length === 0 || decoder.edit)) {
      const best = decoder.argmax(processors.length === 0 ? logits : decoder.edit!(logits, edits));
      const { ids, undecided } = await best.read();
      return agreed(
        prefixes.map((prefix, i) => {
          // If every id is banned there is no choice either, which is not the model's fault.
          const failed = check_numerics && undecided.includes(i) && edits.banned[i]!.length < config.vocabulary;
          return { id: ids[i]!, ...(failed && { error: new ScoresError(0, [...prefix]) }) };
        }),
      );
    }
    const choices: Choice[] = [];
    for (const [i, view] of rowsOf(await logits.read(), prefixes.length).entries()) {
      const choice = chosen(view, prefixes[i]!, kept.length + i);
      choices.push(choice);
      if (choice.error !== undefined || choice.id !== drafts[i]) break;
    }
    return choices;
  }

  /** @param view f32[V], which the processors change */
  function chosen(view: Float32Array, prefix: readonly number[], step: number): Choice {
    const raw = wanted.raw ? view.slice() : undefined;
    try {
      if (check_numerics && !hasDistribution(view)) throw new ScoresError(0, [...prefix]);
      for (const process of processors) process([prefix], [view]);
      if (check_numerics) expectChoice(view, 0, do_sample);
    } catch (error) {
      return { id: -1, error };
    }
    const id = random ? multinomial(view, random.at(0, step)) : argmaxOf(view);
    return {
      id,
      ...(raw && { raw }),
      ...(wanted.scores && { scores: view.slice() }),
      ...(wanted.logprobs !== null && { logprobs: stepLogprobs([view], wanted.logprobs)(0, id) }),
    };
  }
}
