/**
 * Compares a golden with PyTorch, stage by stage: image, ids, every module, vision, Q-Former, projection, logits, tokens,
 * text.
 *
 * A golden is an ordinary checkpoint folder with PyTorch's numbers beside it (test/golden/README.md). Modules are checked
 * twice: teacher-forced, where each module's output is compared and then replaced by PyTorch's, so that every module
 * works on PyTorch's own input and errors neither hide nor add up; and free-running, without a tracer, so that the fused
 * paths which a tracer would take apart are the ones compared.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  InstructBlipVideoProcessor,
  traceOutputs,
} from "../../src/index.node.ts";
import type { GenerateOutput } from "../../src/instructblip/generation/output.ts";
import type { ModelInputs, QFormerInputs } from "../../src/instructblip/pretrained/inputs.ts";
import type { Device } from "../../src/tensor/device/device.ts";
import { SafetensorsFile } from "../../src/tensor/files/safetensors.ts";
import { FileSource } from "../../src/tensor/files/source.node.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { compare } from "../compare.ts";
import { goldenFolder } from "../golden_folder.ts";
import { TOLERANCES, type Tolerance } from "../tolerances.ts";
import { type Asked, compareAsked, compareSteps, compareTransitions, ready } from "./live_cases.ts";
import { compareBase, compareQFormer, compareRetrieval } from "./model_cases.ts";

/** One comparison: how much of the tolerance was used. Above 1, or with a note, it failed. */
export interface ParityRow {
  readonly stage:
    | "image"
    | "ids"
    | "module"
    | "exact"
    | "vision"
    | "qformer"
    | "projection"
    | "logits"
    | "tokens"
    | "drafts"
    | "scores"
    | "text"
    | "states"
    | "loss"
    | "ranking"
    | "interventions"
    | "lens"
    | "processor"
    | "base"
    | "retrieval";
  readonly name: string;
  readonly share: number;
  readonly maxAbs: number;
  readonly nmse: number;
  /** Ids and texts, of which nothing but equality will do. */
  readonly exact?: true;
  /** What differs, where numbers do not say it. */
  readonly note?: string;
}

interface Generation {
  readonly name: string;
  readonly kwargs: Record<string, unknown>;
  /** None where tokens are drawn, of which the scores are compared. */
  readonly answers: readonly string[];
}

export interface GoldenJson {
  readonly description: string;
  readonly prompts: readonly string[];
  readonly images: readonly string[];
  readonly generations: readonly Generation[];
  readonly modules: readonly string[];
  readonly same_as: Readonly<Record<string, string>>;
  readonly min_margin: number;
  /** What forward() and generate() are given besides the processor's output. */
  readonly options?: { readonly interpolate_pos_encoding?: boolean };
  readonly spec: {
    readonly backbone: string;
    readonly num_query_tokens: number;
    /** Pictures a prompt, of a video. */
    readonly frames?: number;
    /** Prompts have no placeholders; image features stand in front of them. */
    readonly legacy?: boolean;
    /** Absent: InstructBLIP. */
    readonly model?: string;
  };
  /** What live parity asks besides. */
  readonly asked?: Asked;
}

/** Without placeholders, PyTorch embeds the text alone, and we something in the features' place besides. */
const LEGACY_DIFFERS = /^language_model\.(shared|.*embed_tokens)$/;

/** Modules of PyTorch's that have no counterpart, and why. */
const NO_COUNTERPART = [
  /dropout(#\d+)?$/, // the identity when not training
  /rotary_emb$/, // our table is made once, on the host
];

/** What the processor gave PyTorch. BLIP-2's Q-Former reads no text, and lacks its two. */
export interface GoldenInputs {
  pixel_values: { data: Float32Array; shape: readonly number[] };
  qformer_input_ids: number[][];
  qformer_attention_mask: number[][];
  input_ids: number[][];
  attention_mask: number[][];
}

/** The inputs of a committed golden, of its first prompts or of all. */
export async function goldenInputs(name: string, prompts?: number): Promise<GoldenInputs> {
  const golden = await Golden.open(goldenFolder(name));
  const inputs = await golden.inputs(prompts);
  await golden.close();
  return inputs;
}

/** The inputs of one row of a committed golden. */
export async function goldenRow(name: string, row: number): Promise<GoldenInputs> {
  const { pixel_values, ...ids } = await goldenInputs(name);
  const { data, shape } = pixel_values;
  const size = data.length / shape[0];
  const image = { data: data.slice(row * size, (row + 1) * size), shape: shape.with(0, 1) };
  const rows = Object.entries(ids).map(([key, value]) => [key, value && [value[row]]]);
  return { pixel_values: image, ...Object.fromEntries(rows) } as GoldenInputs;
}

/** The numbers of a golden, read once each. */
export class Golden {
  readonly folder: string;
  readonly json: GoldenJson;
  readonly #file: SafetensorsFile;

  private constructor(folder: string, json: GoldenJson, file: SafetensorsFile) {
    this.folder = folder;
    this.json = json;
    this.#file = file;
  }

  static async open(folder: string): Promise<Golden> {
    const json = JSON.parse(await readFile(join(folder, "golden.json"), "utf8")) as GoldenJson;
    return new Golden(
      folder,
      json,
      await SafetensorsFile.open(await FileSource.open(join(folder, "golden.safetensors"))),
    );
  }

  has(name: string): boolean {
    return this.#file.tensors.has(this.json.same_as[name] ?? name);
  }

  /** Of every tensor whose name begins so, those stored under another name too. */
  names(prefix: string): string[] {
    return [...this.#file.tensors.keys(), ...Object.keys(this.json.same_as)].filter((name) => name.startsWith(prefix));
  }

  isFloat(name: string): boolean {
    return this.#file.tensors.get(this.json.same_as[name] ?? name)?.dtype === "f32";
  }

  async floats(name: string): Promise<{ data: Float32Array; shape: readonly number[] }> {
    const key = this.json.same_as[name] ?? name;
    const bytes = await this.#file.read(key);
    return { data: new Float32Array(bytes.slice().buffer), shape: this.#file.tensors.get(key)!.shape };
  }

  /** An i64[B, T] as rows of numbers. */
  async rows(name: string): Promise<number[][]> {
    const key = this.json.same_as[name] ?? name;
    const flat = [...new BigInt64Array((await this.#file.read(key)).slice().buffer)].map(Number);
    const [B, T] = this.#file.tensors.get(key)!.shape;
    return Array.from({ length: B }, (_, b) => flat.slice(b * T, (b + 1) * T));
  }

  /** @param prompts how many, the first ones. Default: all */
  async inputs(prompts?: number): Promise<GoldenInputs> {
    const { data, shape } = await this.floats("pixel_values");
    const B = prompts ?? shape[0];
    const pixels = { data: data.slice(0, (data.length / shape[0]) * B), shape: [B, ...shape.slice(1)] };
    const inputs: Partial<GoldenInputs> = { pixel_values: pixels };
    for (const name of ["qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask"] as const)
      if (this.has(name)) inputs[name] = (await this.rows(name)).slice(0, B);
    return inputs as GoldenInputs;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** Collects comparisons. */
export class Comparisons {
  readonly rows: ParityRow[] = [];

  numbers(
    stage: ParityRow["stage"],
    name: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    tolerance: Tolerance,
  ): void {
    try {
      this.rows.push({ stage, name, ...compare(actual, expected, tolerance, name) });
    } catch (error) {
      this.fail(stage, name, (error as Error).message);
    }
  }

  /**
   * A product's or a norm's root mean square error against f64, for PyTorch's own input, beside that of PyTorch's f32: at most
   * twice as large, or four roundings of the result, below which luck decides: of a norm over one massive channel in a single
   * row, all there is to see are the roundings of that one number, by the difference, scale, weight and bias.
   *
   * @param missing from `theirs` to the f64 result
   */
  errors(name: string, ours: ArrayLike<number>, theirs: Float32Array, missing: Float32Array): void {
    let [error, allowed, power, maxAbs] = [0, 0, 0, 0];
    for (let i = 0; i < theirs.length; i++) {
      const far = ours[i] - theirs[i] - missing[i];
      error += far ** 2;
      allowed += missing[i] ** 2;
      power += theirs[i] ** 2;
      maxAbs = Math.abs(far) <= maxAbs ? maxAbs : Math.abs(far); // a NaN stays
    }
    const most = Math.max(2 * Math.sqrt(allowed), 4 * 2 ** -24 * Math.sqrt(power));
    const share = error === 0 ? 0 : Math.sqrt(error) / most;
    this.rows.push({ stage: "exact", name, share, maxAbs, nmse: error === 0 ? 0 : error / power });
  }

  equal(stage: ParityRow["stage"], name: string, actual: unknown, expected: unknown): void {
    const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
    if (a === e) this.rows.push({ stage, name, share: 0, maxAbs: 0, nmse: 0, exact: true });
    else this.fail(stage, name, `got ${a}, expected ${e}`);
  }

  /** What could not even be compared. */
  fail(stage: ParityRow["stage"], name: string, note: string): void {
    this.rows.push({ stage, name, share: Number.POSITIVE_INFINITY, maxAbs: Number.NaN, nmse: Number.NaN, note });
  }
}

/** Runs every stage on `device` and gives a row for each comparison. */
export async function compareStages(golden: Golden, device: Device): Promise<ParityRow[]> {
  const found = new Comparisons();
  const { prompts, images, generations, modules, spec, options } = golden.json;
  const { frames, legacy = false } = spec;
  const files = images.map((file) => join(golden.folder, file));
  const processor = await AutoProcessor.from_pretrained(golden.folder);
  const request = { text: [...prompts], padding: true };
  let made: Partial<QFormerInputs & ModelInputs>;
  if (frames) {
    const videos = prompts.map((_, i) => files.slice(i * frames, (i + 1) * frames));
    made = await (await InstructBlipVideoProcessor.from_pretrained(golden.folder))({ ...request, images: videos });
  } else {
    made = await processor({ ...request, images: files });
  }
  const pixel_values = await golden.floats("pixel_values");
  found.numbers("image", "pixel_values", made.pixel_values!.data, pixel_values.data, TOLERANCES.pixels);
  // Processors put placeholders into every prompt, and for four frames of a video whatever they are given.
  const asProcessed = !legacy && (frames === undefined || frames === 4);
  const ids: Record<string, number[][]> = {};
  for (const name of ["qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask"] as const) {
    if (!golden.has(name)) continue; // BLIP-2 has one tokenizer
    ids[name] = await golden.rows(name);
    if (asProcessed) found.equal("ids", name, made[name], ids[name]);
  }

  // From here on PyTorch's own inputs, so that a tokenizer's mistake does not spread.
  const inputs = {
    pixel_values,
    ...(ids as Record<"qformer_input_ids" | "qformer_attention_mask" | "input_ids" | "attention_mask", number[][]>),
    ...options,
    ...(golden.has("decoder_input_ids") && { decoder_input_ids: await golden.rows("decoder_input_ids") }),
  };
  const model = await AutoModelForImageTextToText.from_pretrained(golden.folder, { device });
  try {
    const expected = new Map<string, Float32Array>();
    for (const path of modules)
      if (golden.has(`output:${path}`)) expected.set(path, (await golden.floats(`output:${path}`)).data);
    const { outputs } = await traceOutputs(
      device,
      () => model.forward(inputs),
      (path, output) => {
        const numbers = expected.get(path);
        return numbers && numbers.length === output.size
          ? (device.tensor(numbers, output.shape) as Tensor<"f32">)
          : undefined;
      },
    );
    for (const path of modules) {
      if (NO_COUNTERPART.some((pattern) => pattern.test(path)) || path === "") continue;
      if (legacy && LEGACY_DIFFERS.test(path)) continue;
      const theirs = expected.get(path);
      const ours = outputs.get(path);
      if (!theirs) continue;
      if (!ours) {
        found.fail("module", path, "our model does not have this module");
        continue;
      }
      // PyTorch looks positions up once and broadcasts over the batch.
      const data = path.endsWith("position_embeddings") ? ours.data.subarray(0, theirs.length) : ours.data;
      found.numbers("module", path, data, theirs, TOLERANCES.module);
      const missing = `missing:${path}`;
      if (golden.has(missing)) found.errors(path, data, theirs, (await golden.floats(missing)).data);
    }

    const output = await model.forward(inputs);
    const free = [
      ["vision", "vision_outputs.last_hidden_state", output.vision_outputs.last_hidden_state],
      ["qformer", "qformer_outputs.last_hidden_state", output.qformer_outputs.last_hidden_state],
      ["projection", "image_features", output.image_features],
      ["logits", "logits", output.logits],
    ] as const;
    for (const [stage, name, tensor] of free) {
      found.numbers(stage, name, await tensor.read(), (await golden.floats(name)).data, TOLERANCES.free_running);
      tensor.dispose();
    }

    for (const { name, kwargs, answers } of generations) {
      const { decoder_input_ids: _, ...all } = inputs as typeof inputs & { decoder_input_ids?: number[][] };
      const prompt = name === "no_prompt" ? { pixel_values, ...options } : all;
      const call = {
        ...prompt,
        ...ready(kwargs, model.language_model.vocabulary, processor.tokenizer),
        return_dict_in_generate: true,
        ...(kwargs.output_scores ? { logprobs: 0 } : {}),
      } as const;
      let output: GenerateOutput;
      try {
        output = await model.generate(call);
      } catch (error) {
        found.fail("tokens", name, (error as Error).message);
        continue;
      }
      if (golden.has(`${name}.sequences`)) {
        const theirs = await golden.rows(`${name}.sequences`);
        found.equal("tokens", name, output.sequences, theirs);
        const scores = `${name}.sequences_scores`;
        if (golden.has(scores)) {
          // The bar holds for sums of log-probabilities; a negative length penalty multiplies these, errors and all.
          const longest =
            Math.max(...theirs.map((row) => row.length)) -
            (spec.backbone === "t5" ? 1 : legacy ? 0 : inputs.input_ids[0].length);
          const factor = Math.max(1, longest ** -Number(kwargs.length_penalty ?? 1));
          // Over massive channels the sum is worse defined: by what f64 gives if the weights are off by f32's rounding.
          const condition = `${scores}.condition`;
          const [shaken] = golden.has(condition) ? (await golden.floats(condition)).data : [0];
          const tolerance = { abs: Math.max(TOLERANCES.beam_scores.abs * factor, 3 * shaken) };
          found.numbers("scores", scores, output.sequences_scores ?? [], (await golden.floats(scores)).data, tolerance);
        }
        // Beams of a model without any end id are filled with -1, which no tokenizer reads.
        const rows = theirs.map((row) => row.filter((id) => id >= 0));
        found.equal("text", name, processor.batch_decode(rows, { skip_special_tokens: true }), answers);
      }
      if (kwargs.output_scores) await compareSteps(golden, found, `${name}.scores`, output.scores);
      if (golden.has(`${name}.transition_scores`)) await compareTransitions(golden, found, name, model, output);
      if (kwargs.output_logits) await compareSteps(golden, found, `${name}.logits`, output.logits);
    }
    await compareAsked(golden, found, model, inputs);
  } finally {
    model.dispose();
  }
  await compareBase(golden, found, device, inputs);
  await compareRetrieval(golden, found, device);
  await compareQFormer(golden, found, device);
  return found.rows;
}

/** The rows that failed, in words. */
export function failures(rows: readonly ParityRow[]): string[] {
  return rows
    .filter((row) => !(row.share <= 1))
    .map(
      ({ stage, name, share, nmse, note }) =>
        `${stage} ${name}: ${note ?? `${(100 * share).toFixed(0)} % of the tolerance, NMSE ${nmse.toExponential(1)}`}`,
    );
}
