/**
 * Saves a model as transformers 5 does: config.json and the weights, read back from the device one after the other. The
 * processor has its own save_pretrained (processor_files.ts). generation_config.json is not written: generate() takes its
 * defaults from text_config, here and in Hugging Face.
 *
 * Source: transformers 5.18, modeling_utils.py (save_pretrained, remove_tied_weights_from_state_dict).
 */
import type { Weights } from "../../modules/weights.ts";
import type { WeightDType } from "../../tensor/dtype.ts";
import { WeightError } from "../../tensor/errors.ts";
import { type WriteCheckpointOptions, writeCheckpoint } from "../../tensor/files/checkpoint_writer.ts";
import { textFile, type WritableFolder } from "../../tensor/files/file_set.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { isQuantized } from "../../tensor/quantize.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { convert, Weight } from "../../tensor/weight.ts";
import type { Blip2QFormerConfig } from "../config/blip_2.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import { configText, partText } from "./config_file.ts";
import { createFolder } from "./platform.ts";

export interface SavePretrainedOptions extends Pick<WriteCheckpointOptions, "max_shard_size" | "signal"> {
  /** Called after each tensor. */
  on_progress?: (progress: SaveProgress) => void;
}

/** Their names. */
export const SAVE_OPTIONS = ["max_shard_size", "signal", "on_progress"] satisfies (keyof SavePretrainedOptions)[];

/** Progress of saving. */
export interface SaveProgress {
  readonly savedTensors: number;
  readonly totalTensors: number;
  /** The last written tensor. */
  readonly name: string;
}

/** The names of a tied table in a file; transformers keeps the first. */
const TABLES = {
  t5: ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"],
  opt: ["model.decoder.embed_tokens", "lm_head"],
  llama: ["model.embed_tokens", "lm_head"],
} as const;

interface SavedModel {
  readonly config: VisionLanguageConfig | Blip2QFormerConfig;
  readonly weights: Weights;
  /** The model's class in Hugging Face. */
  readonly architecture: string;
}

/** Writes config.json and model.safetensors, or its shards and their index. */
export async function saveModel(
  to: string | WritableFolder,
  { config, weights, architecture }: SavedModel,
  { on_progress, signal, ...options }: SavePretrainedOptions = {},
): Promise<void> {
  const folder = await createFolder(to);
  const entries = named(weights.stored(), config);
  const total_parameters = entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  let savedTensors = 0;
  const counted = entries.map((entry) => ({
    ...entry,
    async *data() {
      signal?.throwIfAborted();
      yield* (entry.data as () => AsyncIterable<Uint8Array>)();
      savedTensors++;
      await on_progress?.({ savedTensors, totalTensors: entries.length, name: entry.name });
    },
  }));
  const { dtype } = weights;
  const saved = typeof dtype === "string" && dtype !== "auto" ? dtype : undefined;
  // What is saved are floats, whatever the checkpoint had.
  const text = isPart(config)
    ? partText(config, saved, architecture)
    : configText(config, saved, ["quantization_config"], [architecture]);
  const beside = [textFile("config.json", text)];
  await writeCheckpoint(folder, counted, { ...options, total_parameters, signal, beside });
}

const isPart = (config: SavedModel["config"]): config is Blip2QFormerConfig => !("text_config" in config);

/** The entries under transformers' names. */
function named<E extends { readonly name: string }>(entries: readonly E[], config: SavedModel["config"]): E[] {
  if (isPart(config)) return [...entries];
  const names = new Set(entries.map(({ name }) => name));
  const isHeadless = !entries.some(({ name }) => name.startsWith("language_model.model."));
  const nameOf = (table: string) => `language_model.${isHeadless ? table.replace(/^model\./, "") : table}.weight`;
  const tables = TABLES[config.text_config.model_type];
  const stored = tables.map(nameOf).find((name) => names.has(name));
  return entries.map((entry) => (entry.name === stored ? { ...entry, name: nameOf(tables[0]) } : entry));
}

/** A parameter of a model. */
export interface StateDictEntry {
  /** As in the checkpoint. */
  readonly shape: Shape;
  /** Storage dtype on the device. */
  readonly dtype: WeightDType;
  /** Its numbers. @throws WeightError QUANTIZED for int8 and int4; DeviceError */
  read(): Promise<Float32Array>;
}

/** Every parameter, under transformers' name. */
export function stateDict({ config, weights }: SavedModel): Map<string, StateDictEntry> {
  const entries = [...weights.parameters].map(([name, parameter]) => ({
    name,
    shape: weights.shapeOf(name),
    dtype: parameter.dtype as WeightDType,
    read: () => (parameter instanceof Weight ? numbersOf(name, parameter) : readTensor(parameter)),
  }));
  return new Map(named(entries, config).map(({ name, ...entry }) => [name, entry]));
}

async function numbersOf(name: string, weight: Weight): Promise<Float32Array> {
  const { dtype, shape } = weight;
  if (isQuantized(dtype)) {
    throw new WeightError("QUANTIZED", `${name}: ${dtype} numbers are not read back`, {
      hint: "load the model with dtype f32, f16, bf16 or auto to read it",
    });
  }
  const numbers = new Float32Array(sizeOf(shape));
  let at = 0;
  for await (const bytes of weight.read()) {
    const { buffer, byteOffset, byteLength } = convert(bytes, dtype, "f32");
    numbers.set(new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength)), at);
    at += byteLength / 4;
  }
  return numbers;
}

async function readTensor(tensor: Tensor): Promise<Float32Array> {
  return tensor.device.scope(() => contiguous(tensor).read());
}
