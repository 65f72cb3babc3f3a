/**
 * The work of `npm run bench:dataset`: a data set as a user's command answers it, before and after batches and threads. Method:
 *
 * - The command line as it is packed, in a process of its own for each run; the time is `--stats`'s, which begins when the model is
 *   loaded. Kernels are compiled before, by a run that does not count.
 * - The questions are cut into parts. All settings answer a part before the next one begins, each time in another order, so that
 *   other load on the machine affects them alike. Medians of the parts; ratios are of the same part.
 * - The device is busy from a submit until the main thread learns that all is done. While the main thread works it learns nothing,
 *   so that the share is at most that: a device may have been done earlier.
 * - Decoding and resizing are also measured alone, without a device: what they take of the main thread is what a device waits for.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { EXIT, Interrupted } from "../../src/instructblip/cli/format.ts";
import { ImageReader } from "../../src/instructblip/cli/requests/image_workers.node.ts";
import { parseStats } from "../../src/instructblip/cli/requests/stats.ts";
import { processTerminal } from "../../src/instructblip/cli/terminal.node.ts";
import { AutoProcessor } from "../../src/instructblip/pretrained/auto_processor.ts";
import { readRowsOf, writeWhole } from "../files.ts";
import { describeMachine, openBenchDevice, root } from "../machine.ts";
import { programFile } from "../program.ts";
import { type Machine, slug } from "../rows.ts";
import { writeQuestions } from "./questions.ts";
import {
  type DataRow,
  type ImagesRow,
  parseDataRows,
  type RunRow,
  renderData,
  replaceDataInDocs,
  SETTINGS,
  type Setting,
} from "./results.ts";

const MODEL = join(root, "examples/shapes/checkpoint");
const NEW_TOKENS = 40;
const TASK = { prompt: "{question}", generation: { max_new_tokens: NEW_TOKENS }, metric: "exact_match" };
/** Images that are decoded alone. */
const MOST_ALONE = 100;

export interface Options {
  readonly questions: number;
  readonly parts: number;
  readonly command: RunRow["command"];
  readonly workers: number | undefined;
  readonly keep: string | undefined;
  readonly json: string | undefined;
}

/** @returns the exit code @throws Error if answers differ; Interrupted */
export async function run(options: Options): Promise<number> {
  const stopping = new AbortController();
  const stop = (exitCode: number) => () => stopping.abort(new Interrupted(exitCode));
  const onSignal = { SIGINT: stop(EXIT.sigint), SIGTERM: stop(EXIT.sigterm) };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, onSignal[signal]);
  processTerminal((reason) => stopping.abort(reason));
  const folder =
    options.keep === undefined ? mkdtempSync(join(tmpdir(), "instructblip-dataset-")) : resolve(options.keep);
  try {
    return await measure(options, folder, stopping.signal);
  } finally {
    if (options.keep === undefined) rmSync(folder, { recursive: true, force: true });
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, onSignal[signal]);
  }
}

async function measure(options: Options, folder: string, signal: AbortSignal): Promise<number> {
  const { questions, parts, command, json } = options;
  const begun = performance.now();
  const say = (text: string) =>
    console.error(`${((performance.now() - begun) / 1000).toFixed(0).padStart(4)} s  ${text}`);
  const workers = options.workers ?? Math.max(1, Math.min(8, availableParallelism() - 1));
  const env = { ...process.env };
  const machine = await machineOf();
  const program = builtProgram(say);
  say(`making ${questions} images …`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "task.json"), JSON.stringify(TASK));
  const made = await writeQuestions(folder, questions, parts, () => signal.throwIfAborted());
  const rows: DataRow[] = await measureImages(made.images.slice(0, MOST_ALONE), folder, workers, machine, signal);
  for (const row of rows as ImagesRow[]) {
    say(`images alone, ${row.workers} threads: ${row.main_ms.toFixed(2)} ms of the main thread each`);
  }
  const flags: Readonly<Record<Setting, readonly string[]>> = {
    "one by one": ["--batch-size", "1", "--workers", "0"],
    batches: ["--workers", "0"],
    "batches, threads": ["--workers", String(workers)],
  };
  const answer = async (file: string, setting: Setting) => {
    const out = join(folder, "answers.jsonl");
    rmSync(out, { force: true });
    const args = [...argumentsOf(command, file, folder), ...flags[setting], "--out", out, "--stats"];
    const stats = parseStats(await runProgram(program, args, env, signal));
    if (!stats) throw new Error(`${setting}: --stats printed no figures`);
    return { stats, answers: answersIn(out, command) };
  };
  const few = join(folder, "few.jsonl");
  writeFileSync(few, readFileSync(made.files[0], "utf8").split("\n").slice(0, 16).join("\n"));
  say("compiling kernels …");
  for (const setting of SETTINGS.slice(0, 2)) await answer(few, setting);
  for (const [part, file] of made.files.entries()) {
    let expected: readonly string[] | undefined;
    for (let turn = 0; turn < SETTINGS.length; turn++) {
      const setting = SETTINGS[(part + turn) % SETTINGS.length];
      const { stats, answers } = await answer(file, setting);
      expected ??= answers;
      const differs = answers.findIndex((one, i) => one !== expected![i]);
      if (differs >= 0 || answers.length !== expected.length) {
        throw new Error(`${setting}: another answer in part ${part}: ${answers[differs]}, not ${expected[differs]}`);
      }
      rows.push({
        ...machine,
        ...{ kind: "run", setting, command, part, questions: stats.answered },
        ...{ workers: setting === "batches, threads" ? workers : 0, per_second: stats.perSecond, busy: stats.busy },
      });
      const busy = (100 * stats.busy).toFixed(1);
      say(`part ${part + 1} of ${parts}, ${setting}: ${stats.perSecond} questions a second, device busy ${busy} %`);
    }
  }
  const text = rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  if (json === "-") {
    process.stdout.write(text);
    return 0;
  }
  const file = json ?? join(root, "bench/results", `dataset-${slug(machine.adapter)}.jsonl`);
  writeWhole(file, text);
  console.log(renderData(rows));
  const seconds = ((performance.now() - begun) / 1000).toFixed(0);
  console.log(`\nthe same answers in all settings; ${seconds} s; kept in ${relative(process.cwd(), file)}`);
  return 0;
}

async function machineOf(): Promise<Machine> {
  const device = await openBenchDevice();
  const machine = describeMachine(device);
  device.destroy();
  return machine;
}

/** The command line, compiled: threads of sources would compile them each time. */
function builtProgram(say: (text: string) => void): string {
  if (!import.meta.url.endsWith(".ts")) return join(root, programFile("src/instructblip/cli/main"));
  say("building the package …");
  const { status } = spawnSync(process.execPath, [join(root, "scripts/build.mjs")], { stdio: ["ignore", 2, 2] });
  if (status !== 0) throw new Error("npm run build failed");
  return join(root, "dist/instructblip/cli/main.js");
}

function argumentsOf(command: RunRow["command"], file: string, folder: string): string[] {
  const model = [command, "--model", MODEL];
  if (command === "evaluate") return [...model, "--task", join(folder, "task.json"), "--data", file];
  const asked = ["--prompt", "{question}", "--max-new-tokens", String(NEW_TOKENS)];
  return [...model, "--json", "--requests", file, ...asked];
}

/** Runs the program. @returns its stderr @throws Error with the end of it */
async function runProgram(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<string> {
  signal.throwIfAborted();
  const child = spawn(process.execPath, [program, ...args], { env, stdio: ["ignore", "ignore", "pipe"] });
  const stop = () => void child.kill();
  signal.addEventListener("abort", stop, { once: true });
  let stderr = "";
  child.stderr.on("data", (piece: Buffer) => {
    stderr = (stderr + piece.toString()).slice(-20_000);
  });
  const code = await new Promise<number | null>((done, fail) => {
    child.on("error", fail);
    child.on("close", done);
  });
  signal.removeEventListener("abort", stop);
  signal.throwIfAborted();
  if (code !== 0)
    throw new Error(`instructblip ${args[0]} failed (${code}): ${stderr.trim().split("\n").slice(-3).join("\n")}`);
  return stderr;
}

/** Every answer by its id, in the order of ids. */
function answersIn(file: string, command: RunRow["command"]): string[] {
  const lines = readFileSync(file, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter((line) => "id" in line);
  return lines
    .map((line) => JSON.stringify([line.id, line[command === "evaluate" ? "prediction" : "sequences"]]))
    .sort();
}

/** Images as `--workers` reads them, ahead of no device. The first of each thread, which it starts with, is not counted. */
async function measureImages(
  images: readonly string[],
  base: string,
  workers: number,
  machine: Machine,
  signal: AbortSignal,
): Promise<ImagesRow[]> {
  const processor = await AutoProcessor.from_pretrained(MODEL);
  const bytes = images.reduce((sum, image) => sum + readFileSync(join(base, image)).length, 0);
  const rows: ImagesRow[] = [];
  for (const count of [0, workers]) {
    const reader = new ImageReader(processor, base, count, signal);
    try {
      await Promise.all(images.slice(0, Math.max(1, 2 * count)).map((image) => reader.read(image)));
      const [begun, before] = [performance.now(), performance.eventLoopUtilization()];
      const measured = images.map((image) => join(base, image)); // by other names, as the reader keeps images by theirs
      if (count === 0) for (const image of measured) await reader.read(image);
      else await Promise.all(measured.map((image) => reader.read(image)));
      const { active } = performance.eventLoopUtilization(before);
      const ms = (performance.now() - begun) / images.length;
      rows.push({
        ...machine,
        ...{ kind: "images", images: images.length, bytes, workers: count, main_ms: active / images.length, ms },
      });
    } finally {
      await reader.close();
    }
  }
  return rows;
}

export function printTable(file: string, markdown: boolean): number {
  console.log(renderData(readRows(file), markdown));
  return 0;
}

/** Puts the table of a file of rows into docs/benchmarks.md. */
export function writeDocs(file: string): number {
  const path = join(root, "docs/benchmarks.md");
  writeWhole(path, replaceDataInDocs(readFileSync(path, "utf8"), readRows(file)));
  return 0;
}

const readRows = (path: string): DataRow[] => readRowsOf(path, parseDataRows);
