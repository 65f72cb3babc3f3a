/**
 * Writes config.json as transformers 5 does: every field, and unknown keys as they were read.
 *
 * Source: transformers 5.18, configuration_utils.py (save_pretrained, to_dict).
 */

import type { WeightDType } from "../../tensor/dtype.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import { type JsonRecord, jsonText } from "../config/json_file.ts";
import { createFolder } from "./platform.ts";

/** The version of transformers whose layout is written. */
const LAYOUT = "5.18.0";
const DTYPE_NAMES: Readonly<Record<string, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/** The methods of a config that writing needs, besides its fields. */
interface SavedConfig {
  readonly architectures: readonly string[];
  readonly modality: string;
  readonly image_token: number | null;
  readonly text_config: { readonly model_type: string };
}

/** Writes config.json. @throws WeightError IO; InputError NO_FILES */
export async function saveConfig(to: string | WritableFolder, config: SavedConfig): Promise<void> {
  const folder = await createFolder(to);
  await folder.writeText("config.json", configText(config));
}

/**
 * The text of config.json.
 *
 * @param dtype of the weights. Default: the dtype that the config was read with, else f32
 * @param without fields that are left out, of the config and of its parts
 * @param architectures the model's class, if it is another than the family's
 */
export function configText(
  config: SavedConfig,
  dtype?: WeightDType,
  without: readonly string[] = [],
  architectures = config.architectures,
): string {
  const known = JSON.parse(JSON.stringify(config), (field, value) =>
    without.includes(field) ? undefined : value,
  ) as JsonRecord;
  // The parts of siblings have other class names in transformers.
  const family = String(known.model_type).replace("-", "_");
  const types = {
    vision_config: `${family}_vision_model`,
    qformer_config: `${family}_qformer`,
    text_config: undefined,
  };
  const nested = Object.entries(types).map(([key, type]) => {
    // The dtype of the whole is written to its parts.
    const { torch_dtype: _, dtype: __, transformers_version: ___, ...part } = known[key] as JsonRecord;
    return [key, { ...part, model_type: type ?? part.model_type }];
  });
  const { torch_dtype, ...top } = known;
  return jsonText(
    {
      ...top,
      ...Object.fromEntries(nested),
      architectures,
      dtype: dtype ? DTYPE_NAMES[dtype] : (top.dtype ?? torch_dtype ?? "float32"),
      [`${config.modality}_token_index`]: config.image_token ?? undefined,
      use_decoder_only_language_model: config.text_config.model_type !== "t5",
      transformers_version: LAYOUT,
    },
    { sorted: true },
  );
}

/** The text of config.json of a part that is a model by itself. @param architecture its class */
export function partText(config: object, dtype: WeightDType | undefined, architecture: string): string {
  const { torch_dtype, ...known } = JSON.parse(JSON.stringify(config)) as JsonRecord;
  const saved = dtype ? DTYPE_NAMES[dtype] : (known.dtype ?? torch_dtype ?? "float32");
  const own = { architectures: [architecture], dtype: saved, transformers_version: LAYOUT };
  return jsonText({ ...known, ...own }, { sorted: true });
}
