/**
 * The work of `npm run bench:peers`: the same operations at the same shapes on the same adapter, by this project and by other engines
 * that run in Node. Method:
 *
 * - Each engine has its own process, and one of them works at a time: every job runs in interleaved rounds (A B C D A B C D
 *   …), so that other load on the machine affects them equally. Medians of the rounds.
 * - Inputs and weights are on the device before the clock starts, and results stay there; a turn starts as many runs as take
 *   `turnMs`, then waits for the device. One result is checked against f64 loops beforehand.
 * - Each engine tries the ways of its public interface; the fastest correct one is measured.
 * - Two clocks: wall time, and CPU time of all threads of the engine's process, in which a software adapter computes.
 * - ONNX Runtime's CPU provider is shown for comparison, as the alternative on a machine without a GPU; it does not use
 *   WebGPU.
 * - A GEMV alternates between copies of its weight that together exceed the caches.
 */
import { type ChildProcess, fork } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { Progress, processTerminal } from "../../src/instructblip/cli/terminal.node.ts";
import { swiftShaderFolder } from "../../src/tensor/device/gpu.node.ts";
import { readRowsOf, writeWhole } from "../files.ts";
import { NODE_ARGS, programFile } from "../program.ts";
import { type Machine, slug } from "../rows.ts";
import { type Answer, type Answers, ENGINES, type EngineName, type Request } from "./engine.ts";
import { bytesOf, flopsOf, type Job, jobName, kindOf } from "./jobs.ts";
import { install, isInstalled } from "./packages.ts";
import { mergePeerRows, type PeerRow, parsePeerRows, timesOf } from "./results.ts";
import { renderPeers, replacePeersInDocs } from "./table.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Timeout of an engine's process. */
const PATIENCE_MS = 180_000;

/** Measures job by job; rows are saved as soon as a job is done. */
export async function run(
  jobs: readonly Job[],
  engines: readonly EngineName[],
  settings: { readonly rounds: number; readonly turnMs: number },
  json: string | undefined,
): Promise<number> {
  const started = performance.now();
  const progress = new Progress(processTerminal(({ exitCode }) => process.exit(exitCode)));
  if (engines.some((name) => name !== "ours") && !isInstalled()) {
    console.error("installing the other engines into bench/peers (npm ci) …");
    try {
      install();
    } catch (error) {
      console.error(`${(error as Error).message}\nengines that are not there are left out`);
    }
  }
  const teams: Worker[] = [];
  try {
    const ours = await Worker.start("ours", {});
    teams.push(ours);
    const machine = ours.hello.machine!;
    const env = softwareDriver(machine);
    for (const name of engines.filter((name) => name !== "ours")) {
      try {
        teams.push(await Worker.start(name, env));
      } catch (error) {
        console.error(`${ENGINES[name].title} is left out: ${(error as Error).message.split("\n")[0]}`);
      }
    }
    for (const { name, hello } of teams) {
      console.error(`${ENGINES[name].title} ${hello.version} on ${hello.adapter}`);
    }

    const toStdout = json === "-";
    const file = json ?? join(root, "bench/results", `peers-${slug(machine.adapter)}.jsonl`);
    const older = !toStdout && existsSync(file) ? readRows(file) : [];
    const fresh: PeerRow[] = [];
    for (const [i, job] of jobs.entries()) {
      const show = (text: string) => progress.show(`${i + 1} of ${jobs.length}: ${jobName(job)}: ${text}`);
      fresh.push(...(await measure(teams, job, settings, machine, show)));
      if (toStdout) continue;
      writeWhole(
        file,
        mergePeerRows(older, fresh)
          .map((row) => `${JSON.stringify(row)}\n`)
          .join(""),
      );
    }
    progress.clear();
    if (toStdout) process.stdout.write(fresh.map((row) => `${JSON.stringify(row)}\n`).join(""));
    else {
      console.log(renderPeers(fresh));
      const seconds = ((performance.now() - started) / 1000).toFixed(0);
      console.log(`\n${fresh.length} rows in ${seconds} s; kept in ${relative(process.cwd(), file)}`);
    }
    return fresh.some((row) => row.engine === "ours" && row.ms === null) ? 1 : 0;
  } finally {
    progress.clear();
    for (const worker of teams) worker.end();
  }
}

/** One job, by all engines in turn. */
async function measure(
  workers: readonly Worker[],
  job: Job,
  { rounds, turnMs }: { readonly rounds: number; readonly turnMs: number },
  machine: Machine,
  show: (text: string) => void,
): Promise<PeerRow[]> {
  interface Entry {
    readonly worker: Worker;
    opened: Answers["open"];
    repetitions: number;
    readonly turns: Answers["time"][];
    gpu_ms: number | null;
  }
  const entries: Entry[] = [];
  /** An error in an engine's process ends its part in this job. */
  const attempt = async (entry: Entry, act: () => Promise<void>) => {
    try {
      await act();
    } catch (error) {
      entry.opened = { ...entry.opened, note: (error as Error).message };
      entry.repetitions = 0;
      entry.turns.length = 0;
    }
  };
  for (const worker of workers) {
    const opened: Answers["open"] = { way: "", share: null, first_ms: null, warm_ms: null };
    const entry: Entry = { worker, opened, repetitions: 0, turns: [], gpu_ms: null };
    entries.push(entry);
    show(`${ENGINES[worker.name].title}, first run`);
    await attempt(entry, async () => {
      entry.opened = await worker.ask({ do: "open", job });
      const { warm_ms } = entry.opened;
      if (warm_ms !== null) entry.repetitions = await calibrate(worker, warm_ms, turnMs);
    });
  }
  for (let round = 0; round < rounds; round++) {
    for (const entry of entries.filter(({ repetitions }) => repetitions > 0)) {
      const { worker, repetitions } = entry;
      show(`${ENGINES[worker.name].title}, round ${round + 1} of ${rounds}`);
      await attempt(entry, async () => {
        entry.turns.push(await worker.ask({ do: "time", repetitions }));
        if (round === 0 && worker.name === "ours") entry.gpu_ms = (await worker.ask({ do: "gpu", repetitions })).ms;
      });
    }
  }
  for (const entry of entries) await attempt(entry, async () => void (await entry.worker.ask({ do: "close" })));
  const taking = entries.filter(({ opened }) => opened.way || opened.note);
  return taking.map(({ worker, opened, repetitions, turns, gpu_ms }) => ({
    ...machine,
    engine: worker.name,
    version: worker.hello.version,
    engine_adapter: worker.hello.adapter,
    job: jobName(job),
    kind: kindOf(job),
    ...(job.op === "linear" && { weight: job.weight }),
    way: opened.way,
    check: opened.share === null ? null : { share: opened.share },
    first_ms: opened.first_ms,
    ...timesOf(turns),
    gpu_ms,
    rounds: turns.length,
    repetitions,
    flops: flopsOf(job),
    bytes: bytesOf(job),
    ...(opened.note && { note: opened.note }),
  }));
}

/** Runs that last `turnMs` together, when one by itself takes `warmMs`; finding out how many warms up. */
async function calibrate(worker: Worker, warmMs: number, turnMs: number): Promise<number> {
  let repetitions = 1;
  // The wait at the end weighs less with every repetition, so the estimate must be made anew as they grow.
  for (let ms = warmMs; ms * repetitions < turnMs; ms = (await worker.ask({ do: "time", repetitions })).wall) {
    const wanted = Math.ceil((1.1 * turnMs) / ms);
    if (wanted <= repetitions) break;
    repetitions = Math.min(wanted, 10 * repetitions);
  }
  return repetitions;
}

/** If our engine uses SwiftShader from its own cache, the others get its path. */
function softwareDriver({ adapter }: Machine): NodeJS.ProcessEnv {
  const folder = swiftShaderFolder();
  if (!adapter.includes("SwiftShader") || !existsSync(folder)) return {};
  return { VK_DRIVER_FILES: join(folder, "vk_swiftshader_icd.json"), LD_LIBRARY_PATH: folder };
}

/** An engine's process, with one request at a time. A process that ended is restarted. */
class Worker {
  readonly name: EngineName;
  readonly #env: NodeJS.ProcessEnv;
  #child: ChildProcess;
  #alive = true;
  hello: Answers["hello"] = { version: "", adapter: "" };
  /** The end of the process's stderr. */
  #stderr = "";

  private constructor(name: EngineName, env: NodeJS.ProcessEnv) {
    this.name = name;
    this.#env = env;
    this.#child = this.#fork();
  }

  /** @throws Error why the engine cannot be used */
  static async start(name: EngineName, env: NodeJS.ProcessEnv): Promise<Worker> {
    const worker = new Worker(name, env);
    worker.hello = await worker.#answer<"hello">();
    return worker;
  }

  async ask<K extends Request["do"]>(request: Extract<Request, { readonly do: K }>): Promise<Answers[K]> {
    if (!this.#alive) {
      this.#child = this.#fork();
      await this.#answer<"hello">();
    }
    const answer = this.#answer<K>();
    this.#child.send(request);
    return answer;
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }

  #fork(): ChildProcess {
    const child = fork(fileURLToPath(new URL(programFile("worker"), import.meta.url)), [this.name], {
      // Mesa's shader cache is on, as for users; bench/machine.ts would disable it for ours.
      env: { MESA_SHADER_CACHE_DISABLE: "false", ...process.env, ...this.#env },
      execArgv: [...NODE_ARGS],
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#alive = true;
    this.#stderr = "";
    child.stderr!.on("data", (data: Buffer) => {
      this.#stderr = (this.#stderr + data).slice(-2000);
    });
    child.on("exit", () => {
      if (this.#child === child) this.#alive = false;
    });
    return child;
  }

  #answer<K extends keyof Answers>(): Promise<Answers[K]> {
    const child = this.#child;
    return new Promise((resolve, reject) => {
      const settle = (act: () => void) => {
        clearTimeout(timer);
        child.off("message", onMessage).off("exit", onExit);
        act();
      };
      const onMessage = (answer: Answer) => {
        settle(() => {
          if (answer.to === "error") reject(new Error(answer.message));
          else resolve(answer as unknown as Answers[K]);
        });
      };
      const onExit = (code: number | null, signal: string | null) => {
        const last = this.#stderr.trim().split("\n").at(-1) ?? "";
        settle(() => reject(new Error(`its process ended (${signal ?? code})${last && `: ${last.slice(0, 200)}`}`)));
      };
      const timer = setTimeout(() => {
        settle(() => reject(new Error(`no answer in ${PATIENCE_MS / 1000} s`)));
        child.kill("SIGKILL");
      }, PATIENCE_MS);
      child.on("message", onMessage).on("exit", onExit);
    });
  }
}

/** Prints the table of a file of rows. */
export function printTable(file: string, markdown: boolean): number {
  console.log(renderPeers(readRows(file), markdown));
  return 0;
}

/** Puts the table of a file of rows into docs/benchmarks.md. */
export function writeDocs(file: string): number {
  const path = join(root, "docs/benchmarks.md");
  writeWhole(path, replacePeersInDocs(readFileSync(path, "utf8"), readRows(file)));
  return 0;
}

const readRows = (path: string): PeerRow[] => readRowsOf(path, parsePeerRows);
