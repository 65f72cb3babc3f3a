/**
 * Measures sides in alternating processes: two revisions of this repository, or the same code several times. A side is a black
 * box, a folder whose `bench/main.ts` takes --json, --filter and --rounds.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UsageError } from "../scripts/script.ts";
import { caseName } from "../src/tensor/cases/support/group.ts";
import { compareRows } from "./compare.ts";
import { basisTime } from "./harness.ts";
import { root } from "./machine.ts";
import { NODE_ARGS, programFile } from "./program.ts";
import { median, parseRows, type Row, spreadOf } from "./rows.ts";
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
      const order = sides.map((_, i) => (run + i) % sides.length);
      if (run % 2 && sides.length > 2) order.reverse();
      for (const i of order) {
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
    const folder = mkdtempSync(join(tmpdir(), "instructblip-bench-"));
    const file = join(folder, "rows.jsonl");
    try {
      const program = [...NODE_ARGS, programFile("bench/main"), ...args, ...side.args, ...more, "--json", file];
      const { code, stderr } = await runNode(program, side.folder, cold, signal);
      signal.throwIfAborted();
      if (code === 2 && /no case matches/.test(stderr)) return []; // a revision may lack a kernel
      if (code !== 0 && !existsSync(file)) {
        throw new Error(`${side.name}: the bench failed (${code}): ${stderr.trim().split("\n").slice(-3).join("\n")}`);
      }
      return parseRows(readFileSync(file, "utf8"));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };
}

function runNode(args: readonly string[], cwd: string, cold: boolean, signal: AbortSignal) {
  const env = { ...process.env, ...(!cold && { MESA_SHADER_CACHE_DISABLE: "false" }) };
  const child = spawn(process.execPath, args, { cwd, env, stdio: ["ignore", "ignore", "pipe"] });
  const stop = () => void child.kill();
  signal.addEventListener("abort", stop, { once: true });
  let stderr = "";
  child.stderr.on("data", (piece: Buffer) => {
    stderr = (stderr + piece.toString()).slice(-20_000);
  });
  return new Promise<{ code: number | null; stderr: string }>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      signal.removeEventListener("abort", stop);
      resolve({ code, stderr });
    });
  });
}

/** What comparing equal code, and code that works 10 % more, found, in rows. */
export interface SelfTest {
  readonly rows: number;
  readonly alarms: number;
  /** Standard deviation of the runs of a row over their mean, of the middle row. */
  readonly noise: number;
  readonly found: number;
}

/** Of one turn of three sides: the same code twice, and with more work. */
export function selfTestOf([one, same, slowed]: readonly Row[][]): SelfTest {
  const equal = compareRows(one, same).rows;
  const more = compareRows(one, slowed).rows;
  return {
    rows: equal.length,
    noise: median(spreadsOf(one)),
    alarms: equal.filter(({ change }) => change === "slower" || change === "faster").length,
    found: more.filter(({ change }) => change === "slower").length,
  };
}

function spreadsOf(rows: readonly Row[]): number[] {
  const runs = new Map<string, number[]>();
  for (const row of rows) {
    const ms = row.kernel === "limit" ? null : basisTime(row);
    if (ms !== null) runs.set(caseName(row), [...(runs.get(caseName(row)) ?? []), ms]);
  }
  return [...runs.values()].flatMap((times) => spreadOf(times) ?? []);
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
    `${tests.length} comparisons of ${runs} and ${runs} runs; noise between runs: ${percent(median(tests.map(({ noise }) => noise)))}`,
    `equal code, rows reported as changed: ${share(sum(({ alarms }) => alarms))}`,
    `10 % more work, rows reported as slower: ${share(sum(({ found }) => found))}`,
  ].join("\n");
}
