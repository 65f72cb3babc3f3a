/** `evaluate` and `merge`: a task's questions answered and scored, whole or in parts that are added up. */
import { basename, dirname } from "node:path";
import { performance } from "node:perf_hooks";
import { type CacheDType, formatStorage, type StorageDType } from "../../modules/storage_dtype.ts";
import { InputError } from "../../tensor/errors.ts";
import { METRICS, type Metric } from "../evaluation/metrics.ts";
import {
  difference,
  headerLine,
  joinParts,
  type Part,
  PartReader,
  type Settings,
  type Shard,
} from "../evaluation/part.ts";
import { type Row, summarize } from "../evaluation/summary.ts";
import type { Item, Task } from "../evaluation/task.ts";
import { candidateIds } from "../generation/ranking.ts";
import { type AnyProcessor, AutoProcessor } from "../pretrained/auto_processor.ts";
import { readNamedImage } from "../pretrained/platform.node.ts";
import type { VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import { openModelFolder } from "./folder.node.ts";
import { describeError, EXIT, endsRun, Pace, progressText } from "./format.ts";
import { OutFile } from "./out_file.node.ts";
import { identityOf, readData, readPart, readTask } from "./predictions.node.ts";
import { reportJson, reportText } from "./report.ts";
import { loadModel, prepareInputs, type Run } from "./session.node.ts";
import { Progress, say, sayStack } from "./terminal.node.ts";

export interface Evaluation {
  readonly model: string;
  readonly dtype: StorageDType;
  readonly fixVicunaTokenIds?: boolean;
  readonly quantizedCache?: true | string;
  readonly cacheDtype?: CacheDType;
  readonly task: string;
  readonly data: string;
  /** Where pictures are; default: beside the data. */
  readonly images?: string;
  readonly shard?: Shard;
  /** A file for the predictions. */
  readonly out?: string;
  /** Go on with `out`. */
  readonly resume?: boolean;
  readonly json?: boolean;
  /** This program's. */
  readonly version: string;
}

/** One row of ids, without the prompt. */
const ANSWER = { return_dict_in_generate: false, return_full_text: false } as const;

/** Errors that every question of the task would have. */
const OF_THE_TASK = new Set(["UNSUPPORTED_OPTION", "UNKNOWN_OPTION", "PARAM_RANGE", "BEAM_LIMIT"]);

/** Answers a task's questions and prints the figures. @returns the exit code */
export async function runEvaluate(evaluation: Evaluation, run: Run): Promise<number> {
  const { terminal } = run;
  const { dtype, version, shard = { i: 0, n: 1 }, fixVicunaTokenIds: fix_vicuna_token_ids = false } = evaluation;
  const { quantizedCache: cache = false, cacheDtype: cache_dtype = "f32" } = evaluation;
  const task = await readTask(evaluation.task);
  const { items, sha256 } = await readData(evaluation.data, task);
  const folder = await openModelFolder(evaluation.model, run);
  const processor = await AutoProcessor.from_pretrained(folder);
  const settings: Settings = {
    version,
    task,
    model: folder.name,
    model_sha256: await identityOf(folder),
    dtype: formatStorage(dtype),
    ...(fix_vicuna_token_ids && { fix_vicuna_token_ids }),
    ...(cache_dtype !== "f32" && { cache_dtype }),
    data: basename(evaluation.data),
    data_sha256: sha256,
    questions: items.length,
    shard,
  };
  const { out, rows } = await openOut(evaluation, settings);
  let exit: number = rows.some((row) => row.error) ? EXIT.someFailed : EXIT.ok;
  const known = new Set(rows.map(({ index }) => index));
  const left = [...items.entries()].filter(([index]) => index % shard.n === shard.i && !known.has(index));
  const base = evaluation.images ?? dirname(evaluation.data);
  const progress = new Progress(terminal);
  let model: VisionLanguageModel | undefined;
  try {
    if (left.length > 0) model = await loadModel(folder, dtype, run, { fix_vicuna_token_ids, cache, cache_dtype });
    const begun = performance.now();
    const pace = new Pace();
    const counts = { done: 0, failed: 0 };
    for (const [index, item] of left) {
      run.signal.throwIfAborted();
      const { id, kind, prompt, answers } = item;
      let row: Row;
      try {
        const found = await answer(model!, processor, task, item, base, run.signal);
        row = { index, id, kind, prompt, answers, ...found };
      } catch (error) {
        run.signal.throwIfAborted();
        const { code, message, exitCode } = describeError(error);
        // Whatever every question would fail by is no answer to this one; the run that goes on asks it again.
        if (endsRun(error) || (OF_THE_TASK.has(code) && rows.every((row) => row.error))) throw error;
        sayStack(terminal, error);
        row = { index, id, kind, prompt, answers, error: { code, message: (message ?? code).replace(/^error: /, "") } };
        counts.failed++;
        if (exitCode === EXIT.internal) exit = EXIT.internal;
        else if (exit === EXIT.ok) exit = EXIT.someFailed;
      }
      rows.push(row);
      await out?.write(`${JSON.stringify(row)}\n`);
      counts.done++;
      const { done } = counts;
      progress.show(progressText(counts, left.length, performance.now() - begun, pace.left(done, left.length)));
    }
  } finally {
    progress.clear();
    model?.dispose();
    await out?.close();
  }
  await report({ settings, rows }, evaluation.json, run);
  return exit;
}

/** Adds parts up. @returns the exit code */
export async function runMerge(files: readonly string[], { json }: { json?: boolean }, run: Run): Promise<number> {
  const parts = new Map<string, Part>();
  for (const file of files) {
    if (parts.has(file)) throw new InputError("PARTS_DIFFER", `${file} is given twice`);
    parts.set(file, await readPart(file));
  }
  const whole = joinParts(parts);
  await report(whole, json, run);
  return whole.rows.some((row) => row.error) ? EXIT.someFailed : EXIT.ok;
}

async function report({ settings, rows }: Part, json: boolean | undefined, { terminal }: Run): Promise<void> {
  const summary = summarize(settings.task.metric, rows);
  await terminal.out(json ? reportJson(summary, settings) : reportText(summary, settings));
  if (summary.failed === 0) return;
  const first = rows.reduce<Row | undefined>(
    (least, row) => (row.error && !(least && least.index < row.index) ? row : least),
    undefined,
  );
  const example = `the first: ${JSON.stringify(first?.id)}: ${first?.error?.message}`;
  say(terminal, `${summary.failed} of ${rows.length} questions failed and are not in the score; ${example}`);
}

/** The file of predictions, its settings written or found to be the same, and what it holds already. */
async function openOut(
  { out: name, resume = false }: Evaluation,
  settings: Settings,
): Promise<{ out: OutFile | undefined; rows: Row[] }> {
  if (name === undefined) return { out: undefined, rows: [] };
  const reader = new PartReader(`--out ${name}`);
  const out = await OutFile.open(name, resume, (text) => reader.add(text));
  try {
    const part = reader.part();
    if (!part) await out.write(headerLine(settings));
    else {
      const { i, n } = part.settings.shard;
      const sameShard = i === settings.shard.i && n === settings.shard.n;
      const other = sameShard ? difference(part.settings, settings) : "shard";
      if (other) {
        const hint = "--resume goes on with the same run only; give another --out";
        throw new InputError("RESUME_MISMATCH", `--out ${name} is of another run: they differ in ${other}`, { hint });
      }
    }
    return { out, rows: [...(part?.rows ?? [])] };
  } catch (error) {
    await out.close();
    throw error;
  }
}

async function answer(
  model: VisionLanguageModel,
  processor: AnyProcessor,
  { generation, metric, ranking }: Task,
  { image, prompt, candidates = [], right = [] }: Item,
  base: string,
  signal: AbortSignal,
): Promise<{ prediction: string; scores?: readonly number[]; right?: readonly number[] }> {
  const pictures = [];
  for (const file of typeof image === "string" ? [image] : image) {
    pictures.push(await readNamedImage(file, { base, signal }));
  }
  const inputs = await prepareInputs(processor, model.config, pictures, [prompt]);
  if (!ranking) {
    const [row] = await model.generate({ ...inputs, ...generation, ...ANSWER, signal });
    return { prediction: processor.tokenizer.decode(row, { skip_special_tokens: true }).trim() };
  }
  const { reduction, eos, segment_size } = ranking;
  const [{ ranks, sums, means }] = await model.rank_answers({
    ...inputs,
    candidates: candidateIds(processor.tokenizer, candidates.flat(), eos ?? undefined),
    groups: candidates.flatMap((texts, group) => texts.map(() => group)),
    reduction,
    ...(segment_size === null ? {} : { segment_size }),
    signal,
  });
  const prediction = candidates[ranks[0]][0];
  const needed = (METRICS[metric] as Metric).candidates !== undefined;
  return needed ? { prediction, scores: reduction === "sum" ? sums : means, right } : { prediction };
}
