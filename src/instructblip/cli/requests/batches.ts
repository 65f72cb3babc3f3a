/**
 * Answers many jobs in padded batches, each with the same tokens as alone: jobs with options that depend on the batch are
 * answered separately. Prompts are padded on the left, as answers continue on the right; the Q-Former's text, whose
 * positions are counted from its beginning, on the right.
 */
import { DeviceError } from "../../../tensor/errors.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import type { GenerateOptions } from "../../generation/generate.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import type { AssistedCounts } from "../../generation/output.ts";
import type { AnswerLogprobs } from "../../generation/types.ts";
import type { Intervention } from "../../interventions/intervention.ts";
import type { Ids } from "../../model/language_model.ts";
import { framesOf } from "../../pretrained/inputs.ts";
import type { InstructBlipInputs } from "../../pretrained/instructblip.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { stack } from "../../processing/image_processor.ts";
import { endsRun } from "../format.ts";
import type { Stopwatch, Timing } from "../timing.ts";

/** Default batch size in rows. */
export const BATCH_SIZE = 8;

/** Requests that are read before they are answered, as a multiple of the batch size: batches are made of these. */
export const AHEAD = 4;

/** One row or several, and their generation options. */
export interface Job {
  readonly inputs: InstructBlipInputs;
  readonly options: GenerationOptions;
  /** A job that has any is answered alone. */
  readonly interventions?: readonly Intervention[] | undefined;
}

/** The result of generate() for a job. */
export interface Answer {
  readonly sequences: number[][];
  readonly sequences_scores?: readonly number[];
  readonly logprobs?: readonly AnswerLogprobs[];
  readonly assisted?: AssistedCounts;
  /** The timing of the job's batch. */
  readonly timing: Timing;
  /** Rows of that batch. */
  readonly rows: number;
}

type Hooks<J = Job> = Pick<GenerateOptions, "tokenizer"> & {
  readonly signal: AbortSignal;
  /** Told warnings about the options of a job. Default: the model's on_warning. */
  readonly warn?: (job: J, warning: string) => void;
};

type Batch<J> = [J, ...J[]];

/** The result of a job, or its error. */
export type Outcome<J extends Job> = { readonly job: J } & ({ readonly answer: Answer } | { readonly error: unknown });

/** Options that count from the prompt's end and do not depend on its tokens, nor on padding. */
const COUNT_FROM_THE_PROMPT = new Set<string>([
  "max_new_tokens",
  "min_new_tokens",
  "num_beams",
  "num_return_sequences",
  "length_penalty",
  "early_stopping",
  "beam_rules",
  "eos_token_id",
  "pad_token_id",
  "suppress_tokens",
  "logprobs",
] satisfies (keyof GenerationOptions)[]);

/**
 * Options whose result depends on the other rows, or that are of one row: drafts are; random numbers are drawn for all rows together, time is shared, and tokens
 * after a stop string are not distinguished from padding.
 */
const ALONE = [
  "assistant_model",
  "prompt_lookup_num_tokens",
  "do_sample",
  "max_time",
  "stop_strings",
  "negative_prompt_ids",
  "guidance_scale",
] satisfies (keyof GenerationOptions)[];

/** Jobs with the same key may share a batch; undefined: the job is answered alone. Pure. */
export function batchKey({ inputs, options, interventions }: Job): string | undefined {
  if (interventions) return undefined;
  const given = Object.entries(options).filter(([, value]) => value !== undefined); // for an end id null is a value
  const set = given.filter(([, value]) => value !== null && value !== false).map(([name]) => name);
  const [first] = inputs.input_ids ?? [];
  if (set.some((name) => (ALONE as string[]).includes(name)) || !first) return undefined;
  const { penalize_prompt = true } = options;
  const isOfAnswer = (name: string) =>
    COUNT_FROM_THE_PROMPT.has(name) ||
    ((name === "repetition_penalty" || name === "penalize_prompt") && penalize_prompt !== true);
  const counts = set.every(isOfAnswer) && options.max_new_tokens != null;
  const length = counts ? "any" : first.length;
  const { pixel_values, interpolate_pos_encoding = false } = inputs;
  const sorted = given.sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([sorted, length, pixel_values.shape.slice(1), interpolate_pos_encoding]);
}

/** The inputs of one batch. Pure. */
export function joinInputs(jobs: readonly InstructBlipInputs[], padding: number): InstructBlipInputs {
  const rows = (pick: (inputs: InstructBlipInputs) => Ids | undefined) => jobs.flatMap((inputs) => pick(inputs) ?? []);
  const masks = (ids: Ids | undefined, mask: Ids | undefined) => mask ?? ids?.map((row) => row.map(() => 1));
  const { data } = stack(jobs.map(({ pixel_values }) => framesOf(pixel_values)));
  const { pixel_values, interpolate_pos_encoding } = jobs[0]!;
  const images = jobs.reduce((sum, job) => sum + job.pixel_values.shape[0]!, 0); // a row may have several
  const input_ids = rows((job) => job.input_ids);
  const words = rows((job) => job.qformer_input_ids);
  return {
    pixel_values: { data, shape: [images, ...pixel_values.shape.slice(1)] },
    ...(interpolate_pos_encoding && { interpolate_pos_encoding: true }),
    input_ids: padded(input_ids, padding, "left"),
    attention_mask: padded(
      rows((job) => masks(job.input_ids, job.attention_mask)),
      0,
      "left",
    ),
    qformer_input_ids: padded(words, 0, "right"), // BLIP-2 has none
    ...(words.length > 0 && {
      qformer_attention_mask: padded(
        rows((job) => masks(job.qformer_input_ids, job.qformer_attention_mask)),
        0,
        "right",
      ),
    }),
  };
}

/** Rows padded to the longest with `value`. */
function padded(rows: Ids, value: number, side: "left" | "right"): number[][] {
  const length = Math.max(...rows.map((row) => row.length));
  return rows.map((row) => {
    const padding = new Array<number>(length - row.length).fill(value);
    return side === "left" ? [...padding, ...row] : [...row, ...padding];
  });
}

/**
 * The rows of a job in its batch's result as it would get them alone: without padding in front, and cropped to its longest
 * answer. Pure.
 *
 * @param front numbers of padding in front of every row
 * @param begin where answers begin, without the padding
 * @param ends ids that end an answer
 */
export function ownRows(rows: Ids, front: number, begin: number, ends: readonly number[]): number[][] {
  const own = rows.map((row) => row.slice(front));
  const lengths = own.map((row) => {
    const end = row.findIndex((id, i) => i >= begin && ends.includes(id));
    return end < 0 ? row.length : end + 1;
  });
  return own.map((row) => row.slice(0, Math.max(...lengths)));
}

/** The size of batches of a whole run. */
export interface BatchLimit {
  rows: number;
}

/**
 * Answers jobs batch by batch; yields them as their batches are done. A batch that exceeds memory is halved, and so are
 * later ones; after another failure the jobs of a batch are answered one by one, so that a bad job fails alone.
 *
 * @param limit rows of a batch, at most; lowered when a batch exceeds memory. A larger job is a batch of its own
 * @throws the signal's reason
 */
export async function* answerTogether<J extends Job>(
  model: VisionLanguageModel,
  jobs: readonly J[],
  limit: BatchLimit,
  watchOf: (job: J) => Stopwatch,
  { load_ms, ...hooks }: Hooks<J> & { readonly load_ms: number },
): AsyncGenerator<Outcome<J>> {
  const queue = batchesOf(jobs, limit.rows);
  for (let batch = queue.shift(); batch; batch = queue.shift()) {
    hooks.signal.throwIfAborted();
    const rows = batch.reduce((sum, job) => sum + rowsOf(job), 0);
    if (batch.length > 1 && rows > limit.rows) {
      queue.unshift(...halves(batch));
      continue;
    }
    try {
      const answers = await answerBatch(model, batch, batch.map(watchOf), hooks, load_ms);
      for (const [i, job] of batch.entries()) yield { job, answer: answers[i]! };
    } catch (error) {
      hooks.signal.throwIfAborted();
      const [job] = batch;
      if (batch.length === 1) yield { job, error };
      else if (isShortage(error)) {
        limit.rows = Math.max(1, Math.floor(rows / 2));
        queue.unshift(...halves(batch));
      } else if (endsRun(error)) yield { job, error };
      else queue.unshift(...batch.map((job): Batch<J> => [job]));
    }
  }
}

/** Whether a smaller batch may succeed. */
export function isShortage(error: unknown): boolean {
  return error instanceof DeviceError && ["BUDGET", "GPU_OOM", "LIMIT"].includes(error.code);
}

const rowsOf = ({ inputs }: Job) => inputs.input_ids?.length ?? inputs.pixel_values.shape[0]!;

function halves<J>(batch: Batch<J>): Batch<J>[] {
  const middle = Math.ceil(batch.length / 2);
  return [batch.slice(0, middle), batch.slice(middle)].filter((half): half is Batch<J> => half.length > 0);
}

/** Groups jobs into batches, each at the position of its first job. Pure. */
export function batchesOf<J extends Job>(jobs: readonly J[], size: number): Batch<J>[] {
  const batches: Batch<J>[] = [];
  const open = new Map<string, { batch: Batch<J>; rows: number }>();
  for (const job of jobs) {
    const key = batchKey(job);
    const rows = rowsOf(job);
    const known = key === undefined ? undefined : open.get(key);
    if (known && known.rows + rows <= size) {
      known.batch.push(job);
      known.rows += rows;
      continue;
    }
    const batch: Batch<J> = [job];
    batches.push(batch);
    if (key !== undefined) open.set(key, { batch, rows });
  }
  return batches;
}

async function answerBatch<J extends Job>(
  model: VisionLanguageModel,
  jobs: Batch<J>,
  watches: readonly Stopwatch[],
  { warn, ...hooks }: Hooks<J>,
  load_ms: number,
): Promise<Answer[]> {
  const { text_config } = model.config;
  const { options, interventions } = jobs[0];
  const padding = paddingOf(model.config, options);
  const inputs =
    jobs.length === 1
      ? jobs[0].inputs
      : joinInputs(
          jobs.map((job) => job.inputs),
          padding,
        );
  for (const watch of watches) watch.generating();
  const { sequences, sequences_scores, logprobs, assisted } = await model.generate({
    ...inputs,
    ...options,
    ...hooks,
    ...(warn && { on_warning: (warning: string) => warn(jobs[0], warning) }), // of options, which all jobs share
    interventions,
    on_token: () => {
      for (const watch of watches) watch.token();
    },
    return_dict_in_generate: true,
    return_full_text: true,
  });
  const each = sequences.length / inputs.input_ids.length;
  const rows = inputs.input_ids.length;
  const { eos_token_id = text_config.eos_token_id } = options;
  const ends = [eos_token_id ?? []].flat();
  let at = 0;
  return jobs.map((job, i) => {
    const [begin, end] = [at, at + rowsOf(job) * each];
    at = end;
    const own = sequences.slice(begin, end);
    const scores = sequences_scores && { sequences_scores: [...sequences_scores].slice(begin, end) };
    const logs = logprobs && { logprobs: logprobs.slice(begin, end) };
    const start = beginOf(model, job.inputs);
    const front = beginOf(model, inputs) - start;
    const answers = jobs.length === 1 ? own : ownRows(own, front, start, ends);
    const drafts = assisted && { assisted };
    const timing = { ...watches[i]!.read(load_ms), new_tokens: answers[0]!.length - start };
    return { sequences: answers, ...scores, ...logs, ...drafts, timing, rows };
  });
}

/** An id for padding, which is masked: any that is in the embedding and not a placeholder. */
function paddingOf({ image_token, text_config }: VisionLanguageConfig, { pad_token_id }: GenerationOptions): number {
  const id = pad_token_id ?? text_config.pad_token_id ?? 0;
  return id >= 0 && id !== image_token ? id : image_token === 0 ? 1 : 0;
}

/** Restores the order of results: positions from `first` on, each once. */
export async function* inOrder<T extends { readonly position: number }>(
  outcomes: AsyncIterable<T>,
  first = 0,
): AsyncGenerator<T> {
  const held = new Map<number, T>();
  let next = first;
  for await (const outcome of outcomes) {
    held.set(outcome.position, outcome);
    for (let turn = held.get(next); turn; turn = held.get(next)) {
      held.delete(next++);
      yield turn;
    }
  }
}

/** Where answers begin in the rows of generate(): after the prompt, or the start token of a decoder. */
export function beginOf({ config, language_model }: VisionLanguageModel, { input_ids }: InstructBlipInputs): number {
  if (language_model.decoder_start_token_id !== undefined) return 1;
  return config.image_token === null ? 0 : input_ids[0]!.length; // the rows of legacy checkpoints have answers only
}
