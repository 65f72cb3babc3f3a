/**
 * Overheads besides arithmetic: the first answer of the demo in a new process, without a shader cache, and the time in which
 * JavaScript encodes one launch of a captured decode step.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { increment } from "../src/tensor/ops/increment.ts";
import type { Measured } from "./harness.ts";
import { openBenchDevice, root } from "./machine.ts";
import { NODE_ARGS, programFile } from "./program.ts";
import { timesOf } from "./rows.ts";
import type { Settings } from "./settings.ts";

export const START_STEPS = ["first answer", "encode"] as const;
export type StartStep = (typeof START_STEPS)[number];

const SHAPES: Record<StartStep, string> = { "first answer": "npm run demo, cold", encode: "a replayed launch" };
/** As many as a token of a model of a 7B model's 32 layers has, and a few. */
const LAUNCHES = 400;
const FIRST_ANSWER = "What color is the square? orange";

/** What `--filter` is matched against. */
export function startStepName(step: StartStep): string {
  return `model ${step} ${SHAPES[step]}`;
}

export async function measureStart(
  steps: readonly StartStep[],
  { rounds }: Pick<Settings, "rounds">,
  progress: (text: string) => void,
): Promise<Measured[]> {
  const rows: Measured[] = [];
  for (const step of steps) {
    const measured = await { "first answer": firstAnswers, encode: encodings }[step](rounds, (round) =>
      progress(`round ${round} of ${rounds}: ${startStepName(step)}`),
    );
    rows.push({
      ...{ kernel: "model", variant: step, planned: true, shape: SHAPES[step] },
      ...{ rounds, repetitions: 1 },
      ...{ launches: 0, flops: 0, bytes: 0, footprint: 0, gflops: null, gbs: null },
      ...measured,
    });
  }
  return rows;
}

type Times = Pick<Measured, "check" | "first_ms" | "basis" | "caches" | "samples"> & ReturnType<typeof timesOf>;

/** From the start of the process to the end of the demo's first answer, which must be correct. */
async function firstAnswers(rounds: number, progress: (round: number) => void): Promise<Times> {
  const times: number[] = [];
  let right = true;
  for (let round = 1; round <= rounds; round++) {
    progress(round);
    const { ms, answered } = await firstAnswer();
    times.push(ms);
    right &&= answered;
  }
  const check = right ? { share: 0 } : { share: null, note: `the demo did not answer "${FIRST_ANSWER}"` };
  return { check, first_ms: times[0], ...timesOfWall(times), basis: "wall", caches: "start" };
}

function timesOfWall(wall: readonly number[]) {
  const samples = { wall, cpu: [], gpu: [] };
  return { ...timesOf(samples), samples };
}

function firstAnswer(): Promise<{ ms: number; answered: boolean }> {
  const started = performance.now();
  const demo = spawn(process.execPath, [...NODE_ARGS, join(root, programFile("src/instructblip/cli/main")), "demo"], {
    cwd: root,
    // Mesa's variable; the caches of other drivers stay enabled.
    env: { ...process.env, MESA_SHADER_CACHE_DISABLE: "true", NO_COLOR: "1", FORCE_COLOR: "0" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  return new Promise((resolve, reject) => {
    let text = "";
    demo.stdout.on("data", (piece: Buffer) => {
      text += piece.toString();
      const answer = /^ {2}(.*)\n/m.exec(text);
      if (!answer) return;
      demo.removeAllListeners("exit");
      demo.kill();
      resolve({ ms: performance.now() - started, answered: answer[1].trim() === FIRST_ANSWER });
    });
    demo.on("error", reject);
    demo.on("exit", () => resolve({ ms: performance.now() - started, answered: false }));
  });
}

/** Submitting captured launches, per launch; their execution is not awaited. */
async function encodings(rounds: number, progress: (round: number) => void): Promise<Times> {
  const device = await openBenchDevice();
  try {
    const counters = Array.from({ length: 40 }, () => device.tensor(new Uint32Array(4), [4]));
    const captured = device.capture(() => {
      for (let i = 0; i < LAUNCHES; i++) increment(counters[i % 40], 1 + (i % 3));
    });
    await device.sync();
    const times: number[] = [];
    const turns = 8 * rounds;
    for (let turn = 0; turn < turns; turn++) {
      progress(Math.floor(turn / 8) + 1);
      const start = performance.now();
      captured.replay();
      device.flush();
      times.push((performance.now() - start) / LAUNCHES);
      await device.sync();
    }
    // Every launch of the capture and of every replay has counted.
    const [, second] = await counters[1].read();
    const once = Array.from({ length: LAUNCHES / 40 }, (_, k) => 1 + ((1 + 40 * k) % 3)).reduce((sum, by) => sum + by);
    const check = second === once * (turns + 1) ? { share: 0 } : { share: null, note: `${second} launches counted` };
    return { check, first_ms: times[0], ...timesOfWall(times), basis: "wall" };
  } finally {
    device.destroy();
  }
}
