/**
 * Saving a model as transformers 5 does: config.json and the weights, read back from the device one after the other. The
 * processor saves itself (processor_files.ts). generation_config.json is not written: generate() takes its defaults from
 * text_config, here and in Hugging Face.
 *
 * Source: transformers 5.18, modeling_utils.py (save_pretrained, remove_tied_weights_from_state_dict).
 */
import type { StorageDType, Weights } from "../modules/weights.ts";
import { type WritableFolder, type WriteCheckpointOptions, writeCheckpoint } from "../tensor/checkpoint_writer.ts";
import type { TensorEntry } from "../tensor/safetensors.ts";
import { sizeOf } from "../tensor/shape.ts";
import type { VisionLanguageConfig } from "./config.ts";
import { type JsonRecord, jsonText } from "./json_file.ts";
import { platform } from "./platform.ts";

export interface SavePretrainedOptions extends Pick<WriteCheckpointOptions, "max_shard_size" | "signal"> {
  /** Called after each tensor. */
  on_progress?: (progress: SaveProgress) => void;
}

/** How far a save has come. */
export interface SaveProgress {
  readonly savedTensors: number;
  readonly totalTensors: number;
  /** The tensor that was written last. */
  readonly name: string;
}

/** The version of transformers whose layout is written. */
const LAYOUT = "5.18.0";
const DTYPE_NAMES: Readonly<Record<string, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" };
/** T5's names of one table; transformers keeps the first. */
const T5_TABLES = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"].map(
  (name) => `language_model.${name}.weight`,
);

/** The class of each model_type, by a name that no bundler shortens. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  instructblip: "InstructBlipForConditionalGeneration",
  instructblipvideo: "InstructBlipVideoForConditionalGeneration",
  "blip-2": "Blip2ForConditionalGeneration",
};

interface SavedModel {
  readonly config: VisionLanguageConfig;
  readonly weights: Weights;
}

/** Writes config.json and model.safetensors, or its shards and their index. */
export async function saveModel(
  to: string | WritableFolder,
  { config, weights }: SavedModel,
  { on_progress, signal, ...options }: SavePretrainedOptions = {},
): Promise<void> {
  const folder = typeof to === "string" ? await platform().createFolder(to) : to;
  const entries = named(weights.stored(), config);
  const total_parameters = entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  let savedTensors = 0;
  const counted = entries.map((entry) => ({
    ...entry,
    async *data() {
      signal?.throwIfAborted();
      yield* (entry.data as () => AsyncIterable<Uint8Array>)();
      savedTensors++;
      on_progress?.({ savedTensors, totalTensors: entries.length, name: entry.name });
    },
  }));
  await writeCheckpoint(folder, counted, { ...options, total_parameters, signal });
  await folder.writeText("config.json", configText(config, entries, weights.dtype));
}

/** The entries under the names that transformers gives them. */
function named(entries: readonly TensorEntry[], { text_config }: VisionLanguageConfig): TensorEntry[] {
  const names = new Set(entries.map(({ name }) => name));
  const table = T5_TABLES.find((name) => names.has(name));
  if (text_config.model_type !== "t5") return [...entries];
  return entries.map((entry) => (entry.name === table ? { ...entry, name: T5_TABLES[0] } : entry));
}

/**
 * config.json with every field, as transformers writes it. Its `dtype` is what the file said; with a dtype chosen on
 * loading, the matrices'.
 */
function configText(config: VisionLanguageConfig, entries: readonly TensorEntry[], dtype: StorageDType): string {
  const known = JSON.parse(JSON.stringify(config)) as JsonRecord;
  const nested = ["vision_config", "qformer_config", "text_config"].map((key) => {
    // The dtype of the whole is the dtype of its parts.
    const { torch_dtype: _, dtype: __, transformers_version: ___, ...part } = known[key] as JsonRecord;
    return [key, part];
  });
  const { torch_dtype, ...top } = known;
  const first = entries.find(({ name }) => name === "query_tokens") ?? entries[0];
  return jsonText(
    {
      ...top,
      ...Object.fromEntries(nested),
      architectures: [ARCHITECTURES[top.model_type as string]],
      dtype: dtype === "auto" ? (top.dtype ?? torch_dtype ?? DTYPE_NAMES[first.dtype]) : DTYPE_NAMES[dtype],
      [`${config.modality}_token_index`]: config.image_token ?? undefined,
      use_decoder_only_language_model: config.text_config.model_type !== "t5",
      transformers_version: LAYOUT,
    },
    { sorted: true },
  );
}
