/** `compare`: two traces, each from a file or of a model that is loaded for it, tensor by tensor. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CompareOptions, type Comparison, compareTraces } from "../../compare/comparison.ts";
import { comparisonJson } from "../../compare/json.ts";
import type { LiveTrace } from "../../compare/live_trace.ts";
import { comparisonPage } from "../../compare/page.ts";
import type { Precision } from "../../compare/precision.ts";
import type { Given } from "../../compare/setting.ts";
import { equalLine, findingLines, statisticsTable, tableOf, topRows, wrongRows } from "../../compare/summary.ts";
import type { Trace } from "../../compare/trace.ts";
import { EXIT, formatTable } from "../format.ts";
import { checkOut } from "../requests/out_file.node.ts";
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

/** @returns the exit code: 0 equal, or the gate is met; 1 different */
export async function runCompare(
  given: readonly [Given, Given],
  options: CompareCommandOptions,
  run: Run,
): Promise<number> {
  if (options.json !== undefined && options.json !== "-") await checkOut(options.json, "--json");
  if (options.html !== undefined) await checkOut(options.html, "--html");
  const { model = "", image = "", prompt = "", gate } = options;
  const question = { ...options, model, image, prompt };
  const scratch = await mkdtemp(join(tmpdir(), "instructblip-compare-"));
  const progress = new Progress(run.terminal);
  try {
    return await withReference(given, question, scratch, run, async (a) => {
      const b = given[1];
      const matrices = gate !== undefined && !("file" in b) ? await matricesOf(b, question, run) : undefined;
      const outputs = join(scratch, "b.safetensors");
      const comparison = await withTrace(b, question, run, options.bisect ? a : undefined, async (trace) => {
        const compared = await compareTraces(a, trace, compareOptions(options, run, progress));
        if (matrices) await writeTrace(outputs, trace as LiveTrace, (name) => matrices.has(name));
        return compared;
      });
      progress.clear();
      if (gate === undefined || !matrices || "file" in b) {
        await report(comparison, options, run);
        return wrongRows(comparison).length > 0 ? EXIT.refused : EXIT.ok;
      }
      const file = await FileTrace.open(outputs);
      try {
        const given = { nmse: gate, matrices, comparison, outputs: file };
        const precision = await bisectPrecision(b, given, a, question, run);
        await report(comparison, options, run, precision);
        if (options.json !== "-") await run.terminal.out(`\n${precisionText(precision, b)}`);
        return precision.before <= gate ? EXIT.ok : EXIT.refused;
      } finally {
        await file.close();
      }
    });
  } finally {
    progress.clear();
    await rm(scratch, { recursive: true, force: true });
  }
}

function compareOptions(
  { tolerance, filter, bisect }: CompareCommandOptions,
  { signal }: Run,
  progress: Progress,
): CompareOptions {
  return {
    tolerance,
    byItself: bisect ?? false,
    ...(filter && { isWanted: (name: string) => filter.test(name) }),
    onRow: (done, total) => progress.show(`comparing … ${done} of ${total} tensors`),
    signal,
  };
}

/** Opens the first trace. A live one goes through a file, so that one model is loaded at a time. */
async function withReference<T>(
  [given]: readonly [Given, Given],
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
  const details = reference ? { replace: replacementsOf(reference) } : {};
  const { trace, close } = await openLiveTrace(given, question, run, details);
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
  if (html !== undefined) await writeFile(html, comparisonPage(comparison));
  if (json === "-") return terminal.out(comparisonJson(comparison, precision));
  if (json !== undefined) await writeFile(json, comparisonJson(comparison, precision));
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
