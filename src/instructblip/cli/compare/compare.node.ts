/** `compare`: two traces, each from a file or of a model that is loaded for it, tensor by tensor. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Comparison, compareTraces } from "../../compare/comparison.ts";
import { comparisonJson } from "../../compare/json.ts";
import type { LiveTrace } from "../../compare/live_trace.ts";
import { comparisonPage } from "../../compare/page.ts";
import type { Precision } from "../../compare/precision.ts";
import type { Given, Setting } from "../../compare/setting.ts";
import { equalLine, findingLines, statisticsTable, tableOf, topRows, wrongRows } from "../../compare/summary.ts";
import { moduleOf, splitRun, type Trace } from "../../compare/trace.ts";
import { EXIT, formatTable } from "../format.ts";
import { checkOuts, writeOut } from "../requests/out_file.node.ts";
import type { Run } from "../session.node.ts";
import { Progress } from "../terminal.node.ts";
import { bisectPrecision, matricesOf, precisionText, replacementsOf } from "./bisect.node.ts";
import { openLiveTrace, type Question } from "./live.node.ts";
import { FileTrace, writeTrace } from "./trace_file.node.ts";

export interface CompareCommandOptions extends Partial<Question> {
  tolerance: number;
  /** Rows of the table; 0: all. */
  top?: number;
  filter?: RegExp;
  statistics?: boolean;
  /** A file; - for stdout. */
  json?: string;
  /** A file. */
  html?: string;
  /** Gives every module of B the inputs of A. */
  bisect?: boolean;
  /** NMSE of the logits that B's dtype is to meet. */
  gate?: number;
}

/** @returns the exit code: 0 equal, or the gate is met; 3 different */
export async function runCompare(
  given: readonly [Given, Given],
  options: CompareCommandOptions,
  run: Run,
): Promise<number> {
  await checkOuts({ "--json": options.json, "--html": options.html });
  const { model = "", image = "", prompt = "" } = options;
  const question = { ...options, model, image, prompt };
  const scratch = await mkdtemp(join(tmpdir(), "instructblip-compare-"));
  const [a, b] = given;
  const { gate } = options;
  try {
    return await withReference(a, question, scratch, run, async (reference) => {
      if (gate !== undefined && !("file" in b))
        return compareGated(b, gate, reference, options, question, scratch, run);
      const comparison = await withTrace(b, question, run, options.bisect ? reference : undefined, (trace) =>
        compared(reference, trace, options, run),
      );
      await report(comparison, options, run);
      return wrongRows(comparison).length > 0 ? EXIT.different : EXIT.ok;
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The same of modules by themselves, and whether a dtype meets a gate. */
async function compareGated(
  setting: Setting,
  gate: number,
  reference: FileTrace,
  options: CompareCommandOptions,
  question: Question,
  scratch: string,
  run: Run,
): Promise<number> {
  const matrices = await matricesOf(setting, question, run);
  const path = join(scratch, "b.safetensors");
  const comparison = await withLiveTrace(setting, question, run, reference, async (trace) => {
    const all = await compared(reference, trace, options, run);
    await writeTrace(path, trace, (name) => matrices.has(name));
    return all;
  });
  const outputs = await FileTrace.open(path);
  try {
    const given = { nmse: gate, matrices, comparison, outputs };
    const precision = await bisectPrecision(setting, given, reference, question, run);
    await report(comparison, options, run, precision);
    if (options.json !== "-") await run.terminal.out(`\n${precisionText(precision, setting)}`);
    return precision.before <= gate ? EXIT.ok : EXIT.different;
  } finally {
    await outputs.close();
  }
}

async function compared(
  reference: FileTrace,
  trace: Trace,
  { tolerance, filter, bisect = false }: CompareCommandOptions,
  { signal, terminal }: Run,
): Promise<Comparison> {
  const progress = new Progress(terminal);
  try {
    return await compareTraces(reference, trace, {
      tolerance,
      byItself: bisect,
      ...(filter && { isWanted: (name: string) => pathsOf(name).some((path) => filter.test(path)) }),
      onRow: (done, total) => progress.show(`comparing … ${done} of ${total} tensors`),
      signal,
    });
  } finally {
    progress.clear();
  }
}

/** `input:a.b#2` -> `a.b#2` and `a.b`: what a pattern of modules may mean. */
function pathsOf(name: string): string[] {
  const path = moduleOf(name);
  return [path, splitRun(path)[0]];
}

/** Opens the first trace. A live one goes through a file, so that one model is loaded at a time. */
async function withReference<T>(
  given: Given,
  question: Question,
  scratch: string,
  run: Run,
  use: (reference: FileTrace) => Promise<T>,
): Promise<T> {
  let file: FileTrace;
  if ("file" in given) file = await FileTrace.open(given.file);
  else {
    const path = join(scratch, "a.safetensors");
    const { trace, close } = await openLiveTrace(given, question, run);
    try {
      await writeTrace(path, trace);
    } finally {
      close();
    }
    file = await FileTrace.open(path, given.text);
  }
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/** Opens the second trace. @param reference whose tensors a live one goes on with */
async function withTrace<T>(
  given: Given,
  question: Question,
  run: Run,
  reference: FileTrace | undefined,
  use: (trace: Trace) => Promise<T>,
): Promise<T> {
  if ("file" in given) {
    const file = await FileTrace.open(given.file);
    try {
      return await use(file);
    } finally {
      await file.close();
    }
  }
  return withLiveTrace(given, question, run, reference, use);
}

async function withLiveTrace<T>(
  setting: Setting,
  question: Question,
  run: Run,
  reference: FileTrace | undefined,
  use: (trace: LiveTrace) => Promise<T>,
): Promise<T> {
  const details = reference ? { replace: replacementsOf(reference) } : {};
  const { trace, close } = await openLiveTrace(setting, question, run, details);
  try {
    return await use(trace);
  } finally {
    close();
  }
}

async function report(
  comparison: Comparison,
  options: CompareCommandOptions,
  { terminal }: Run,
  precision?: Precision,
): Promise<void> {
  const { json, html, statistics, top } = options;
  if (html !== undefined) await writeOut("--html", html, comparisonPage(comparison, precision));
  if (json === "-") return terminal.out(comparisonJson(comparison, precision));
  if (json !== undefined) await writeOut("--json", json, comparisonJson(comparison, precision));
  const isEqual = wrongRows(comparison).length === 0;
  await terminal.out(isEqual ? equalLine(comparison) : `${findingLines(comparison).join("\n")}\n`);
  if (isEqual && top === undefined && !statistics) return;
  const rows = topRows(comparison, top ?? TOP);
  await terminal.out(
    `\n${formatTable(tableOf(comparison, rows), comparison.byItself ? [1, 2, 4, 5, 6] : [1, 2, 3, 4, 6, 7, 8])}`,
  );
  if (rows.length < comparison.rows.length) {
    await terminal.out(
      `(${rows.length} of ${comparison.rows.length}: those that ${comparison.byItself ? "differ" : "add"} most; --top 0 shows all)\n`,
    );
  }
  if (statistics) await terminal.out(`\n${formatTable(statisticsTable(rows), [3, 4, 5, 6, 7, 8, 9])}`);
}

/** Default number of rows. */
const TOP = 20;
