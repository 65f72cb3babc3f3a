/** Loading a checkpoint as it is stored, as int8 and as int4, next to a plain read of its files, which is the lower bound. */
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { InstructBlipForConditionalGeneration as Model } from "../src/instructblip/pretrained/instructblip.ts";
import { formatBytes } from "../src/tensor/device/memory.ts";
import { widen } from "../src/tensor/dtype.ts";
import type { Checkpoint } from "../src/tensor/files/checkpoint.ts";
import { NodeFolder, openCheckpoint } from "../src/tensor/files/source.node.ts";
import { isQuantized, quantizeRows } from "../src/tensor/quantize.ts";
import type { Measured } from "./harness.ts";
import { openBenchDevice } from "./machine.ts";
import type { ModelFolder } from "./model.bench.ts";
import { matricesOf } from "./model_work.ts";
import { type CheckResult, timesOf } from "./rows.ts";
import type { Settings } from "./settings.ts";

export const LOAD_STEPS = ["reading", "loading", "loading int8", "loading int4"] as const;
export type LoadStep = (typeof LOAD_STEPS)[number];

const DTYPE_OF = { loading: "auto", "loading int8": "int8", "loading int4": "int4" } as const;
/** Bytes of a read, and reads at a time: as in from_pretrained. */
const READ = 8 * 2 ** 20;
const READS = 4;
/** What a check compares: the first rows of some matrices. */
const [ROWS, MATRICES] = [7, 5];

/** What `--filter` is matched against. */
export function loadStepName(folder: ModelFolder, step: LoadStep): string {
  return `model ${step} ${folder.name}`;
}

interface Times {
  readonly ms: number;
  readonly cpu_ms: number;
}

/** A row for each step, all on one device. The first load includes compiling. */
export async function measureLoads(
  folder: ModelFolder,
  steps: readonly LoadStep[],
  { rounds }: Pick<Settings, "rounds">,
  progress: (text: string) => void,
): Promise<Measured[]> {
  const { InstructBlipForConditionalGeneration: Model } = await import(
    "../src/instructblip/pretrained/instructblip.ts"
  );
  const files = await weightFiles(folder);
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  const device = await openBenchDevice();
  const checkpoint = await openCheckpoint(folder.path);
  try {
    const buffers = Array.from({ length: READS }, () => new Uint8Array(READ));
    const taken = new Map<LoadStep, Times[]>(steps.map((step) => [step, []]));
    const checks = new Map<LoadStep, CheckResult>();
    for (let round = 0; round < rounds; round++) {
      for (const step of steps) {
        progress(`round ${round + 1} of ${rounds}: ${loadStepName(folder, step)}`);
        if (step === "reading") {
          taken.get(step)!.push(await clock(() => readAll(files, buffers)));
          continue;
        }
        let model: Model | undefined;
        const dtype = DTYPE_OF[step];
        const load = { device, dtype, compile: false, image_cache: 0, on_warning: null };
        const times = await clock(async () => {
          model = await Model.from_pretrained(new NodeFolder(folder.path), load);
        });
        taken.get(step)!.push(times);
        if (round === 0) checks.set(step, await check(model!, checkpoint));
        model!.dispose();
        device.memory.trim();
      }
    }
    return steps.map((step) => {
      const times = taken.get(step)!;
      const samples = { wall: times.map(({ ms }) => ms), cpu: times.map(({ cpu_ms }) => cpu_ms), gpu: [] };
      const medians = timesOf(samples);
      return {
        ...{ kernel: "model", variant: step, planned: true, shape: `${folder.name}, ${formatBytes(bytes)} of files` },
        ...{ check: checks.get(step) ?? null, first_ms: samples.wall[0], ...medians, samples, caches: null },
        ...{ rounds, repetitions: 1, basis: "wall" as const, launches: 0, flops: 0, bytes, footprint: bytes },
        ...{ gflops: null, gbs: bytes / medians.ms! / 1e6 },
      };
    });
  } finally {
    await checkpoint.close();
    device.destroy();
  }
}

interface WeightFile {
  readonly path: string;
  readonly size: number;
}

async function weightFiles({ path }: ModelFolder): Promise<WeightFile[]> {
  const names = (await readdir(path)).filter((name) => name.endsWith(".safetensors")).sort();
  return Promise.all(
    names.map(async (name) => ({ path: join(path, name), size: (await stat(join(path, name))).size })),
  );
}

/** Reads every byte once, into the same buffers. */
async function readAll(files: readonly WeightFile[], buffers: readonly Uint8Array[]): Promise<void> {
  for (const { path, size } of files) {
    const file = await open(path);
    let next = 0;
    await Promise.all(
      buffers.map(async (buffer) => {
        for (let at = next; at < size; at = next) {
          next += READ;
          await file.read(buffer, 0, Math.min(READ, size - at), at);
        }
      }),
    );
    await file.close();
  }
}

/** Compares some matrices that are not stacked with the file's numbers, or with those as the host quantizes them. */
async function check(model: Model, checkpoint: Checkpoint): Promise<CheckResult> {
  const found = matricesOf(model.model).flatMap(({ path, weight }) => {
    const info = checkpoint.tensors.get(`${path}.weight`);
    const isSame = info?.shape.join() === weight.shape.join() && weight.whole === weight;
    return isSame && (info.dtype === "f32" || info.dtype === "f16" || info.dtype === "bf16")
      ? [{ weight, name: info.name, from: info.dtype }]
      : [];
  });
  if (found.length === 0) return { share: null, note: "no matrix of the file was found in the model" };
  for (let i = 0; i < MATRICES; i++) {
    const { weight, name, from } = found[Math.round((i * (found.length - 1)) / (MATRICES - 1))];
    const { dtype, shape, rowBytes } = weight;
    const rows = Math.min(ROWS, shape[0]);
    const inFile = await checkpoint.read(name, [0, rows]);
    let expected = inFile;
    if (isQuantized(dtype)) {
      expected = new Uint8Array(rows * rowBytes);
      quantizeRows(widen(inFile, from), shape[1], dtype, new Uint32Array(expected.buffer));
    }
    const { value: piece } = await weight.read(rows * rowBytes).next();
    if (!piece || Buffer.compare(piece, expected) !== 0)
      return { share: null, note: `${name} is not what its file says` };
  }
  return { share: 0 };
}

async function clock(fn: () => Promise<unknown>): Promise<Times> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await fn();
  const ms = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  return { ms, cpu_ms: (user + system) / 1000 };
}
