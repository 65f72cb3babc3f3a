/**
 * A processor's files: which of them say what, and writing them as transformers 5 does. Whole processors are processor.ts,
 * blip_2_processor.ts and instructblip_video_processor.ts.
 *
 * Source: transformers 5.18, processing_utils.py (save_pretrained, to_dict), video_processing_utils.py.
 */
import type { WritableFolder } from "../tensor/checkpoint_writer.ts";
import { ConfigError } from "../tensor/errors.ts";
import type { Folder } from "../tensor/source.ts";
import { BlipImageProcessor, type ImageBackend } from "./image_processor.ts";
import { type JsonRecord, jsonText, readJson } from "./json_file.ts";
import { type OpenFolderOptions, platform } from "./platform.ts";
import type { Tokenizer } from "./tokenizer.ts";

export interface ProcessorFromPretrainedOptions extends OpenFolderOptions {
  /** Whose arithmetic makes the pixels. Default "pil". */
  backend?: ImageBackend;
}

/** The folder itself, or the one behind a path, a Hub id or a URL. */
export async function folderOf(from: string | Folder, options?: OpenFolderOptions): Promise<Folder> {
  return typeof from === "string" ? platform().openFolder(from, options) : from;
}

/** processor_config.json's count of placeholders for one picture; null in files older than transformers 4.45. */
export async function readQueryCount(folder: Folder): Promise<number | null> {
  const config = (await readJson(folder, "processor_config.json")) ?? {};
  const count = config.num_query_tokens ?? null;
  if (count !== null && !(Number.isInteger(count) && (count as number) > 0)) {
    throw new ConfigError(
      "CONFIG_RANGE",
      `processor_config.json: num_query_tokens must be a whole number from 1, got ${JSON.stringify(count)}`,
    );
  }
  return count as number | null;
}

/** The count where pictures cannot do without it. @throws ConfigError CONFIG_MISSING */
export function requireQueryCount(count: number | null): number {
  if (count !== null) return count;
  throw new ConfigError(
    "CONFIG_MISSING",
    "processor_config.json has no num_query_tokens, so the image's placeholders cannot be counted",
    {
      hint: "add it, with config.json's value (32 in the published checkpoints)",
    },
  );
}

/**
 * What frames are made into pixels by: processor_config.json's `video_processor`, else video_preprocessor_config.json, else
 * preprocessor_config.json.
 *
 * @throws ConfigError CONFIG_MISSING, CONFIG_JSON, CONFIG_IMAGE
 */
export async function readVideoProcessor(folder: Folder, backend?: ImageBackend): Promise<BlipImageProcessor> {
  const nested = (await readJson(folder, "processor_config.json"))?.video_processor;
  const files = ["video_preprocessor_config.json", "preprocessor_config.json"];
  let [config, file] = [nested, "processor_config.json"] as [unknown, string];
  for (const name of files) if (config === undefined) [config, file] = [await readJson(folder, name), name];
  if (config === undefined) {
    throw new ConfigError("CONFIG_MISSING", `${folder.name}: no processor_config.json or ${files.join(" or ")}`);
  }
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new ConfigError("CONFIG_JSON", `${file}: video_processor must be an object`);
  }
  if ((config as JsonRecord).do_sample_frames) {
    throw new ConfigError("CONFIG_IMAGE", `${file}: do_sample_frames is not supported: the caller picks the frames`);
  }
  return new BlipImageProcessor(config as JsonRecord, file, backend);
}

/** A processor taken apart, for {@link saveProcessor}. */
export interface ProcessorParts {
  readonly processor_class: string;
  /** processor_config.json's entry of what makes pixels. */
  readonly pixels: Readonly<Record<string, JsonRecord>>;
  readonly num_query_tokens: number | null;
  readonly tokenizer: Tokenizer;
  readonly qformer_tokenizer?: Tokenizer;
}

/** Writes processor_config.json, the tokenizer's files, and the Q-Former's in a folder of their own. */
export async function saveProcessor(to: string | WritableFolder, parts: ProcessorParts): Promise<void> {
  const folder = typeof to === "string" ? await platform().createFolder(to) : to;
  const { processor_class, pixels, num_query_tokens, tokenizer, qformer_tokenizer } = parts;
  await tokenizer.save_pretrained(folder, { processor_class });
  await qformer_tokenizer?.save_pretrained(folder, { processor_class, subfolder: "qformer_tokenizer" });
  await folder.writeText(
    "processor_config.json",
    jsonText({ ...pixels, num_query_tokens, processor_class }, { sorted: true }),
  );
}
