/** `generate --requests`: many answers, with the model loaded once. */
import { constants, createReadStream } from "node:fs";
import { access, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { performance } from "node:perf_hooks";
import type { Readable } from "node:stream";
import { formatStorage } from "../../../modules/storage_dtype.ts";
import { InputError } from "../../../tensor/errors.ts";
import { type DataSet, openDataSet } from "../../data/data_set.node.ts";
import { onlyJsonl } from "../../data/format.ts";
import { type Shard, sizeOf } from "../../evaluation/shards.ts";
import { checkDecoding } from "../../generation/configuration.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import { candidateIds } from "../../generation/ranking.ts";
import { checkModelDownload } from "../../pretrained/auto_model.ts";
import { type AnyProcessor, AutoProcessor } from "../../pretrained/auto_processor.ts";
import type { InstructBlipInputs } from "../../pretrained/instructblip.ts";
import type { ModelFolder } from "../../pretrained/model_folder.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { openModelFolder } from "../folder.node.ts";
import {
  describeError,
  EXIT,
  endsRun,
  formatDuration,
  gravest,
  isWorthARetry,
  OF_SHARED_OPTIONS,
  Pace,
  progressText,
} from "../format.ts";
import { loadModel, loadOptions, prepareInputs, type Run } from "../session.node.ts";
import { Progress, say, sayStack } from "../terminal.node.ts";
import { Stopwatch } from "../timing.ts";
import { ahead, windows } from "./ahead.ts";
import { AHEAD, answerTogether, BATCH_SIZE, inOrder, type Job } from "./batches.ts";
import { checkPrompt, columnsOfRows, type DataOptions, namesColumns, requestsOf, rowsOfLines } from "./data_rows.ts";
import { ImageReader, workersFor } from "./image_workers.node.ts";
import { checkAssistant, loadAssistant, type ModelOptions } from "./models.node.ts";
import { OutFile } from "./out_file.node.ts";
import { identityOf } from "./predictions.node.ts";
import { reopening } from "./reopening.node.ts";
import { type Line, type ParsedLine, PreviousRun, parseLine, type RequestId, splitLines } from "./requests.ts";
import { type Failure, type RankedResult, type Result, resultOf } from "./result.ts";
import { isJsonlOfRows } from "./row_files.node.ts";
import { checkSameRun, type RunSettings } from "./run_settings.ts";
import { type Stats, statsOn } from "./stats.ts";
export interface Questions extends ModelOptions, DataOptions {
  /** A file of requests, a data set, or `-`. */
  readonly requests: string;
  /** Of rows that are no requests: the template of prompts, and options of generation. */
  readonly prompt?: string;
  readonly generation?: GenerationOptions;
  /** The shard of the requests to answer. */
  readonly shard?: Shard;
  /** The output file instead of stdout. */
  readonly out?: string;
  /** Resume `out`. */
  readonly resume?: boolean;
  /** Batch size in rows, at most. */
  readonly batchSize?: number;
  /** Threads that decode and resize images. */
  readonly workers?: number;
  /** Print how busy the device was. */
  readonly stats?: boolean;
  /** The program's version. */
  readonly version: string;
}

interface Loaded {
  readonly model: VisionLanguageModel;
  readonly assistant: VisionLanguageModel | undefined;
  readonly processor: AnyProcessor;
  readonly load_ms: number;
}

/** Answers every request, one line for each. @returns the exit code */
export async function runRequests(questions: Questions, run: Run): Promise<number> {
  const path = questions.requests;
  const isReadable = path === "-" || (await isReadableFile(path));
  const set = isReadable && path !== "-" ? await openDataSet(path, questions.split) : undefined;
  try {
    return await answerRequests(questions, set, run);
  } finally {
    await set?.close();
  }
}

async function answerRequests(questions: Questions, set: DataSet | undefined, run: Run): Promise<number> {
  const { requests: path, model: modelPath, dtype, shard = { i: 0, n: 1 }, resume = false } = questions;
  const { terminal, signal } = run;
  const isFile = set !== undefined || (path !== "-" && (await isRegularFile(path)));
  const lines = set ? set.count : isFile ? await countLines(path) : undefined;
  const hasRows = namesColumns(questions) || (set === undefined && isFile && (await isJsonlOfRows(path)));
  if (questions.prompt !== undefined && (set !== undefined || (isFile && hasRows))) {
    const rows = set?.rows() ?? rowsOfLines(splitLines(createReadStream(path)));
    checkPrompt(path, questions.prompt, questions, await columnsOfRows(rows, set?.columns));
  }
  // Options of the command line are those of every row; lines have their own.
  const sharesOptions = Object.keys(questions.generation ?? {}).length > 0;
  checkDecoding(questions.generation ?? {}, questions.assistant !== undefined);
  const start = performance.now();
  const folder = await openModelFolder(modelPath, run);
  await checkAssistant(questions, await folder.config(), run);
  const processor = await AutoProcessor.from_pretrained(folder);
  if (questions.out !== undefined) await checkModelDownload(folder, dtype);
  const previous = new PreviousRun(`--out ${questions.out}`);
  const settings = questions.out === undefined ? undefined : await settingsOf(questions, shard, isFile, folder);
  const out = questions.out === undefined ? undefined : await OutFile.open(questions.out, resume, previous.add, run);
  try {
    if (settings) checkSameRun(`--out ${questions.out}`, previous.runs, settings);
    out?.leaveOut(previous.again);
  } catch (error) {
    await out?.close();
    throw error;
  }
  if (previous.done > 0 && previous.runs.length === 0) {
    say(terminal, `warning: --out ${questions.out} does not say of which run it is: its settings are not compared`);
  }
  const total = lines === undefined ? undefined : Math.max(0, sizeOf(shard, lines) - previous.done);
  let model: VisionLanguageModel | undefined;
  let assistant: VisionLanguageModel | undefined;
  let loading: Promise<Loaded> | undefined;
  let stats: Stats | undefined;
  const load = async () => {
    model = await loadModel(folder, dtype, run, {
      ...loadOptions(questions),
      image_cache: AHEAD * Math.max(size, BATCH_SIZE),
    });
    assistant = await loadAssistant(questions, model, run);
    if (questions.stats) stats = statsOn(model.device, stats);
    return { model, assistant, processor, load_ms: performance.now() - start };
  };
  const loadOnce = () => {
    loading ??= load();
    return loading;
  };
  /** Disposes the model, which `loadOnce` loads again. */
  const release = () => {
    model?.dispose();
    model = loading = undefined;
  };
  const base = set?.base ?? (isFile ? dirname(path) : process.cwd());
  // A program that writes requests to a pipe may wait for an answer before the next one.
  const size = questions.batchSize ?? (isFile ? BATCH_SIZE : 1);
  const progress = new Progress(terminal);
  const counts = { done: 0, failed: 0, again: 0 };
  let exit: number = previous.failed ? EXIT.someFailed : EXIT.ok;
  // Of a pipe, no request is read before the one before it is answered.
  const workers = isFile ? workersFor(total, questions.workers) : 0;
  const images = new ImageReader(processor, base, workers, signal);
  let input: Readable | undefined;
  const stop = () => input?.destroy();
  const pace = new Pace();
  let begun = performance.now();
  try {
    // A run with nothing left to do needs no model; otherwise its errors are thrown at the start.
    if (!resume) await reopening(run, loadOnce, release);
    begun = performance.now();
    input = set ? undefined : path === "-" ? process.stdin : createReadStream(path);
    signal.addEventListener("abort", stop);
    progress.show(total === undefined ? "waiting for requests …" : `0 of ${total}`);
    let wrote = false;
    const write = async (line: Result | RankedResult | Failure) => {
      if (out) {
        // The first line that a run writes has its settings.
        await out.write(`${JSON.stringify(wrote ? line : { ...line, run: settings })}\n`);
        wrote = true;
        return;
      }
      const text = `${JSON.stringify(line)}\n`;
      if (terminal.outIsTerminal) progress.clear();
      await terminal.out(text);
    };
    /** The requests of this shard that an earlier run has not answered. */
    const unanswered = async function* () {
      let position = 0;
      for await (const parsed of parsedRequests(questions, set, hasRows, input && linesOf(path, input))) {
        signal.throwIfAborted();
        const isOwn = position % shard.n === shard.i;
        if (isOwn && !previous.claim(parsed.id, position)) yield { ...parsed, position };
        position++;
      }
    };
    const more = unanswered();
    /** Requests that were read and have no line yet: a reopened device answers them again. */
    const held: (Parsed & { readonly position: number })[] = [];
    const rest = async function* () {
      yield* [...held];
      for (let next = await more.next(); !next.done; next = await more.next()) {
        held.push(next.value);
        yield next.value;
      }
    };
    const told = new Set<string>();
    const warn = ({ id }: RequestJob, warning: string) => {
      if (told.has(warning)) return;
      told.add(warning);
      progress.clear();
      const whose = sharesOptions || id === null ? "" : `request ${JSON.stringify(id)}: `;
      say(terminal, `warning: ${whose}${warning}`);
    };
    const asked = { images, size, depth: workers === 0 ? 0 : AHEAD * size, load: loadOnce, warn };
    let ended: Failure | undefined;
    /** Writes the output lines, in the order of the requests. */
    const answerRest = async (progressed: () => void) => {
      ended = undefined;
      for await (const { id, result, error } of inOrder(answerAll(rest(), asked, run))) {
        let line = result;
        const { position } = held[0]!;
        let isPlaced = previous.isPlaced(position);
        if (error !== undefined) {
          const { code, message, exitCode } = describeError(error);
          isPlaced ||= isWorthARetry(code);
          line = { id, error: { code, message: (message ?? code).replace(/^error: /, "") } };
          if (endsRun(error)) {
            ended = line;
            throw error;
          }
          if (sharesOptions && OF_SHARED_OPTIONS.has(code) && counts.failed === counts.done) throw error;
          sayStack(terminal, error);
          counts.failed++;
          if (exitCode === EXIT.retry) counts.again++;
          exit = gravest(exit, exitCode);
        }
        await write(out && id === null && isPlaced ? { ...line!, position } : line!);
        held.shift();
        counts.done++;
        progressed();
        const left = total === undefined ? undefined : pace.left(counts.done, total);
        progress.show(progressText(counts, total, performance.now() - begun, left));
      }
    };
    try {
      await reopening(run, answerRest, release);
    } catch (error) {
      // In a file the request that the run ended with is left for a resumed run; a reader of a pipe is told.
      if (ended && !out) await write(ended);
      throw error;
    }
    signal.throwIfAborted();
  } catch (error) {
    signal.throwIfAborted(); // the aborted stream's error is less specific
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
    progress.clear();
    input?.destroy();
    await images.close();
    await loading?.catch(() => {});
    assistant?.dispose();
    model?.dispose();
    await out?.close();
  }
  if (stats) say(terminal, stats.text(counts.done));
  const failed = counts.failed + previous.failed;
  const before = previous.done ? `, ${previous.done} before` : "";
  if (failed) {
    const again = out && counts.again > 0 ? `; --resume asks ${counts.again} again that may succeed later` : "";
    say(terminal, `${failed} of ${counts.done + previous.done} requests failed; their lines say why${again}`);
  } else if (terminal.errIsTerminal)
    say(terminal, `${counts.done} answered in ${formatDuration(performance.now() - begun)}${before}`);
  return exit;
}

async function settingsOf(
  { split, idColumn, imageColumn, questionColumn, answerColumn, ...questions }: Questions,
  shard: Shard,
  isFile: boolean,
  folder: ModelFolder,
): Promise<RunSettings> {
  const { requests, assistant, prompt, generation = {}, version } = questions;
  return {
    version,
    model_sha256: await identityOf(folder),
    dtype: formatStorage(questions.dtype),
    fix_vicuna_token_ids: questions.fixVicunaTokenIds ?? false,
    compute_dtype: questions.computeDtype ?? "f32",
    kv_cache_dtype: questions.kvCacheDtype ?? "f32",
    assistant: assistant === undefined ? undefined : basename(assistant),
    requests: isFile ? basename(requests) : undefined,
    prompt,
    generation,
    shard,
    ...{ split, idColumn, imageColumn, questionColumn, answerColumn },
  };
}

type Parsed = ParsedLine;

/** The requests of a data set, or of lines. */
async function* parsedRequests(
  { requests, generation = {}, ...options }: Questions,
  set: DataSet | undefined,
  hasRows: boolean,
  lines: AsyncIterable<Line> | undefined,
): AsyncGenerator<Parsed> {
  if (set || hasRows) {
    yield* requestsOf(requests, set ? set.rows() : rowsOfLines(lines!), { ...options, generation }, set);
    return;
  }
  for await (const line of lines!) {
    const parsed = parseLine(line);
    if (parsed) yield parsed;
  }
}

interface Answered {
  readonly position: number;
  readonly id: RequestId;
  readonly result?: Result | RankedResult | Failure;
  readonly error?: unknown;
}

interface Asked {
  readonly images: ImageReader;
  /** Batch size in rows. */
  readonly size: number;
  /** Requests that are prepared beyond those that are answered. */
  readonly depth: number;
  readonly load: () => Promise<Loaded>;
  /** Told each warning once, with the first request that has it. */
  readonly warn: (job: RequestJob, warning: string) => void;
}

type RequestJob = Job & Pick<Answered, "position" | "id"> & { readonly watch: Stopwatch };

/** Answers requests in batches; yields them as they are done. */
async function* answerAll(
  requests: AsyncIterable<Parsed>,
  { images, size, depth, load, warn }: Asked,
  { signal }: Run,
): AsyncGenerator<Answered> {
  let next = 0;
  const prepare = async ({ id, request, error }: Parsed) => {
    const position = next++;
    try {
      if (!request) throw error;
      const { prompts, generation, candidates, interventions } = request;
      const { processor, model, assistant } = await load();
      const watch = new Stopwatch(prompts.length);
      const read = await Promise.all(
        request.images.map((one) => Promise.all([one].flat().map((image) => images.read(image)))),
      );
      const given = request.images.some(Array.isArray) ? read : read.flat();
      const inputs = await prepareInputs(processor, model.config, given, prompts);
      watch.preprocessed();
      const options = assistant ? { assistant_model: assistant, ...generation } : generation;
      const job: RequestJob = { inputs, options, interventions, position, id, watch };
      return { job, candidates };
    } catch (error) {
      return { position, id, error };
    }
  };
  const limit = { rows: size };
  for await (const window of windows(ahead(requests, depth, prepare), size === 1 ? 1 : AHEAD * size, size)) {
    const jobs: RequestJob[] = [];
    for (const one of window) {
      signal.throwIfAborted();
      if (images.failure) throw images.failure.error;
      if (!one.job) yield one;
      else if (!one.candidates) jobs.push(one.job);
      else yield await rankJob(one.job, one.candidates);
    }
    if (jobs.length === 0) continue;
    const { model, processor, load_ms } = await load();
    const hooks = { signal, tokenizer: processor.tokenizer, load_ms, warn };
    for await (const outcome of answerTogether(model, jobs, limit, ({ watch }) => watch, hooks)) {
      const { position, id } = outcome.job;
      if ("error" in outcome) yield { position, id, error: outcome.error };
      else yield { position, id, result: resultOf(processor, id, outcome.answer) };
    }
  }

  async function rankJob({ position, id, inputs, watch }: RequestJob, candidates: readonly (readonly string[])[]) {
    try {
      return { position, id, result: await rankAnswers(await load(), id, inputs, candidates, watch, signal) };
    } catch (error) {
      signal.throwIfAborted();
      return { position, id, error };
    }
  }
}

async function rankAnswers(
  { model, processor, load_ms }: Loaded,
  id: RequestId,
  inputs: InstructBlipInputs,
  texts: readonly (readonly string[])[],
  watch: Stopwatch,
  signal: AbortSignal,
): Promise<RankedResult> {
  watch.generating();
  const candidates = texts.map((list) => candidateIds(processor.tokenizer, list));
  const answers = await model.rank_answers({ ...inputs, candidates, signal });
  const timing = watch.read(load_ms);
  const ranked = answers.map(({ sums, means, ranks }, b) =>
    ranks.map((c) => ({ text: texts[b]![c]!, sum: sums[c]!, mean: means[c]! })),
  );
  return { id, ranked, text: ranked.map(([best]) => best!.text), timing };
}

/** Whether a path is a file or a folder, not a pipe. @throws InputError NOT_FOUND, IO */
async function isReadableFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new InputError("NOT_FOUND", `--requests ${path}: no such file`);
  await access(path, constants.R_OK).catch(() => {
    throw new InputError("IO", `--requests ${path}: no permission to read it`);
  });
  return found.isFile() || found.isDirectory();
}

/** Whether a file is regular; false for a pipe, such as the shell's `<(…)`. */
const isRegularFile = async (path: string) => (await stat(path)).isFile();

function linesOf(path: string, input: Readable): AsyncGenerator<Line> {
  const hint = "such data is read from files: give the file's name";
  return splitLines(onlyJsonl(`--requests ${path}`, input, hint));
}

/** Counts lines that are not blank, for the progress. */
async function countLines(path: string): Promise<number> {
  let lines = 0;
  for await (const { bytes } of splitLines(createReadStream(path))) {
    if (!bytes || bytes.some((byte) => byte > 32)) lines++;
  }
  return lines;
}
