/** Shared by commands: reading images, the processor, and loading the model. */
import type { KVCacheDType } from "../../modules/storage_dtype.ts";
import type { LoadProgress, StorageDType } from "../../modules/weights.ts";
import type { Device } from "../../tensor/device/device.ts";
import { formatBytes } from "../../tensor/device/memory.ts";
import type { ComputeDType } from "../../tensor/dtype.ts";
import type { Folder } from "../../tensor/files/source.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import type { EmbeddedImage } from "../data/row.ts";
import type { ImageSource } from "../evaluation/task.ts";
import { AutoModelForImageTextToText } from "../pretrained/auto_model.ts";
import type { AnyProcessor } from "../pretrained/auto_processor.ts";
import type { InstructBlipInputs } from "../pretrained/instructblip.ts";
import type { FromPretrainedOptions } from "../pretrained/load.ts";
import type { WeightParts } from "../pretrained/model_folder.ts";
import type { VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import type { RgbImage } from "../processing/image.ts";
import { imageName } from "../processing/image_source.ts";
import "../../tensor/device/adapter.node.ts";
import { nodePlatform, readNamedImage } from "../pretrained/platform.node.ts";
import { setPlatform } from "../pretrained/platform.ts";
import { formatDuration, Pace } from "./format.ts";
import { Progress, say, type Terminal } from "./terminal.node.ts";

// from_pretrained() opens folders by it.
setPlatform(nodePlatform);

/** The context of a command. */
export interface Run {
  readonly terminal: Terminal;
  /** Aborted by SIGINT and SIGTERM, and when stdout is closed. */
  readonly signal: AbortSignal;
  /** What completes the weights of the model, by the options of the command. */
  readonly parts?: WeightParts;
}

/**
 * The model inputs for images and prompts, the i-th prompt about the i-th image, or the i-th list of images.
 *
 * @param config of the model. A legacy model prepends the features itself, so images and prompts are processed separately: a
 *   newer processor would add placeholders.
 * @throws InputError
 */
export async function prepareInputs(
  processor: AnyProcessor,
  { image_token }: VisionLanguageConfig,
  images: readonly RgbImage[] | readonly (readonly RgbImage[])[],
  prompts: readonly string[],
): Promise<InstructBlipInputs> {
  const [seen, texts] = [{ images }, { text: [...prompts], padding: prompts.length > 1 }];
  const inputs =
    image_token === null
      ? { ...(await processor(seen)), ...(await processor(texts)) }
      : await processor({ ...seen, ...texts });
  return inputs as InstructBlipInputs;
}

/** Reads and decodes an image: by its path or URL, or inside a data set. @throws as {@link readNamedImage} */
export async function readSource(
  image: ImageSource,
  { base, signal }: { readonly base: string; readonly signal: AbortSignal },
): Promise<RgbImage> {
  const found = typeof image === "string" ? image : await image.read();
  if (typeof found === "string") return readNamedImage(found, { base, signal });
  return nodePlatform.readImage(found, imageName((image as EmbeddedImage).name));
}

/** Loads a model that generates; as {@link loadAs}. */
export async function loadModel(
  folder: Folder,
  dtype: StorageDType,
  run: Run,
  options?: CommonOptions,
): Promise<VisionLanguageModel> {
  return loadAs((from, all) => AutoModelForImageTextToText.from_pretrained(from, all), folder, dtype, run, options);
}

type CommonOptions = Pick<
  FromPretrainedOptions,
  "device" | "compute_dtype" | "kv_cache_dtype" | "fix_vicuna_token_ids" | "weight_cache" | "image_cache"
>;

/** The flags of commands that load a model. */
export interface LoadFlags {
  readonly model: string;
  readonly dtype: StorageDType;
  readonly fixVicunaTokenIds?: boolean;
  readonly weightCache?: true | string;
  readonly computeDtype?: ComputeDType;
  readonly kvCacheDtype?: KVCacheDType;
}

/** Options of from_pretrained() by the flags of the command line. */
export function loadOptions(flags: Omit<LoadFlags, "model" | "dtype">) {
  return {
    fix_vicuna_token_ids: flags.fixVicunaTokenIds ?? false,
    weight_cache: flags.weightCache ?? false,
    compute_dtype: flags.computeDtype ?? "f32",
    kv_cache_dtype: flags.kvCacheDtype ?? "f32",
  } satisfies CommonOptions;
}

/** Loads a model by its class's from_pretrained, with progress; prints warnings about the checkpoint and options. */
export async function loadAs<M extends { readonly device: Device }>(
  from_pretrained: (from: Folder, options: FromPretrainedOptions) => Promise<M>,
  folder: Folder,
  dtype: StorageDType,
  run: Run,
  options: CommonOptions = {},
): Promise<M> {
  const { terminal, signal } = run;
  const on_warning = (message: string) => {
    if (terminal.errIsTerminal) terminal.err("\r\x1b[K"); // there may be a progress line
    say(terminal, `warning: ${message}`);
  };
  const model = await loading(run, (on_progress) =>
    from_pretrained(folder, { ...options, dtype, signal, on_progress, on_warning }),
  );
  noteSoftware(model.device, run);
  return model;
}

/** Runs `load` with progress. */
export async function loading<T>(
  { terminal }: Run,
  load: (on_progress: (progress: LoadProgress) => void) => Promise<T>,
): Promise<T> {
  const progress = new Progress(terminal);
  const pace = new Pace();
  progress.show("loading the model …");
  try {
    return await load(({ loadedBytes, totalBytes }) => {
      const percent = Math.floor((loadedBytes / totalBytes) * 100);
      const left = pace.left(loadedBytes, totalBytes);
      const of = `${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`;
      const rest = left === undefined ? "" : `  ${formatDuration(left)} left`;
      progress.show(`loading the model … ${percent} %  ${of}${rest}`);
    });
  } finally {
    progress.clear();
  }
}

/** On a terminal, prints a note if there is no GPU. */
export function noteSoftware({ caps: { isSoftware, description } }: Device, { terminal }: Run): void {
  if (isSoftware && terminal.errIsTerminal) say(terminal, `note: no GPU in use; computing on the CPU (${description})`);
}
