/**
 * Measures sides beside each other: two revisions of this repository, or the same code several times. A side is a folder whose
 * `bench/main.ts` takes --json, --filter and --rounds; if it takes --paced, processes of all sides run at once and take turns, case
 * by case, else they run one after another.
 */
import { type ChildProcess, execFileSync, type StdioOptions, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UsageError } from "../scripts/script.ts";
import { caseName } from "../src/tensor/cases/support/group.ts";
import { comparePairs } from "./compare.ts";
import { root } from "./machine.ts";
import { type Message, nextTurns, placeAfter, rotated, type Waiting } from "./pace.ts";
import { NODE_ARGS, programFile } from "./program.ts";
import { groupedBy, median, parseRows, type Row, spreadOf } from "./rows.ts";
import { wilson } from "./stats.ts";

export interface Side {
  readonly name: string;
  /** A checkout with node_modules. */
  readonly folder: string;
  readonly args: readonly string[];
}

/** Runs the bench of a side once and gives its rows. */
export type RunSide = (side: Side, args: readonly string[]) => Promise<Row[]>;

/**
 * `runs` runs of every family on every side, in turn. Whichever is first in one turn is last in the next, so that a drift of the
 * machine affects all alike.
 *
 * @param filters one for each family
 * @returns the rows of each side
 */
export async function alternate(
  sides: readonly Side[],
  filters: readonly string[],
  runs: number,
  runSide: RunSide,
  progress: (text: string) => void,
): Promise<Row[][]> {
  const rows = sides.map((): Row[] => []);
  const started = performance.now();
  const all = runs * filters.length * sides.length;
  let done = 0;
  for (let run = 0; run < runs; run++) {
    for (const filter of filters) {
      for (const i of rotated([...sides.keys()], run)) {
        const minutes = (((performance.now() - started) / done) * (all - done)) / 60_000;
        const left = done ? `, about ${Math.ceil(minutes)} min left` : "";
        progress(`run ${run + 1} of ${runs}${left}: ${sides[i].name}, ${filter}`);
        rows[i].push(...(await runSide(sides[i], ["--filter", filter])));
        done++;
      }
    }
  }
  return rows;
}

/** A process that measures a side and waits before every turn. */
export interface PacedSide {
  /** Lets it start or go on, until it waits again; undefined when it has ended. */
  next(): Promise<Message | undefined>;
  /** Its rows, when it has ended. */
  rows(): Row[];
  stop(): void;
}

export type StartSide = (side: Side, args: readonly string[]) => PacedSide;

/**
 * `runs` runs of every family, in which all sides are measured at once: each is a process, which takes a turn of a case while the
 * others wait, and then the next takes the same.
 *
 * @returns for each run the rows of every side
 */
export async function interleave(
  sides: readonly Side[],
  filters: readonly string[],
  runs: number,
  startSide: StartSide,
  progress: (text: string) => void,
): Promise<Row[][][]> {
  const started = performance.now();
  const all: Row[][][] = [];
  for (let run = 0; run < runs; run++) {
    const rows = sides.map((): Row[] => []);
    for (const [f, filter] of filters.entries()) {
      const done = (run * filters.length + f) / (runs * filters.length);
      const minutes = ((performance.now() - started) * (1 / done - 1)) / 60_000;
      const left = done > 0 ? `, about ${Math.ceil(minutes)} min left` : "";
      const show = (text: string) => progress(`run ${run + 1} of ${runs}${left}: ${text}`);
      const order = rotated([...sides.keys()], run);
      const found = await interleaveOnce(
        order.map((i) => sides[i]),
        (side) => startSide(side, ["--filter", filter]),
        show,
      );
      for (const [at, i] of order.entries()) rows[i].push(...found[at]);
    }
    all.push(rows);
  }
  return all;
}

async function interleaveOnce(
  sides: readonly Side[],
  start: (side: Side) => PacedSide,
  show: (text: string) => void,
): Promise<Row[][]> {
  const processes: PacedSide[] = [];
  const waiting: (Waiting | undefined)[] = [];
  let rounds = 0;
  const go = async (i: number) => {
    const message = await processes[i].next();
    waiting[i] = message && placeAfter(waiting[i], message);
    if (message && "begin" in message) rounds = message.rounds;
  };
  try {
    for (const [i, side] of sides.entries()) {
      show(`starting ${side.name}`);
      processes.push(start(side));
      await go(i);
    }
    while (waiting.some(Boolean)) {
      for (const i of nextTurns(waiting)) {
        const { round, name } = waiting[i]!;
        show(round < 0 ? `checking, ${sides[i].name}` : `round ${round + 1} of ${rounds}: ${name}, ${sides[i].name}`);
        await go(i);
      }
    }
    return processes.map((process) => process.rows());
  } finally {
    for (const process of processes) process.stop();
  }
}

/** A filter for the cases of one kernel that the user's filter admits too. */
export function familyFilter(kernel: string, filter: string): string {
  return /^(\(\?:\))?$/.test(filter) ? `^${kernel} ` : `^(?=${kernel} )(?=.*(?:${filter}))`;
}

/**
 * A checkout of a revision in a temporary folder, with this one's node_modules; `remove` deletes it.
 *
 * @throws UsageError if there is no such revision, or it needs other packages
 */
export function checkOut(revision: string, repository = root): { folder: string; remove: () => void } {
  const git = (...args: string[]) =>
    execFileSync("git", args, {
      cwd: repository,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 2 ** 26,
    });
  let commit: string;
  try {
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", `${revision}^{commit}`).trim();
  } catch (cause) {
    throw new UsageError(`--against: ${JSON.stringify(revision)} is no revision of this repository`, { cause });
  }
  if (git("show", `${commit}:package-lock.json`) !== readFileSync(join(repository, "package-lock.json"), "utf8")) {
    throw new UsageError(
      `--against: ${revision} has another package-lock.json, and would run with the wrong packages. ` +
        "Check it out elsewhere, run npm ci and npm run -s bench -- --json - >> BASE.jsonl there, and --compare",
    );
  }
  const parent = mkdtempSync(join(tmpdir(), "instructblip-bench-"));
  const folder = join(parent, "base");
  const remove = () => {
    try {
      if (existsSync(folder)) git("worktree", "remove", "--force", folder);
    } finally {
      rmSync(parent, { recursive: true, force: true });
    }
  };
  try {
    git("worktree", "add", "--quiet", "--detach", folder, commit);
    symlinkSync(join(repository, "node_modules"), join(folder, "node_modules"), "junction");
    return { folder, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/**
 * Runs sides as processes, with `args` besides their own.
 *
 * @param cold whether the first run must compile: else the driver may keep compiled kernels, which takes most of a process's time
 */
export function processRunner(args: readonly string[], cold: boolean, signal: AbortSignal): RunSide {
  return async (side, more) => {
    const process = new BenchProcess(side, [...args, ...side.args, ...more], { cold, paced: false, signal });
    await process.ended;
    return process.rows();
  };
}

/** As `processRunner`, of processes that wait before every turn. */
export function processStarter(args: readonly string[], signal: AbortSignal): StartSide {
  return (side, more) => new BenchProcess(side, [...args, ...side.args, ...more], { cold: false, paced: true, signal });
}

/** Whether a checkout's bench can wait before turns. */
export const canBePaced = (folder: string) => existsSync(join(folder, "bench/pace.ts"));

class BenchProcess implements PacedSide {
  /** When it has ended and its rows were read. @throws Error if it failed */
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;
  #rows: Row[] = [];
  #isStarted = false;

  constructor(
    side: Side,
    args: readonly string[],
    { cold, paced, signal }: { cold: boolean; paced: boolean; signal: AbortSignal },
  ) {
    const folder = mkdtempSync(join(tmpdir(), "instructblip-bench-"));
    const file = join(folder, "rows.jsonl");
    const program = [...NODE_ARGS, programFile("bench/main"), ...args, ...(paced ? ["--paced"] : []), "--json", file];
    const env = { ...process.env, ...(!cold && { MESA_SHADER_CACHE_DISABLE: "false" }) };
    const stdio: StdioOptions = ["ignore", "ignore", "pipe", ...(paced ? ["ipc" as const] : [])];
    this.#child = spawn(process.execPath, program, { cwd: side.folder, env, stdio });
    let stderr = "";
    this.#child.stderr!.on("data", (piece: Buffer) => {
      stderr = (stderr + piece.toString()).slice(-20_000);
    });
    const stop = () => this.stop();
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    const closed = new Promise<number | null>((resolve, reject) => {
      this.#child.on("error", reject);
      this.#child.on("close", resolve);
    });
    this.ended = closed
      .then((code) => {
        signal.throwIfAborted();
        if (code === 2 && /no case matches/.test(stderr)) return; // a revision may lack a kernel
        if (code !== 0 && !existsSync(file)) {
          const last = stderr.trim().split("\n").slice(-3).join("\n");
          throw new Error(`${side.name}: the bench failed (${code}): ${last}`);
        }
        this.#rows = parseRows(readFileSync(file, "utf8"));
      })
      .finally(() => {
        signal.removeEventListener("abort", stop);
        rmSync(folder, { recursive: true, force: true });
      });
    this.ended.catch(() => {}); // whoever waits for it is told
  }

  next(): Promise<Message | undefined> {
    const message = new Promise<Message>((resolve) => {
      this.#child.once("message", (message) => resolve(message as Message));
    });
    if (this.#isStarted) this.#child.send("go");
    this.#isStarted = true;
    return Promise.race([message, this.ended.then(() => undefined)]);
  }

  rows(): Row[] {
    return this.#rows;
  }

  stop(): void {
    if (this.#child.exitCode === null) this.#child.kill();
  }
}

/** What comparing equal code, and code that works 10 % more, found, in rows. */
export interface SelfTest {
  readonly rows: number;
  readonly alarms: number;
  /** Standard deviation, between runs, of the ratio of equal code, of the middle row. */
  readonly noise: number;
  readonly found: number;
}

/** Of interleaved runs of three sides: the same code twice, and with more work. */
export function selfTestOf(runs: readonly (readonly Row[][])[]): SelfTest {
  const equal = comparePairs(runs.map(([one, same]) => [one, same])).rows;
  const more = comparePairs(runs.map(([one, , slowed]) => [one, slowed])).rows;
  const ratios = runs.map(([one, same]) => comparePairs([[one, same]]).rows);
  const spreads = [...groupedBy(ratios.flat(), caseName).values()].flatMap(
    (of) => spreadOf(of.map((row) => row.ratio)) ?? [],
  );
  return {
    rows: equal.length,
    noise: median(spreads),
    alarms: equal.filter(({ change }) => change === "slower" || change === "faster").length,
    found: more.filter(({ change }) => change === "slower").length,
  };
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

export function renderSelfTest(tests: readonly SelfTest[], runs: number): string {
  const sum = (of: (test: SelfTest) => number) => tests.reduce((total, test) => total + of(test), 0);
  const rows = sum((test) => test.rows);
  const share = (count: number) => {
    const [low, high] = wilson(count, rows).map((part) => (100 * part).toFixed(1));
    return `${count} of ${rows}, ${((100 * count) / rows).toFixed(1)} % (95 % interval ${low} to ${high} %)`;
  };
  return [
    `${tests.length} comparisons of ${runs} runs; ratios of equal code differ from run to run by ${percent(median(tests.map(({ noise }) => noise)))}`,
    `equal code, rows reported as changed: ${share(sum(({ alarms }) => alarms))}`,
    `10 % more work, rows reported as slower: ${share(sum(({ found }) => found))}`,
  ].join("\n");
}
