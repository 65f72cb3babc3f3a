/**
 * Shared by all from_pretrained(): the options for opening a folder, and refusing unsupported ones.
 *
 * Source: transformers 5.18, modeling_utils.py, processing_utils.py and configuration_utils.py (from_pretrained).
 */
import { optionsOf, refuseUnknown, type Word } from "../../tensor/arguments.ts";
import { InputError } from "../../tensor/errors.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { shown } from "../../tensor/shown.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";

/** Where a model comes from: a path, a Hub id (`owner/name[@revision]`, Node), a URL, or a Folder (a browser's files). */
export type PretrainedFrom = string | URL | Folder;

/** The names of all options for opening. */
const OPENING = Object.keys({
  revision: 0,
  token: 0,
  cache_dir: 0,
  local_files_only: 0,
  cache: 0,
  endpoint: 0,
  on_download: 0,
  signal: 0,
} satisfies Record<keyof OpenFolderOptions, 0>) as (keyof OpenFolderOptions)[];
/** The options for opening that have no effect for an open folder. */
export const OF_THE_HUB = ["revision", "token", "cache_dir", "local_files_only", "cache", "endpoint"] as const;

const always =
  (hint: string): Word =>
  () =>
    hint;
/** For options that ask for the only behaviour there is. */
const unless =
  (values: readonly unknown[], hint: string): Word =>
  (value) =>
    values.includes(value) ? undefined : hint;

const ONE_DEVICE = "leave it out: the model is on one WebGPU device, its own or the one that `device` gives";
const NOT_PYTHON = "leave it out: it is about PyTorch's or Python's way of loading, which this is not";
const BY_CALL = "give it when the processor is called: processor({ images, text, … })";

/** Options of Hugging Face's from_pretrained that are not supported. */
const UNSUPPORTED: Readonly<Record<string, Word>> = {
  device_map: always(ONE_DEVICE),
  max_memory: always("openDevice({ memory_budget }) makes a device with a limit, for `device`"),
  offload_folder: always(ONE_DEVICE),
  offload_buffers: always(ONE_DEVICE),
  offload_state_dict: always(ONE_DEVICE),
  tp_plan: always(ONE_DEVICE),
  tp_size: always(ONE_DEVICE),
  device_mesh: always(ONE_DEVICE),
  distributed_config: always(ONE_DEVICE),
  load_in_8bit: unless([false], 'dtype: "int8" stores matrices in 8 bits, whatever the checkpoint has them in'),
  load_in_4bit: unless([false], 'dtype: "int4" stores matrices in 4 bits, whatever the checkpoint has them in'),
  quantization_config: always('dtype: "int8" or "int4" quantizes while loading'),
  force_download: unless(
    [false],
    "leave it out: what was downloaded was checked by its hash; to fetch it again, give another cache_dir or delete that of the model",
  ),
  resume_download: unless([true], "leave it out: a download that broke is always resumed"),
  subfolder: unless([""], "give the path of that folder"),
  trust_remote_code: unless([false], "leave it out: no code of a checkpoint is ever run"),
  code_revision: always("leave it out: no code of a checkpoint is ever run"),
  use_safetensors: unless([true], "leave it out: PyTorch's files are read where there are no safetensors"),
  variant: always('leave it out: dtype: "f16" stores matrices in 16 bits, from any checkpoint'),
  low_cpu_mem_usage: unless([true], "leave it out: weights always go to the device piece by piece"),
  attn_implementation: unless(
    ["eager", "sdpa"],
    'leave it out: attention is this engine\'s own kernel, which computes what "eager" and "sdpa" do',
  ),
  use_flash_attention_2: unless([false], "leave it out: attention is this engine's own kernel"),
  use_auth_token: always("token is its name now"),
  proxies: always("leave it out: Node takes HTTPS_PROXY where it is started with NODE_USE_ENV_PROXY=1"),
  mirror: always("endpoint names another server"),
  config: always("leave it out: the config is the checkpoint's"),
  generation_config: always("set the model's generation_config, or give it to generate()"),
  state_dict: always(NOT_PYTHON),
  ignore_mismatched_sizes: unless([false], "leave it out: a tensor of another shape is always refused"),
  output_loading_info: unless([false], "leave it out: what was odd about a checkpoint is in the model's `warnings`"),
  adapter_kwargs: always("adapter names the folder of a LoRA adapter"),
  adapter_name: always("adapter names the folder of a LoRA adapter"),
  gguf_file: always("safetensors and PyTorch's files are read"),
  weights_only: unless([true], "leave it out: nothing but weights is ever read of a pickle"),
  use_kernels: unless([false], NOT_PYTHON),
  kernel_config: always(NOT_PYTHON),
  key_mapping: always("rename the tensors in the file"),
  from_tf: unless([false], "safetensors and PyTorch's files are read"),
  from_flax: unless([false], "safetensors and PyTorch's files are read"),
  // Of processors.
  use_fast: always(
    'backend: "torchvision" makes pixels as the fast image processors do, "pil" (default) as the slow ones',
  ),
  padding: always(BY_CALL),
  padding_side: always(BY_CALL),
  truncation: always(BY_CALL),
  max_length: always(BY_CALL),
  size: always(BY_CALL),
  image_mean: always(BY_CALL),
  image_std: always(BY_CALL),
  do_resize: always(BY_CALL),
  do_rescale: always(BY_CALL),
  do_normalize: always(BY_CALL),
  num_query_tokens: always("it is the checkpoint's: write it into processor_config.json"),
};

/**
 * Reads and checks options, copied at the call.
 *
 * @param own options besides those for opening
 * @param name of the function, for messages
 * @throws InputError ARGUMENTS, UNKNOWN_OPTION, UNSUPPORTED_OPTION
 */
export function readPretrainedOptions<O extends OpenFolderOptions>(
  given: O,
  own: readonly string[],
  name = "from_pretrained",
): O {
  const options = optionsOf(name, [given ?? undefined], 1);
  refuseUnknown(name, options, [...own, ...OPENING], UNSUPPORTED);
  return options as O;
}

/**
 * The options for opening that are given; null, Python's None, counts as not given.
 *
 * @throws InputError BAD_INPUT for an option of the wrong type
 */
export function checkOpening(options: OpenFolderOptions): OpenFolderOptions {
  const given = OPENING.filter((name) => options[name] !== undefined && options[name] !== null);
  for (const name of given) checkKind(name, options[name]);
  return Object.fromEntries(given.map((name) => [name, options[name]]));
}

/** The options for opening the same files once more, with the folder open. */
export function opened<O extends OpenFolderOptions>(options: O): Omit<O, (typeof OF_THE_HUB)[number]> {
  const rest = { ...options };
  for (const name of OF_THE_HUB) delete rest[name];
  return rest;
}

const KINDS: Readonly<Record<keyof OpenFolderOptions, readonly string[]>> = {
  revision: ["string"],
  token: ["string", "boolean"],
  cache_dir: ["string"],
  local_files_only: ["boolean"],
  cache: ["string"],
  endpoint: ["string"],
  on_download: ["function"],
  signal: ["object"],
};

function checkKind(name: keyof OpenFolderOptions, value: unknown): void {
  if (name === "cache" && value !== "opfs") {
    throw new InputError("BAD_INPUT", `from_pretrained: cache must be "opfs", got ${shown(value)}`);
  }
  if (KINDS[name].includes(typeof value)) return;
  throw new InputError(
    "BAD_INPUT",
    `from_pretrained: the type of ${name} must be ${KINDS[name].join(" or ")}, got ${typeof value}`,
  );
}
