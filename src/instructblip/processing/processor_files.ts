/**
 * A processor's files: reading them, and writing them as transformers 5 does. processor.ts has the base class of processors.
 *
 * Source: transformers 5.18, processing_utils.py (save_pretrained, to_dict), video_processing_utils.py.
 */
import { ConfigError } from "../../tensor/errors.ts";
import { textFile, type WritableFolder, writeTogether } from "../../tensor/files/file_set.ts";
import { numQueryTokens } from "../config/config.ts";
import { familyOf } from "../config/families.ts";
import { type JsonRecord, jsonText } from "../config/json_file.ts";
import type { JsonFolder } from "../config/json_folder.ts";
import { type PretrainedFrom, readPretrainedOptions } from "../pretrained/from_pretrained.ts";
import type { OpenFolderOptions } from "../pretrained/hub/hub.ts";
import { type ModelFolder, openPretrained } from "../pretrained/model_folder.ts";
import { createFolder } from "../pretrained/platform.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { BlipImageProcessor, givenTransform } from "./image_processor.ts";
import type { ImageTransform } from "./image_transform.ts";
import type { ImageBackend } from "./resize.ts";

/** Options of the image processor. */
export interface PixelOptions {
  /** The backend of the image processor. Default "pil". */
  backend?: ImageBackend | undefined;
  /** What resizing does, by LAVIS's names: see {@link ImageOptions}. Default: the file's, else "blip_image_eval". */
  image_transform?: ImageTransform | undefined;
}

export interface ProcessorFromPretrainedOptions extends OpenFolderOptions, PixelOptions {}

/**
 * Opens the folder that a processor is read from, and reads the image processor's options.
 *
 * @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION; the platform's
 */
export async function openProcessor(
  from: PretrainedFrom,
  options: ProcessorFromPretrainedOptions,
): Promise<{ folder: ModelFolder; pixels: PixelOptions }> {
  const { backend, image_transform, ...open } = readPretrainedOptions(options, ["backend", "image_transform"]);
  const pixels = { backend: backend ?? undefined, image_transform: image_transform ?? undefined };
  return { folder: await openPretrained(from, open), pixels };
}

/**
 * Placeholders per image: from processor_config.json, or in folders from before transformers 4.45, whose processors lack it,
 * from the model's config: 0 for a legacy model, whose prompts have none. Null if neither has it. Hugging Face reads the
 * processor's file only.
 *
 * @throws ConfigError CONFIG_RANGE, CONFIG_JSON
 */
export async function readQueryCount(folder: JsonFolder): Promise<number | null> {
  const own = (await folder.json("processor_config.json"))?.num_query_tokens;
  if (own !== undefined && own !== null) return checkedCount(own, "processor_config.json");
  const model = await folder.json("config.json");
  const family = familyOf(model?.model_type);
  if (!model || !family) return null;
  const isNumber = (spelling: string) => typeof model[`${family.modality}_token_${spelling}`] === "number";
  if (!["index", "id"].some(isNumber)) return 0;
  return checkedCount(model.num_query_tokens ?? 32, "config.json"); // 32: HF's default
}

function checkedCount(count: unknown, file: string): number {
  return numQueryTokens(count, `${file}: num_query_tokens`);
}

/** The count, which images need. @throws ConfigError CONFIG_MISSING */
export function requireQueryCount(count: number | null): number {
  if (count !== null) return count;
  throw new ConfigError(
    "CONFIG_MISSING",
    "processor_config.json has no num_query_tokens, and there is no model's config.json beside it that has one, so the " +
      "image's placeholders cannot be counted",
    {
      hint: "put the model's config.json there, or add num_query_tokens (32 in the published checkpoints)",
    },
  );
}

/** The image processor, of images or of a video's frames. @throws ConfigError CONFIG_MISSING, CONFIG_JSON, CONFIG_IMAGE */
export function readPixelProcessor(
  folder: JsonFolder,
  modality: "image" | "video",
  { backend, image_transform }: PixelOptions = {},
): Promise<BlipImageProcessor> {
  return modality === "video"
    ? readVideoProcessor(folder, { backend, image_transform })
    : BlipImageProcessor.from_pretrained(folder, backend, image_transform);
}

/**
 * The config of a video's image processor: processor_config.json's `video_processor`, else video_preprocessor_config.json,
 * else preprocessor_config.json.
 *
 * @throws ConfigError CONFIG_MISSING, CONFIG_JSON, CONFIG_IMAGE
 */
async function readVideoProcessor(
  folder: JsonFolder,
  { backend, image_transform }: PixelOptions,
): Promise<BlipImageProcessor> {
  const nested = (await folder.json("processor_config.json"))?.video_processor;
  const files = ["video_preprocessor_config.json", "preprocessor_config.json"];
  let [config, file] = [nested, "processor_config.json"] as [unknown, string];
  for (const name of files) if (config === undefined) [config, file] = [await folder.json(name), name];
  if (config === undefined) {
    throw new ConfigError("CONFIG_MISSING", `${folder.name}: no processor_config.json or ${files.join(" or ")}`);
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new ConfigError("CONFIG_JSON", `${file}: video_processor must be an object`);
  }
  if ((config as JsonRecord).do_sample_frames) {
    throw new ConfigError("CONFIG_IMAGE", `${file}: do_sample_frames is not supported: the caller picks the frames`);
  }
  const more = givenTransform(image_transform);
  return new BlipImageProcessor({ ...(config as JsonRecord), ...more }, file, backend);
}

/** The parts of a processor, for {@link saveProcessor}. */
export interface ProcessorParts {
  readonly processor_class: string;
  /** The image processor's entry of processor_config.json. */
  readonly pixels: Readonly<Record<string, JsonRecord>>;
  readonly num_query_tokens: number | null;
  readonly tokenizer: Tokenizer;
  readonly qformer_tokenizer: Tokenizer | undefined;
}

/** Writes processor_config.json, the tokenizer's files, and the Q-Former's in a folder of their own. */
export async function saveProcessor(to: string | WritableFolder, parts: ProcessorParts): Promise<void> {
  const folder = await createFolder(to);
  const { processor_class, pixels, num_query_tokens, tokenizer, qformer_tokenizer } = parts;
  // No count for no placeholders, as in transformers; it is read back as none.
  const config = { ...pixels, num_query_tokens: num_query_tokens || null, processor_class };
  const saved = tokenizer.toFiles({ processor_class });
  const qformer = qformer_tokenizer?.toFiles({ processor_class, subfolder: "qformer_tokenizer" });
  // No processor loads without an image processor; without a tokenizer.json transformers creates an empty tokenizer.
  const head = textFile("processor_config.json", jsonText(config, { sorted: true }));
  await writeTogether(
    folder,
    [...(qformer?.files ?? []), ...saved.files, head],
    ["preprocessor_config.json", "video_preprocessor_config.json", head.name, ...saved.old, ...(qformer?.old ?? [])],
  );
}
