/** from_pretrained() of a model: its config, its parameters bound to the checkpoint by name, the weights on the device. */

import { setF16Scales } from "../../modules/f16_scales.ts";
import { KV_CACHE_DTYPES, type KVCacheDType, readStorage, type StorageDType } from "../../modules/storage_dtype.ts";
import type { WeightCache } from "../../modules/weight_cache.ts";
import { type LoadOptions, Weights } from "../../modules/weights.ts";
import type { Call } from "../../tensor/device/call.ts";
import { type Device, GpuDevice } from "../../tensor/device/device.ts";
import { openDevice } from "../../tensor/device/open_device.ts";
import { COMPUTE_DTYPES, type ComputeDType } from "../../tensor/dtype.ts";
import { InputError, WeightError } from "../../tensor/errors.ts";
import type { Checkpoint } from "../../tensor/files/checkpoint.ts";
import type { Folder } from "../../tensor/files/source.ts";
import type { TensorInfo } from "../../tensor/files/tensor_file.ts";
import { quote, shown } from "../../tensor/shown.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import { fixVicunaTokenIds } from "../config/vicuna.ts";
import type { WarningListener } from "../generation/types.ts";
import { bind, checkBound, type Loadable, type ModelClass, readOf, refuseScheme } from "./checkpoint/bind.ts";
import { expectFits, withSizes } from "./checkpoint/fit.ts";
import { weightsOf } from "./checkpoint/open_weights.ts";
import { type PretrainedFrom, readPretrainedOptions } from "./from_pretrained.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";
import { ModelFolder, openPretrained, type WeightParts, withParts } from "./model_folder.ts";
import { cacheFolder } from "./platform.ts";
import { refuseUnheeded } from "./unheeded_files.ts";

export interface FromPretrainedOptions extends LoadOptions, OpenFolderOptions, WeightParts {
  /** Default: a device opened for this model, and destroyed with it. */
  device?: Device;
  /**
   * Storage dtype of matrices, of all or by module: `{ vision_model: "f16", language_model: "int4" }`. Arithmetic is
   * `compute_dtype`. Default "auto": as in the checkpoint.
   */
  dtype?: NamedStorage;
  /** Hugging Face's older name of dtype. */
  torch_dtype?: NamedStorage;
  /**
   * Input dtype of matrix products of more than 8 rows, those of images and prompts: "f32" (default), or "f16" with f32 sums, by
   * subgroup matrices where the GPU has them. Rows of activations and of matrices are scaled by powers of two first, so that
   * none leaves f16's range. Norms, softmax, attention and products of at most 8 rows stay f32.
   */
  compute_dtype?: ComputeDType | "float32" | "float16";
  /**
   * Storage dtype of the key/value cache: "f32" (default), or "f16" in half the memory, rounded to 11 bits. Stays f32, with
   * a warning, if the head size is not a multiple of 4. Arithmetic is f32 in every case.
   */
  kv_cache_dtype?: KVCacheDType | "float32" | "float16";
  /**
   * Caches int8 and int4 matrices in a file, so that the next start reads them instead of quantizing again: in this folder,
   * or for true in `instructblip-webgpu` in the user's cache folder; in a browser true alone, see OpfsCache. Default false.
   */
  weight_cache?: boolean | string;
  /**
   * With `cache: "opfs"` and `weight_cache` (browsers): whether the files stay whole when their matrices are kept quantized. Default
   * false: what is not needed besides them is deleted, and downloaded again if the model is loaded with another dtype.
   */
  keep_originals?: boolean;
  /**
   * Gives Vicuna the special token ids of its tokenizer, eos and bos 2, pad 32000, instead of those in published configs,
   * with which answers do not end. Default false: the config's, as in Hugging Face.
   */
  fix_vicuna_token_ids?: boolean;
  /**
   * Called with warnings, each once: about the checkpoint, and about options of generate() without effect. Default:
   * console.warn. null: warnings are dropped.
   */
  on_warning?: WarningListener | null;
  /**
   * Number of images whose states the model keeps on the device, so that further questions about them do not encode them
   * again: those of the image encoder, of BLIP-2 of the Q-Former too. 1.4 MB for an image of 224 x 224 in InstructBLIP.
   * Default 8; 0: none.
   */
  image_cache?: number;
  /** true: PyTorch's files, which are read where there are no safetensors, are refused. Default: they are not. */
  use_safetensors?: boolean | null;
  /** Compiles the kernels of a first answer while the weights are read, instead of at the first answer. Default true. */
  compile?: boolean;
}

/** A dtype by any name that Hugging Face or this project has for it; see {@link readStorage}. */
type NamedStorage = Parameters<typeof readStorage>[0];

const MODEL_OPTIONS = Object.keys({
  device: 0,
  dtype: 0,
  torch_dtype: 0,
  compute_dtype: 0,
  kv_cache_dtype: 0,
  weight_cache: 0,
  keep_originals: 0,
  fix_vicuna_token_ids: 0,
  image_cache: 0,
  use_safetensors: 0,
  base_model: 0,
  adapter: 0,
  compile: 0,
  on_progress: 0,
  on_warning: 0,
} satisfies Record<Exclude<keyof FromPretrainedOptions, keyof OpenFolderOptions>, 0>);

/**
 * Checks options and fills in defaults, before anything is opened.
 *
 * @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, DTYPE, COMPUTE_DTYPE, BAD_INPUT
 */
export function readModelOptions(options: FromPretrainedOptions) {
  const {
    device,
    dtype,
    torch_dtype,
    compute_dtype,
    kv_cache_dtype,
    weight_cache,
    keep_originals,
    fix_vicuna_token_ids,
    base_model,
    adapter,
    compile,
    image_cache,
    use_safetensors,
    ...open
  } = readPretrainedOptions(options, MODEL_OPTIONS);
  if ((use_safetensors ?? true) !== true) {
    const message = `from_pretrained: use_safetensors is ${shown(use_safetensors)}; safetensors are read where there are any`;
    throw new InputError("UNSUPPORTED_OPTION", message, {
      hint: "leave it out: PyTorch's files are read where there are no safetensors",
    });
  }
  if ((device ?? undefined) !== undefined && !(device instanceof GpuDevice)) {
    throw new InputError(
      "UNSUPPORTED_OPTION",
      `from_pretrained: device is one that openDevice() gave, got ${shown(device)}`,
      {
        hint: "leave it out: the model opens a WebGPU device for itself",
      },
    );
  }
  if (!Number.isSafeInteger(image_cache ?? 0) || (image_cache ?? 0) < 0) {
    const given = shown(image_cache);
    throw new InputError("PARAM_RANGE", `from_pretrained: image_cache must be a whole number of images, got ${given}`);
  }
  return {
    device: device ?? undefined,
    // In Hugging Face, too, dtype wins.
    dtype: readStorage(dtype ?? torch_dtype ?? "auto"),
    compute_dtype: readComputeDType(compute_dtype ?? "f32"),
    kv_cache_dtype: readStorage(kv_cache_dtype ?? "f32") as KVCacheDType,
    weight_cache: weight_cache ?? false,
    keep_originals: keep_originals ?? undefined,
    fix_vicuna_token_ids: fix_vicuna_token_ids ?? false,
    image_cache: image_cache ?? IMAGE_CACHE,
    use_safetensors: use_safetensors ?? false,
    base_model: base_model ?? undefined,
    adapter: adapter ?? undefined,
    compile: compile ?? true,
    ...open,
  };
}

/** @throws InputError COMPUTE_DTYPE */
function readComputeDType(given: NonNullable<FromPretrainedOptions["compute_dtype"]>): ComputeDType {
  const dtype = readStorage(given);
  const found = COMPUTE_DTYPES.find((known) => known === dtype);
  if (found) return found;
  throw new InputError("COMPUTE_DTYPE", `compute_dtype: numbers cannot be multiplied as ${shown(given)}`, {
    hint: COMPUTE_DTYPES.join(" or "),
  });
}

/** Default number of images that a model keeps states of. */
export const IMAGE_CACHE = 8;

/** A loaded model. */
export interface Loaded<M> {
  readonly model: M;
  /** The device was opened for this model. */
  readonly ownsDevice: boolean;
  /** Warnings about the checkpoint. */
  readonly warnings: readonly string[];
  readonly on_warning: WarningListener | null | undefined;
  readonly image_cache: number;
}

/** @throws as VisionLanguageModel.from_pretrained */
export async function load<C extends VisionLanguageConfig, M extends Loadable>(
  Model: ModelClass<C, M>,
  from: PretrainedFrom,
  options: FromPretrainedOptions,
): Promise<Loaded<M>> {
  const {
    device,
    dtype,
    compute_dtype,
    kv_cache_dtype,
    weight_cache,
    keep_originals,
    fix_vicuna_token_ids,
    base_model,
    adapter,
    compile,
    image_cache,
    use_safetensors,
    on_warning,
    ...open
  } = readModelOptions(options);
  const { on_progress, signal } = open;
  const folder = await withParts(await openPretrained(from, open), { base_model, adapter }, open);
  let config = await readConfig(Model, folder);
  let checkpoint: Checkpoint | undefined;
  let weights: Weights | undefined;
  let opened: Device | undefined = device;
  let call: Call | undefined;
  try {
    const preview = folder.preview();
    if (preview) {
      opened ??= await openDevice();
      await tryFit(Model, preview, config, opened, dtype);
    }
    checkpoint = await weightsFor(Model, folder);
    if (use_safetensors) refusePickles(checkpoint);
    const { tensors } = checkpoint;
    if (fix_vicuna_token_ids) {
      const names = ["model.embed_tokens", "embed_tokens", "lm_head"].map((name) => `language_model.${name}.weight`);
      const rows = names.map((name) => tensors.get(name)?.shape[0]).find((count) => count !== undefined) ?? 0;
      config = new Model.config_class({ ...config, text_config: fixVicunaTokenIds(config.text_config, rows) });
    }
    opened ??= await openDevice();
    expectFits(readOf(checkpoint, Model.unused), opened, dtype);
    call = opened.call(signal);
    const bound = Weights.open(checkpoint, opened, dtype, compute_dtype);
    weights = bound;
    const { memory } = opened;
    const headers = checkpoint;
    const model = opened.within(call, () => memory.allOrNothing(() => bind(Model, bound, config, headers)));
    const warnings = [
      ...[folder, folder.base_model, ...folder.adapters].flatMap((part) => part?.warnings ?? []),
      ...checkpoint.warnings,
      ...checkBound(model, config, bound, checkpoint, Model.unused),
      ...setKvCacheDtype(model, kv_cache_dtype),
    ];
    const kept = await warnOnFailure(warnings, () => openWeightCache(bound, weight_cache));
    const [restored] = await Promise.all([
      bound.load({ on_progress, signal, cache: kept, call }),
      compile ? opened.within(call, () => model.compile()) : undefined,
    ]);
    const isKept = kept && (restored || (await warnOnFailure(warnings, () => kept.write().then(() => true))));
    if (isKept) {
      const drop = () => dropOriginals(Model, folder, bound, kept, keep_originals, signal);
      await warnOnFailure(warnings, drop, "the files stay beside their quantized weights");
    }
    if (keep_originals !== undefined && !(kept && folder.keepsFiles)) {
      warnings.push('keep_originals has no effect without cache: "opfs", weight_cache and quantized weights');
    }
    await setF16Scales(bound.parameters.values(), signal);
    return { model, ownsDevice: device === undefined, warnings, on_warning, image_cache };
  } catch (error) {
    weights?.dispose();
    if (!device) opened?.destroy();
    throw checkpoint ? withSizes(error, readOf(checkpoint, Model.unused), dtype) : error;
  } finally {
    call?.end();
    await checkpoint?.close();
  }
}

/** The config of a model whose weights can be read. @throws as refuseUnheeded and ModelFolder.config; WeightError of other schemes */
async function readConfig<C extends VisionLanguageConfig, M>(Model: ModelClass<C, M>, folder: ModelFolder): Promise<C> {
  await refuseUnheeded(folder);
  const config = await folder.config(Model.config_class);
  refuseScheme(config);
  return config;
}

/** The weights of a folder, by the model's names. @throws as weightsOf */
async function weightsFor(
  Model: Pick<ModelClass<VisionLanguageConfig, unknown>, "tensorName">,
  folder: ModelFolder,
): Promise<Checkpoint> {
  const checkpoint = await weightsOf(folder);
  if (!Model.tensorName) return checkpoint;
  const named = (info: TensorInfo) => ({ ...info, name: Model.tensorName!(info.name) });
  return checkpoint.map((file) => file.with([...file.tensors.values()].map(named)));
}

/**
 * Refuses weights that do not fit on a new device before they are downloaded, if they would be.
 *
 * @throws DeviceError BUDGET, GPU_OOM, with the dtype that would fit; as bind and openDevice
 */
export async function checkDownload<C extends VisionLanguageConfig, M>(
  Model: ModelClass<C, M>,
  folder: ModelFolder,
  dtype: StorageDType,
): Promise<void> {
  const preview = folder.preview();
  if (!preview) return;
  const config = await readConfig(Model, folder);
  const device = await openDevice();
  try {
    await tryFit(Model, preview, config, device, dtype);
  } finally {
    device.destroy();
  }
}

/**
 * Allocates a model by the headers of its files, and frees it again, before the files are downloaded; if none would be, later is
 * early enough.
 *
 * @throws DeviceError BUDGET, GPU_OOM, with the dtype that would fit; as bind
 */
async function tryFit<C extends VisionLanguageConfig, M>(
  Model: ModelClass<C, M>,
  folder: ModelFolder,
  config: C,
  device: Device,
  dtype: StorageDType,
): Promise<void> {
  const headers = await weightsFor(Model, folder);
  try {
    if (!folder.isRemote) return;
    expectFits(readOf(headers, Model.unused), device, dtype);
    const call = device.call();
    const weights = Weights.open(headers, device, dtype);
    try {
      device.within(call, () => device.memory.allOrNothing(() => bind(Model, weights, config, headers)));
      await device.within(call, () => device.sync());
    } finally {
      weights.dispose();
      call.end();
    }
  } catch (error) {
    throw withSizes(error, readOf(headers, Model.unused), dtype);
  } finally {
    await headers.close();
  }
}

/** @throws WeightError MISSING_MODEL for a checkpoint that is, or has in part, a PyTorch file */
function refusePickles(checkpoint: Checkpoint): void {
  const other = checkpoint.files.find(({ name }) => !name.endsWith(".safetensors"));
  if (!other) return;
  throw new WeightError(
    "MISSING_MODEL",
    `${checkpoint.name}: use_safetensors is true, and ${quote(other.name)} is none`,
    {
      hint: "leave use_safetensors out: nothing in a PyTorch file is run",
    },
  );
}

/** Sets the key/value cache's dtype. @returns warnings @throws InputError KV_CACHE_DTYPE */
function setKvCacheDtype({ language_model }: Loadable, dtype: KVCacheDType): string[] {
  if (!KV_CACHE_DTYPES.includes(dtype)) {
    throw new InputError("KV_CACHE_DTYPE", `kv_cache_dtype: keys and values cannot be stored as ${shown(dtype)}`, {
      hint: KV_CACHE_DTYPES.join(" or "),
    });
  }
  if (!language_model) return dtype === "f16" ? ["kv_cache_dtype has no effect: there is no language model"] : [];
  if (!language_model.cacheShape) return dtype === "f16" ? ["kv_cache_dtype has no effect: nothing is generated"] : [];
  const { head_dim } = language_model.cacheShape;
  if (dtype === "f16" && head_dim % 4 !== 0) {
    return [`keys and values are stored as f32: f16 needs a head size that is a multiple of 4, got ${head_dim}`];
  }
  language_model.kvCacheDtype = dtype;
  return [];
}

/** Opens the weight cache, if requested and if there are quantized weights. */
async function openWeightCache(weights: Weights, where: boolean | string): Promise<WeightCache | undefined> {
  if (!where) return undefined;
  const kept = await weights.openCache(await cacheFolder(where));
  return kept.weights.size > 0 ? kept : undefined;
}

/** Lets a folder that keeps its files forget what the weight cache has of them. @throws WeightError IO; the signal's reason */
async function dropOriginals(
  Model: Pick<ModelClass<VisionLanguageConfig, unknown>, "tensorName">,
  folder: ModelFolder,
  weights: Weights,
  cache: WeightCache,
  keep_originals = false,
  signal?: AbortSignal,
): Promise<void> {
  const { base_model, adapters } = folder;
  const readRest = async (kept: Folder) => {
    const checkpoint = await weightsFor(Model, new ModelFolder(kept, base_model, adapters));
    try {
      await weights.readBesides(cache, checkpoint, signal);
    } finally {
      await checkpoint.close();
    }
  };
  await folder.quantizedAs(cache.file, keep_originals ? undefined : readRest);
}

/** A failure of the weight cache becomes a warning. */
async function warnOnFailure<T>(
  warnings: string[],
  use: () => Promise<T>,
  what = "quantized weights are not cached",
): Promise<T | undefined> {
  try {
    return await use();
  } catch (error) {
    if (!(error instanceof WeightError)) throw error;
    warnings.push(`${what}: ${error.message}`);
    return undefined;
  }
}
