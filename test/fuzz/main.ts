/**
 * `npm run fuzz`: damaged files and odd calls, drawn from a seed, passed to the public functions. Each must give a result or
 * a typed error with a readable message, in bounded time and memory.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { NODE_ARGS, programFile } from "../../bench/program.ts";
import { caseOf, type Finding, readCase, writeCase } from "./harness.ts";
import { ABOUT, checkTarget, targetOf } from "./target.ts";
import type { Report, Work } from "./worker.ts";

const HELP = `usage: npm run fuzz -- [options]

Fuzzes the program with damaged files and invalid calls. A fault is an error without a code, a message that is too long
or has control characters, a crash, more than 5 s of processor time, or memory growth. Faults are written to files that
--replay runs again. The exit code is 1 if there are any.

  --seconds N      time for all targets together (default 60)
  --count N        cases of each target, at most
  --target NAMES   some of the targets below, with commas (default: all)
  --seed N         seed of the cases (default: the clock)
  --out FOLDER     where faults are written (default: fuzz-out)
  --hang N         seconds without an answer after which a case counts as hung (default 30)
  --replay FILE    run one written case again and print its result
  --json FILE      also write the summary as JSON

targets:
${Object.entries(ABOUT)
  .map(([name, about]) => `  ${name.padEnd(12)} ${about}`)
  .join("\n")}`;

interface Fault extends Finding {
  readonly target: string;
  readonly index: number;
  readonly signature: string;
  /** How to see it again. */
  readonly command: string;
}

interface Row {
  readonly target: string;
  readonly cases: number;
  readonly seconds: number;
  readonly faults: number;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "60" },
      count: { type: "string", default: "Infinity" },
      target: { type: "string", default: Object.keys(ABOUT).join() },
      seed: { type: "string", default: String(Date.now() % 2 ** 31) },
      out: { type: "string", default: "fuzz-out" },
      hang: { type: "string", default: "30" },
      replay: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const hang = numberOf("--hang", values.hang);
  if (values.replay !== undefined) return replay(values.replay, hang);
  const names = values.target.split(",");
  names.forEach(checkTarget);
  const seed = numberOf("--seed", values.seed);
  const seconds = numberOf("--seconds", values.seconds);
  const count = Math.min(numberOf("--count", values.count), Number.MAX_SAFE_INTEGER);
  console.log(`seed ${seed}`);
  const faults: Fault[] = [];
  const rows: Row[] = [];
  for (const target of names) {
    const run = { target, seed, count, time: (1000 * seconds) / names.length, hang, out: values.out };
    const row = await fuzz(run, faults);
    rows.push(row);
    const rate = Math.round(row.cases / Math.max(row.seconds, 0.001));
    console.log(
      `${target.padEnd(12)} ${String(row.cases).padStart(9)} cases ${String(rate).padStart(7)}/s ${row.faults} faults`,
    );
  }
  for (const { target, kind, what, command } of faults) {
    console.log(`\n${target}: ${kind}: ${what.split("\n").slice(0, 4).join("\n")}\n  ${command}`);
  }
  const cases = rows.reduce((sum, row) => sum + row.cases, 0);
  console.log(`\n${cases} cases, ${faults.length} faults`);
  if (values.json) writeFileSync(values.json, `${JSON.stringify({ seed, cases, rows, faults }, null, 2)}\n`);
  return faults.length ? 1 : 0;
}

function numberOf(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0)) throw new Error(`${name} must be a number, got ${text}`);
  return value;
}

interface Run {
  readonly target: string;
  readonly seed: number;
  readonly count: number;
  readonly time: number;
  readonly hang: number;
  readonly out: string;
}

/** Cases of one target until the time is up, with a new process after each that hangs or dies. */
async function fuzz(run: Run, faults: Fault[]): Promise<Row> {
  const folder = mkdtempSync(join(tmpdir(), "instructblip-fuzz-"));
  const state = join(folder, "state");
  const start = performance.now();
  const left = () => run.time - (performance.now() - start);
  const seen = new Set<string>();
  let first = 0;
  let found = 0;
  const note = async (index: number, finding: Finding, signature: string) => {
    found++;
    if (seen.has(signature)) return;
    seen.add(signature);
    const prepared = await (await targetOf(run.target)).prepare();
    const given = caseOf(prepared, run.seed, index);
    mkdirSync(run.out, { recursive: true });
    const file = join(run.out, `${run.target}-${run.seed}-${index}.json`);
    writeFileSync(file, writeCase({ target: run.target, seed: run.seed, index, finding, given }));
    const command = `npm run fuzz -- --replay ${relative(process.cwd(), file)}`;
    faults.push({ target: run.target, index, signature, command, ...finding });
  };
  try {
    while (first < run.count && left() > 0) {
      const { target, seed } = run;
      writeFileSync(state, "");
      const work: Work = { target, seed, first, time: left(), count: run.count - first, state };
      const progress = (done: number) => {
        if (process.stderr.isTTY) process.stderr.write(`\r${target}: ${first + done} cases, ${found} faults `);
      };
      const end = await watch(work, run.hang, note, progress);
      if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
      const at = readFileSync(state);
      if (at.length === 0) throw new Error(`${target}: the worker ended before its first case: ${end}`);
      first = at.readDoubleLE() + 1;
      if (end === "done") break;
      const what = end === "hang" ? `no answer in ${run.hang} s` : `the process ended: ${end}`;
      await note(first - 1, { kind: end === "hang" ? "hang" : "crash", what }, `${end} ${first}`);
    }
    return { target: run.target, cases: first, seconds: (performance.now() - start) / 1000, faults: found };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

type Note = (index: number, finding: Finding, signature: string) => Promise<void>;

/** Runs a worker to its end: "done", "hang", or how it died. */
async function watch(work: Work, hang: number, note: Note, progress: (done: number) => void): Promise<string> {
  const notes: Promise<void>[] = [];
  let done = false;
  let hung = false;
  const child: ChildProcess = fork(
    fileURLToPath(new URL(programFile("worker"), import.meta.url)),
    [JSON.stringify(work)],
    {
      execArgv: [...NODE_ARGS, "--expose-gc", "--max-old-space-size=1024"],
      stdio: ["ignore", "inherit", "ignore", "ipc"],
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
    },
  );
  child.on("message", (report: Report) => {
    if ("finding" in report) notes.push(note(report.index, report.finding, report.signature));
    else {
      progress(report.done);
      done ||= report.last === true;
    }
  });
  let at = "";
  let since = performance.now();
  const timer = setInterval(() => {
    const now = work.replay === undefined ? readFileSync(work.state, "latin1") : "";
    if (now !== at) [at, since] = [now, performance.now()];
    // To begin with, it loads its code and corpus: on a busy machine that alone takes long.
    if (performance.now() - since < 1000 * hang * (now === "" && work.replay === undefined ? 10 : 1)) return;
    hung = true;
    child.kill("SIGKILL");
  }, 250);
  const ended = await new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  clearInterval(timer);
  await Promise.all(notes);
  return done ? "done" : hung ? "hang" : ended;
}

async function replay(file: string, hang: number): Promise<number> {
  const { target, seed, index, finding } = readCase(readFileSync(file, "utf8"));
  const work: Work = { target, seed, first: index, time: 1, count: 1, state: "", replay: file };
  let shows: Finding | undefined;
  const end = await watch(
    work,
    hang,
    async (_, found) => {
      shows = found;
    },
    () => {},
  );
  if (end !== "done") shows = { kind: end === "hang" ? "hang" : "crash", what: end };
  console.log(`${target} ${index} of seed ${seed}, written for: ${finding?.kind}`);
  console.log(shows ? `it shows: ${shows.kind}: ${shows.what}` : "it holds");
  return shows ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`error: ${(error as Error).message}`);
  process.exitCode = 2;
}
