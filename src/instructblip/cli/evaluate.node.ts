/** `evaluate` and `merge`: answers and scores the questions of a task, whole or in shards that are merged. */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { performance } from "node:perf_hooks";
import { formatStorage } from "../../modules/storage_dtype.ts";
import { InputError } from "../../tensor/errors.ts";
import { lavisInputs, lavisOptions, lavisText, segmentLosses, specialIds } from "../evaluation/lavis.ts";
import { METRICS, type Metric } from "../evaluation/metrics.ts";
import {
  difference,
  headerLine,
  joinParts,
  type PredictionFile,
  predictionReader,
  type Settings,
} from "../evaluation/prediction_file.ts";
import { expectPresetModel } from "../evaluation/preset_of_task.ts";
import type { Shard } from "../evaluation/shards.ts";
import { type Prediction, summarize } from "../evaluation/summary.ts";
import type { Question, Task } from "../evaluation/task.ts";
import { checkDecoding } from "../generation/configuration.ts";
import { candidateIds } from "../generation/ranking.ts";
import { checkModelDownload } from "../pretrained/auto_model.ts";
import { type AnyProcessor, AutoProcessor } from "../pretrained/auto_processor.ts";
import type { InstructBlipInputs } from "../pretrained/instructblip.ts";
import type { VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import { openModelFolder } from "./folder.node.ts";
import {
  describeError,
  EXIT,
  endsRun,
  gravest,
  isWorthARetry,
  OF_SHARED_OPTIONS,
  Pace,
  progressText,
} from "./format.ts";
import { reportJson, reportText } from "./report.ts";
import { ahead, windows } from "./requests/ahead.ts";
import { AHEAD, type Answer, answerTogether, BATCH_SIZE, beginOf, inOrder, type Job } from "./requests/batches.ts";
import type { DataOptions } from "./requests/data_rows.ts";
import { ImageReader, workersFor } from "./requests/image_workers.node.ts";
import { mergeAnswers } from "./requests/merge_answers.node.ts";
import { type Data, identityOf, readData, readPredictionFile, readTask } from "./requests/predictions.node.ts";
import { reopening } from "./requests/reopening.node.ts";
import { openShard } from "./requests/shard_file.node.ts";
import { type Stats, statsOn } from "./requests/stats.ts";
import { type LoadFlags, loadModel, loadOptions, prepareInputs, type Run } from "./session.node.ts";
import { Progress, say, sayStack } from "./terminal.node.ts";
import { Stopwatch } from "./timing.ts";

export interface Evaluation extends DataOptions, LoadFlags {
  readonly task: string;
  /** A file, or a folder of a data set. */
  readonly data: string;
  /** The folder of images; default: that of the data. */
  readonly images?: string;
  readonly shard?: Shard;
  /** A file for the predictions. */
  readonly out?: string;
  /** Resume `out`. */
  readonly resume?: boolean;
  /** Batch size, at most. */
  readonly batchSize?: number;
  readonly json?: boolean;
  /** Threads that decode and resize images. */
  readonly workers?: number;
  /** Print how busy the device was. */
  readonly stats?: boolean;
  /** The program's version. */
  readonly version: string;
}

/** Answers a task's questions and prints the scores. @returns the exit code */
export async function runEvaluate(evaluation: Evaluation, run: Run): Promise<number> {
  const task = await readTask(evaluation.task);
  checkDecoding(task.generation);
  if (evaluation.images !== undefined) await expectFolder(`--images ${evaluation.images}`, evaluation.images);
  const data = await readData(evaluation.data, task, evaluation);
  try {
    return await evaluateOn(data, task, evaluation, run);
  } finally {
    await data.close();
  }
}

/** @throws InputError NOT_FOUND */
async function expectFolder(name: string, path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) return;
  throw new InputError("NOT_FOUND", `${name}: ${found ? "this is a file, not a folder" : "no such folder"}`);
}

async function evaluateOn(data: Data, task: Task, evaluation: Evaluation, run: Run): Promise<number> {
  const { terminal } = run;
  const { items, sha256 } = data;
  const { dtype, version, shard = { i: 0, n: 1 } } = evaluation;
  const loading = loadOptions(evaluation);
  const { fix_vicuna_token_ids, compute_dtype, kv_cache_dtype } = loading;
  const folder = await openModelFolder(evaluation.model, run);
  const { image_transform } = task;
  const processor = await AutoProcessor.from_pretrained(folder, image_transform ? { image_transform } : {});
  expectPresetModel(task, (await folder.config()).text_config.model_type);
  await checkModelDownload(folder, dtype);
  const settings: Settings = {
    version,
    task,
    model: folder.name,
    model_sha256: await identityOf(folder),
    dtype: formatStorage(dtype),
    ...(fix_vicuna_token_ids && { fix_vicuna_token_ids }),
    ...(compute_dtype !== "f32" && { compute_dtype }),
    ...(kv_cache_dtype !== "f32" && { kv_cache_dtype }),
    data: basename(evaluation.data),
    data_sha256: sha256,
    questions: items.length,
    shard,
  };
  const reader = predictionReader(`--out ${evaluation.out}`);
  const { out, rows } = await openShard(evaluation, reader, settings, { headerLine, difference }, run);
  let exit: number = rows.some((row) => row.error) ? EXIT.someFailed : EXIT.ok;
  const known = new Set(rows.map(({ index }) => index));
  // Questions about one image are adjacent, so that it is encoded once.
  const left = byImage([...items.entries()].filter(([index]) => index % shard.n === shard.i && !known.has(index)));
  const base = evaluation.images ?? data.base;
  const progress = new Progress(terminal);
  const size = evaluation.batchSize ?? BATCH_SIZE;
  let model: VisionLanguageModel | undefined;
  let stats: Stats | undefined;
  const workers = workersFor(left.length, evaluation.workers);
  const images = new ImageReader(processor, base, workers, run.signal);
  const begun = performance.now();
  const pace = new Pace();
  const counts = { done: 0, failed: 0 };
  const asked = { task, images, size, depth: workers === 0 ? 0 : AHEAD * size };
  const answerRest = async (progressed: () => void) => {
    const image_cache = AHEAD * Math.max(size, BATCH_SIZE);
    model ??= await loadModel(folder, dtype, run, { ...loading, image_cache });
    if (evaluation.stats) stats = statsOn(model.device, stats);
    const rest = left.slice(counts.done);
    for await (const { position, ...outcome } of inOrder(answerAll(model, processor, rest, asked, run))) {
      const [index, { id, kind, prompt, answers }] = rest[position]!;
      let row: Prediction;
      if ("found" in outcome) row = { index, id, kind, prompt, answers, ...outcome.found };
      else {
        const { error } = outcome;
        const { code, message, exitCode } = describeError(error);
        // An error that every question would have is not written: a resumed run asks the question again.
        if (endsRun(error) || (OF_SHARED_OPTIONS.has(code) && rows.every((row) => row.error))) throw error;
        sayStack(terminal, error);
        row = { index, id, kind, prompt, answers, error: { code, message: (message ?? code).replace(/^error: /, "") } };
        counts.failed++;
        exit = gravest(exit, exitCode);
      }
      rows.push(row);
      await out?.write(`${JSON.stringify(row)}\n`);
      counts.done++;
      progressed();
      const { done } = counts;
      progress.show(progressText(counts, left.length, performance.now() - begun, pace.left(done, left.length)));
    }
  };
  const release = () => {
    model?.dispose();
    model = undefined;
  };
  try {
    if (left.length > 0) await reopening(run, answerRest, release);
    progress.clear();
    if (stats) say(terminal, (stats as Stats).text(counts.done));
  } finally {
    progress.clear();
    await images.close();
    model?.dispose();
    await out?.close();
  }
  await report({ settings, rows }, evaluation.json, out && ": --resume asks them again", run);
  return exit;
}

/** Merges prediction files, or with `requests` the answers of all shards. @returns the exit code */
export async function runMerge(
  files: readonly string[],
  { json, requests, ...data }: { readonly json?: boolean; readonly requests?: string } & DataOptions,
  run: Run,
): Promise<number> {
  if (requests !== undefined) return mergeAnswers(requests, files, data, run);
  const parts = new Map<string, PredictionFile>();
  for (const file of files) {
    if (parts.has(file)) throw new InputError("PARTS_DIFFER", `${file} is given twice`);
    parts.set(file, await readPredictionFile(file));
  }
  const whole = joinParts(parts);
  await report(whole, json, ": evaluate --resume of their files asks them again", run);
  // Not EXIT.retry: to merge the same files again helps nobody.
  return whole.rows.some((row) => row.error) ? EXIT.someFailed : EXIT.ok;
}

/** @param how questions whose error may be gone later are asked again; undefined if they cannot be */
async function report(
  { settings, rows }: PredictionFile,
  json: boolean | undefined,
  how: string | undefined,
  { terminal }: Run,
): Promise<void> {
  const summary = summarize(settings.task.metric, rows);
  await terminal.out(json ? reportJson(summary, settings) : reportText(summary, settings));
  if (summary.failed === 0) return;
  const first = rows.reduce<Prediction | undefined>(
    (least, row) => (row.error && !(least && least.index < row.index) ? row : least),
    undefined,
  );
  const example = `the first: ${JSON.stringify(first?.id)}: ${first?.error?.message}`;
  say(terminal, `${summary.failed} of ${rows.length} questions failed and are not in the score; ${example}`);
  const again = rows.filter(({ error }) => isWorthARetry(error?.code)).length;
  if (again > 0) say(terminal, `${again} of them may be answered later${how ?? ""}`);
}

/** Groups questions by image, in the order of their first questions. */
function byImage(left: readonly [number, Question][]): [number, Question][] {
  const groups = new Map<string, [number, Question][]>();
  for (const entry of left) {
    const name = JSON.stringify(entry[1].image);
    const group = groups.get(name);
    if (group) group.push(entry);
    else groups.set(name, [entry]);
  }
  return [...groups.values()].flat();
}

interface Found {
  readonly prediction: string;
  readonly scores?: readonly number[];
  readonly right?: readonly number[];
}

interface Asked {
  readonly task: Task;
  readonly images: ImageReader;
  /** Batch size in rows. */
  readonly size: number;
  /** Questions that are prepared beyond those that are answered. */
  readonly depth: number;
}

type EvaluationJob = Job & { readonly position: number; readonly item: Question };

/** Answers questions in batches; yields them as they are done. */
async function* answerAll(
  model: VisionLanguageModel,
  processor: AnyProcessor,
  left: readonly [number, Question][],
  { task, images, size, depth }: Asked,
  { signal }: Run,
): AsyncGenerator<{ readonly position: number } & ({ readonly found: Found } | { readonly error: unknown })> {
  const special = specialIds(model.config.text_config, processor.tokenizer);
  const prepare = async ([position, [, item]]: [number, [number, Question]]) => {
    try {
      const pixels = await Promise.all([item.image].flat().map((image) => images.read(image)));
      // A video's frames are several images of one prompt for a model of images, as in LAVIS.
      const several = Array.isArray(item.image) && model.config.modality === "image";
      const given = await prepareInputs(processor, model.config, several ? [pixels] : pixels, [item.prompt]);
      const inputs = task.lavis ? lavisInputs(given, processor.tokenizer, model.config.image_token) : given;
      const options = task.lavis ? lavisOptions(task.generation, special) : task.generation;
      return { job: { position, item, inputs, options } satisfies EvaluationJob };
    } catch (error) {
      return { position, error };
    }
  };
  const prepared = ahead(left.entries(), depth, prepare);
  const limit = { rows: size };
  for await (const window of windows(prepared, size === 1 ? 1 : AHEAD * size, size)) {
    const jobs: EvaluationJob[] = [];
    for (const one of window) {
      signal.throwIfAborted();
      if (images.failure) throw images.failure.error;
      if (!one.job) yield one;
      else if (!task.ranking) jobs.push(one.job);
      else yield await rankJob(one.job);
    }
    for await (const outcome of answerTogether(model, jobs, limit, () => new Stopwatch(1), { signal, load_ms: 0 })) {
      const { position, inputs } = outcome.job;
      if ("error" in outcome) yield { position, error: outcome.error };
      else yield { position, found: { prediction: textOf(inputs, outcome.answer) } };
    }
  }

  /** The text of the first row, without the prompt. */
  function textOf(inputs: InstructBlipInputs, { sequences }: Answer): string {
    const { tokenizer } = processor;
    const ids = sequences[0]!.slice(beginOf(model, inputs)).filter((id) => id >= 0);
    if (task.lavis) return lavisText(tokenizer, ids, special);
    return tokenizer.decode(ids, { skip_special_tokens: true }).trim();
  }

  async function rankJob({ position, item, inputs }: EvaluationJob) {
    try {
      return { position, found: await rank(model, processor, task, item, inputs, signal) };
    } catch (error) {
      signal.throwIfAborted();
      return { position, error };
    }
  }
}

async function rank(
  model: VisionLanguageModel,
  processor: AnyProcessor,
  { metric, ranking }: Task,
  { candidates = [], right = [] }: Question,
  inputs: InstructBlipInputs,
  signal: AbortSignal,
): Promise<Found> {
  const { reduction, eos, segment_size, n_segments } = ranking!;
  const rows = candidateIds(processor.tokenizer, candidates.flat(), eos ?? undefined);
  const [ranked] = await model.rank_answers({
    ...inputs,
    candidates: rows,
    groups: candidates.flatMap((texts, group) => texts.map(() => group)),
    reduction,
    ...(segment_size === null ? {} : { segment_size }),
    signal,
  });
  const { sums, means } = ranked!; // of one image
  let scores = reduction === "sum" ? sums : means;
  let first = ranked!.ranks[0]!;
  if (n_segments > 1 && model.config.text_config.model_type === "llama") {
    const lengths = rows.map((ids) => ids.length);
    const { image_token, num_query_tokens } = model.config;
    const prompt = inputs.input_ids[0]!.length + (image_token === null ? num_query_tokens : 0);
    scores = segmentLosses(sums, lengths, { prompt, n_segments });
    first = scores.indexOf(Math.min(...scores));
  }
  const prediction = candidates[first]![0]!;
  const needed = (METRICS[metric] as Metric).candidates !== undefined;
  return needed ? { prediction, scores, right } : { prediction };
}
