/** `compare`: two traces, each from a file or of a model that is loaded for it, tensor by tensor. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CompareOptions, type Comparison, compareTraces } from "../../compare/comparison.ts";
import { comparisonJson } from "../../compare/json.ts";
import { comparisonPage } from "../../compare/page.ts";
import type { Given } from "../../compare/setting.ts";
import { equalLine, findingLines, statisticsTable, tableOf, topRows, wrongRows } from "../../compare/summary.ts";
import type { Trace } from "../../compare/trace.ts";
import { EXIT, formatTable } from "../format.ts";
import { checkOut } from "../requests/out_file.node.ts";
import type { Run } from "../session.node.ts";
import { Progress } from "../terminal.node.ts";
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
}

/** @returns the exit code: 0 equal, 1 different */
export async function runCompare(
  given: readonly [Given, Given],
  options: CompareCommandOptions,
  run: Run,
): Promise<number> {
  if (options.json !== undefined && options.json !== "-") await checkOut(options.json, "--json");
  if (options.html !== undefined) await checkOut(options.html, "--html");
  const { model = "", image = "", prompt = "" } = options;
  const question = { ...options, model, image, prompt };
  const scratch = await mkdtemp(join(tmpdir(), "instructblip-compare-"));
  const progress = new Progress(run.terminal);
  try {
    const comparison = await withTraces(given, question, scratch, run, (traces) =>
      compareTraces(...traces, compareOptions(options, run, progress)),
    );
    progress.clear();
    await report(comparison, options, run);
    return wrongRows(comparison).length > 0 ? EXIT.refused : EXIT.ok;
  } finally {
    progress.clear();
    await rm(scratch, { recursive: true, force: true });
  }
}

function compareOptions(
  { tolerance, filter }: CompareCommandOptions,
  { signal }: Run,
  progress: Progress,
): CompareOptions {
  return {
    tolerance,
    ...(filter && { isWanted: (name: string) => filter.test(name) }),
    onRow: (done, total) => progress.show(`comparing … ${done} of ${total} tensors`),
    signal,
  };
}

/** Opens both traces. Of two that are live the first goes through a file, so that one model is loaded at a time. */
async function withTraces<T>(
  [a, b]: readonly Given[],
  question: Question,
  scratch: string,
  run: Run,
  use: (traces: readonly [Trace, Trace]) => Promise<T>,
): Promise<T> {
  const closing: (() => void | Promise<void>)[] = [];
  const open = async (given: Given, intoFile: boolean): Promise<Trace> => {
    if ("file" in given) {
      const trace = await FileTrace.open(given.file);
      closing.push(() => trace.close());
      return trace;
    }
    const { trace, close } = await openLiveTrace(given, question, run);
    if (!intoFile) {
      closing.push(close);
      return trace;
    }
    const path = join(scratch, "a.safetensors");
    try {
      await writeTrace(path, trace);
    } finally {
      close();
    }
    const file = await FileTrace.open(path, given.text);
    closing.push(() => file.close());
    return file;
  };
  try {
    const traces = [await open(a!, !("file" in b!)), await open(b!, false)] as const;
    return await use(traces);
  } finally {
    for (const close of closing) await close();
  }
}

async function report(comparison: Comparison, options: CompareCommandOptions, { terminal }: Run): Promise<void> {
  const { json, html, statistics, top } = options;
  if (html !== undefined) await writeFile(html, comparisonPage(comparison));
  if (json === "-") return terminal.out(comparisonJson(comparison));
  if (json !== undefined) await writeFile(json, comparisonJson(comparison));
  const isEqual = wrongRows(comparison).length === 0;
  await terminal.out(isEqual ? equalLine(comparison) : `${findingLines(comparison).join("\n")}\n`);
  if (isEqual && top === undefined && !statistics) return;
  const rows = topRows(comparison, top ?? TOP);
  await terminal.out(`\n${formatTable(tableOf(rows), [1, 2, 3, 4, 6, 7, 8])}`);
  if (rows.length < comparison.rows.length) {
    await terminal.out(`(${rows.length} of ${comparison.rows.length}: those that add most; --top 0 shows all)\n`);
  }
  if (statistics) await terminal.out(`\n${formatTable(statisticsTable(rows), [3, 4, 5, 6, 7, 8, 9])}`);
}

/** Default number of rows. */
const TOP = 20;
