/**
 * The whole model: the checkpoint of examples/shapes if it is there, else a golden of the tests. Its inputs are random, of
 * the checkpoint's own sizes. Before timing, tokens generated with the cache are compared with one pass over the same tokens
 * without a cache.
 */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { formatCount } from "../src/instructblip/cli/format.ts";
import type {
  InstructBlipInputs,
  InstructBlipForConditionalGeneration as Model,
} from "../src/instructblip/pretrained/instructblip.ts";
import type { FromPretrainedOptions } from "../src/instructblip/pretrained/load.ts";
import { Random } from "../src/tensor/cases/support/random.ts";
import type { Device } from "../src/tensor/device/device.ts";
import { NodeFolder, openCheckpoint } from "../src/tensor/files/source.node.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { goldenFolder } from "../test/golden_folder.ts";
import { basisOf, type Measured } from "./harness.ts";
import { openBenchDevice, root } from "./machine.ts";
import { type StepWork, workOf } from "./model_work.ts";
import type { Pace } from "./pace.ts";
import { type PerToken, timesOf } from "./rows.ts";
import type { Settings } from "./settings.ts";

/** The timed steps, by their names in the table. */
export const MODEL_STEPS = ["load", "image features", "prefill", "first token", "decode"] as const;
export type ModelStep = (typeof MODEL_STEPS)[number];

const TEXT_TOKENS = 24;
/** Tokens of a measured answer; of a model of billions of parameters on a CPU each takes seconds. */
const newTokens = (parameters: number) => (parameters > 1e9 ? 12 : 33);
/** The first of them, which are launched and captured; the others are replayed. */
const SETTLING = 6;
/** How far below the best logit a generated token may lie in the pass without a cache, of the logits' range. */
const TIE = 1e-4;

export interface ModelFolder {
  readonly name: string;
  readonly path: string;
}

/** The default checkpoint. */
export function modelFolder(path?: string): ModelFolder {
  if (path !== undefined) return { name: basename(path.replace(/\/+$/, "")), path };
  const own = join(root, "examples/shapes/checkpoint");
  if (existsSync(join(own, "model.safetensors")) && existsSync(join(own, "config.json")))
    return { name: "shapes", path: own };
  return { name: "golden plain_f32", path: goldenFolder("plain_f32") };
}

/** What `--filter` is matched against. */
export function modelStepName(folder: ModelFolder, step: ModelStep): string {
  return `model ${step} ${folder.name}`;
}

interface Times {
  readonly wall: number;
  readonly cpu: number;
}

/** A row for each step. Kernels compile in `first`: of loading and of the first token on a fresh device. */
export async function measureModel(
  folder: ModelFolder,
  steps: readonly ModelStep[],
  { rounds, turnMs, dtype = "auto" }: Settings & { dtype?: FromPretrainedOptions["dtype"] },
  pace: Pace,
): Promise<Measured[]> {
  pace.show(`loading ${folder.name}`);
  const { InstructBlipForConditionalGeneration: Model } = await import(
    "../src/instructblip/pretrained/instructblip.ts"
  );
  const device = await openBenchDevice();
  try {
    const load = async () => {
      const model = await Model.from_pretrained(new NodeFolder(folder.path), { device, dtype, image_cache: 0 });
      await device.sync();
      return model;
    };
    let model: Model | undefined;
    const firstLoad = await clock(async () => {
      model = await load();
    });
    const loaded = model!;
    const inputs = randomInputs(loaded);
    const parameters = await parametersOf(folder);
    const NEW_TOKENS = newTokens(parameters);
    const generate = (max_new_tokens: number, on_token?: (step: number) => void) =>
      loaded.generate({ ...inputs, max_new_tokens, eos_token_id: null, on_token });
    const coldToken = await clock(() => generate(1));
    pace.show("checking decoding");
    const check = await checkDecoding(loaded, inputs, NEW_TOKENS);

    /** One run of each step: its time and counts. */
    const L = inputs.input_ids[0].length;
    const T = inputs.qformer_input_ids[0].length;
    const work = workOf(loaded, { L, T, S: L + NEW_TOKENS / 2 });
    const prefill = prefillOf(loaded, L, L + NEW_TOKENS);
    const runs: Record<ModelStep, () => Promise<Times>> = {
      load: () =>
        clock(async () => {
          (await load()).dispose();
        }),
      "image features": () =>
        clock(() =>
          device.scope(async () => {
            await loaded.get_image_features(inputs);
            await device.sync();
          }),
        ),
      prefill: () => clock(prefill.run),
      "first token": () => clock(() => generate(1)),
      decode: async () => (await decode(device, (on_token) => generate(NEW_TOKENS, on_token))).times,
    };
    /** The row of one run; of decoding per token. */
    const launches = new Map<ModelStep, number>();
    const first: Partial<Record<ModelStep, Times>> = { load: firstLoad, "first token": coldToken };
    const taken = new Map<ModelStep, Times[]>(steps.map((step) => [step, []]));
    for (const step of steps) {
      pace.show(`warming ${modelStepName(folder, step)}`);
      const before = device.counts.launches;
      await runs[step]();
      launches.set(step, device.counts.launches - before);
    }
    const names = steps.map((step) => modelStepName(folder, step));
    await pace.begin(names, rounds);
    for (let round = 0; round < rounds; round++) {
      for (const [i, step] of steps.entries()) {
        await pace.turn(round, names[i]);
        const turn: Times[] = [];
        for (let ms = 0; ms < turnMs || turn.length === 0; ms += Math.max(turn.at(-1)!.wall, 1e-3))
          turn.push(await runs[step]());
        taken.get(step)!.push(mean(turn));
      }
    }
    const { per_token } = await decode(device, (on_token) => generate(NEW_TOKENS, on_token));
    prefill.dispose();
    const stored = dtype === "auto" ? "" : `, ${typeof dtype === "string" ? dtype : JSON.stringify(dtype)}`;
    const shape = `${folder.name}, ${formatCount(parameters)} parameters${stored}`;
    const basis = basisOf(device.caps);
    return steps.map((step) => {
      const times = taken.get(step)!;
      const samples = { wall: times.map((time) => time.wall), cpu: times.map((time) => time.cpu), gpu: [] };
      const medians = timesOf(samples);
      const tokens = { prefill: L, decode: 1 }[step as "prefill" | "decode"] as number | undefined;
      return {
        ...{ kernel: "model", variant: step, planned: true, shape, check, first_ms: first[step]?.wall ?? null },
        ...{ ...medians, samples, rounds, repetitions: 1, basis },
        ...{ launches: step === "decode" ? per_token.launches : launches.get(step)!, ...work[step] },
        ...{ footprint: work.load.bytes, ...rates(work[step], basis === "cpu" ? medians.cpu_ms! : medians.ms!) },
        ...(tokens !== undefined && { tokens_per_second: (1000 * tokens) / medians.ms! }),
        ...(step === "decode" && { per_token }),
      };
    });
  } finally {
    device.destroy();
  }
}

/** Billions a second. */
function rates({ flops, bytes }: StepWork, ms: number): Pick<Measured, "gflops" | "gbs"> {
  const rate = (count: number) => (count > 0 ? count / ms / 1e6 : null);
  return { gflops: rate(flops), gbs: rate(bytes) };
}

/** Wall and CPU milliseconds of a call. */
async function clock(fn: () => Promise<unknown>): Promise<Times> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await fn();
  const wall = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  return { wall, cpu: (user + system) / 1000 };
}

function mean(times: readonly Times[]): Times {
  const sum = (of: (time: Times) => number) => times.reduce((total, time) => total + of(time), 0) / times.length;
  return { wall: sum((time) => time.wall), cpu: sum((time) => time.cpu) };
}

/** Time and counts of one token, in steady state. */
async function decode(
  device: Device,
  generate: (on_token: (step: number) => void) => Promise<unknown>,
): Promise<{ times: Times; per_token: PerToken }> {
  const now = () => {
    const { user, system } = process.cpuUsage();
    const { launches, submits, bindGroups } = device.counts;
    return {
      wall: performance.now(),
      cpu: (user + system) / 1000,
      launches,
      submits,
      bindGroups,
      buffers: device.memory.use.created,
    };
  };
  const marks: ReturnType<typeof now>[] = [];
  await generate(() => marks.push(now()));
  const [first, last] = [marks[SETTLING], marks[marks.length - 1]];
  const each = (of: (mark: typeof first) => number) => (of(last) - of(first)) / (marks.length - 1 - SETTLING);
  return {
    times: { wall: each((mark) => mark.wall), cpu: each((mark) => mark.cpu) },
    per_token: {
      launches: each((mark) => mark.launches),
      submits: each((mark) => mark.submits),
      bind_groups: each((mark) => mark.bindGroups),
      buffers: each((mark) => mark.buffers),
    },
  };
}

/** The language model's pass over L embedded tokens, with the head for the last. */
function prefillOf(
  { device, language_model, config }: Model,
  L: number,
  capacity: number,
): { run: () => Promise<void>; dispose: () => void } {
  const D = config.text_config.hidden_size;
  const inputs_embeds = device.tensor(new Random(1).normal(L * D), [1, L, D]);
  const attention_mask = [new Array<number>(L).fill(1)];
  return {
    run: () =>
      device.scope(async () => {
        const decoding = language_model.begin(1, capacity);
        decoding.prefill({ inputs_embeds, attention_mask });
        await device.sync();
        decoding.dispose();
      }),
    dispose: () => inputs_embeds.dispose(),
  };
}

/** A random image, a random instruction, and a prompt: placeholders of the image, then random text. */
function randomInputs({ config, qformer, language_model }: Model): InstructBlipInputs {
  const random = new Random(1);
  const side = config.vision_config.image_size;
  const T = Math.min(TEXT_TOKENS, qformer.embeddings.max_position_embeddings);
  const ids = (count: number, vocabulary: number) =>
    Array.from({ length: count }, () => {
      for (;;) {
        const id = random.int(0, vocabulary);
        if (id !== config.image_token) return id;
      }
    });
  const image = new Array<number>(config.num_query_tokens).fill(config.image_token!);
  return {
    pixel_values: { data: random.normal(3 * side * side), shape: [1, 3, side, side] },
    qformer_input_ids: [ids(T, qformer.embeddings.word_embeddings.num_embeddings)],
    input_ids: [[...image, ...ids(T, language_model.num_embeddings)]],
  };
}

/** Generates with the cache, then compares with the best token at each position of one pass without a cache. */
async function checkDecoding(
  model: Model,
  inputs: InstructBlipInputs,
  max_new_tokens: number,
): Promise<{ share: number }> {
  const prompt = inputs.input_ids[0];
  const [sequence] = await model.generate({ ...inputs, max_new_tokens, eos_token_id: null });
  // A generated image placeholder would count as another image token: compare up to there.
  const placeholder = sequence.indexOf(model.config.image_token!, prompt.length);
  const end = placeholder < 0 ? sequence.length : placeholder;
  return model.device.scope(async () => {
    const { logits } = await model.forward({ ...inputs, input_ids: [sequence.slice(0, end)] });
    const numbers = await logits.read();
    const V = logits.shape[2];
    let worst = 0;
    for (let at = prompt.length; at < end; at++) {
      const row = numbers.subarray((at - 1) * V, at * V);
      const [least, most] = [Math.min(...row), Math.max(...row)];
      worst = Math.max(worst, (most - row[sequence[at]]) / (most - least));
    }
    return { share: worst / TIE };
  });
}

async function parametersOf({ path }: ModelFolder): Promise<number> {
  const checkpoint = await openCheckpoint(path);
  let parameters = 0;
  for (const { shape } of checkpoint.tensors.values()) parameters += sizeOf(shape);
  await checkpoint.close();
  return parameters;
}
