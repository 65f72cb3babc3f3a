/**
 * The process of one engine: opens the engine of its argument, sends hello, and serves requests until its parent exits.
 * Separate processes, because each engine has its own Dawn, or defines `navigator`; and because process.cpuUsage() then
 * counts the threads of one engine, including a software adapter's.
 */
import { Backoff, threadSleep } from "../../src/tensor/device/backoff.ts";
import {
  type Answer,
  type Answers,
  ENGINE_NAMES,
  type Engine,
  type EngineName,
  type Opened,
  type Request,
} from "./engine.ts";
import { check, type Job } from "./jobs.ts";

let opened: Opened | undefined;

/** Tries every way to do a job: correct ones are timed once, warm, and the fastest is kept. */
async function open(engine: Engine, job: Job, ours: boolean): Promise<Answers["open"]> {
  await close();
  let best: Answers["open"] = { way: "", share: null, first_ms: null, warm_ms: null };
  const notes: string[] = [];
  for (const { name, order = "nk", open } of engine.ways(job)) {
    let candidate: Opened | undefined;
    try {
      candidate = await open();
      const start = performance.now();
      const y = await candidate.output();
      const first_ms = performance.now() - start;
      const share = check(job, y, order, ours);
      const { wall: warm_ms, cpu } = await time(candidate, 1);
      if (!(share <= 1)) {
        const took = `${warm_ms.toFixed(1)} ms, ${cpu.toFixed(1)} ms CPU`;
        throw new Error(`wrong: ${share.toPrecision(2)} times the tolerance (in ${took})`);
      }
      if (best.warm_ms === null || warm_ms < best.warm_ms) {
        await close();
        opened = candidate;
        best = { way: name, share, first_ms, warm_ms };
      } else {
        await candidate.close();
      }
    } catch (error) {
      notes.push(`${name}: ${(error as Error).message.split("\n")[0].slice(0, 200)}`);
      await candidate?.close();
    }
  }
  return { ...best, ...(notes.length && { note: notes.join("; ") }) };
}

async function close(): Promise<void> {
  const last = opened;
  opened = undefined;
  await last?.close();
}

/** Our engine's backoff, here for all: dawn-node's polling would take a core from the others' kernels. */
const backoff = new Backoff(threadSleep());

/** Wall and CPU milliseconds of one run, of `repetitions` started in sequence and awaited together. */
async function time(what: Opened, repetitions: number): Promise<{ wall: number; cpu: number }> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  const wake = backoff.begin();
  try {
    for (let i = 0; i < repetitions; i++) {
      const running = what.run();
      if (running) await running;
    }
    await what.sync();
  } finally {
    wake();
  }
  const wall = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  return { wall: wall / repetitions, cpu: (user + system) / 1000 / repetitions };
}

async function answer(engine: Engine, request: Request, ours: boolean): Promise<Answer> {
  if (request.do === "open") return { to: "open", ...(await open(engine, request.job, ours)) };
  if (request.do === "close") {
    await close();
    return { to: "close" };
  }
  if (!opened) throw new Error("nothing is open");
  if (request.do === "time") return { to: "time", ...(await time(opened, request.repetitions)) };
  return { to: "gpu", ms: (await opened.gpuTime?.(request.repetitions)) ?? null };
}

async function main(): Promise<void> {
  const name = process.argv[2] as EngineName;
  if (!ENGINE_NAMES.includes(name) || !process.send) throw new Error("started by bench/peers/run.ts only");
  const send = (message: Answer) => process.send!(message);
  const failed = (error: unknown) => send({ to: "error", message: (error as Error).message ?? String(error) });
  try {
    const file = name === "onnxruntime_cpu" ? "onnxruntime" : name;
    const { openEngine } = (await import(`./engines/${file}.ts`)) as { openEngine(name: EngineName): Promise<Engine> };
    const engine = await openEngine(name);
    const { version, adapter, machine } = engine;
    process.on("message", (request: Request) => {
      answer(engine, request, name === "ours").then(send, failed);
    });
    send({ to: "hello", version, adapter, machine });
  } catch (error) {
    failed(error);
  }
}

process.on("disconnect", () => process.exit());
await main();
