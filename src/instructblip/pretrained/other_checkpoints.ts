/**
 * Checkpoints that cannot be loaded: quantized by another scheme than bitsandbytes, or adapters. They are recognised by tensors and
 * config, and the error names an alternative.
 */
import type { CheckpointTensor } from "../../tensor/files/checkpoint.ts";
import { quote } from "../../tensor/shown.ts";

export interface OtherCheckpoint {
  readonly code: "QUANTIZED_CHECKPOINT" | "ADAPTER";
  /** As the end of a sentence: `is …`. */
  readonly what: string;
  readonly hint: string;
}

const USE_ORIGINAL =
  'use the model\'s original checkpoint of float32, float16 or bfloat16; dtype: "int8" or "int4" quantizes it while it is loaded';
const IF_FLOATS = `${USE_ORIGINAL}; if its weights are floats all the same, take quantization_config out of config.json`;
const USE_BASE = "load its base, and give the folder of the adapter as adapter (--adapter), which merges it";

/** Tensors that only files of a scheme have, and the scheme's name. */
const SCHEMES: readonly (readonly [RegExp, string])[] = [
  [/\.g_idx$/, "GPTQ"],
  [/\.(qweight|qzeros)$/, "AWQ or GPTQ"],
  [/\.(weight_packed|weight_scale|weight_scale_inv|input_scale)$/, "8-bit floats, or compressed-tensors"],
];

/** quantization_config, of the model or of its language model. */
function givenConfig(config: object): Record<string, unknown> | undefined {
  const { quantization_config: own, text_config } = config as Record<"quantization_config" | "text_config", unknown>;
  const given = own ?? (text_config as { quantization_config?: unknown } | null | undefined)?.quantization_config;
  return typeof given === "object" && given !== null ? (given as Record<string, unknown>) : undefined;
}

/** The scheme of quantization_config, in words; undefined without one. */
export function quantizationOf(config: object): string | undefined {
  const given = givenConfig(config);
  if (!given) return undefined;
  const { quant_method, bits, load_in_4bit, load_in_8bit, num_bits } = given;
  const method = typeof quant_method === "string" ? quote(quant_method).slice(1, -1) : "an unnamed scheme";
  const width = load_in_4bit === true ? 4 : load_in_8bit === true ? 8 : (bits ?? num_bits);
  return typeof width === "number" ? `${method}, ${width} bits` : method;
}

/**
 * A checkpoint whose config names another scheme than bitsandbytes, whatever its tensors are: some schemes quantize floats when
 * they are loaded.
 */
export function otherScheme(config: object): OtherCheckpoint | undefined {
  const { quant_method } = givenConfig(config) ?? {};
  if (typeof quant_method !== "string" || /^bitsandbytes(_[48]bit)?$/.test(quant_method)) return undefined;
  return { code: "QUANTIZED_CHECKPOINT", what: `quantized (${quantizationOf(config)})`, hint: IF_FLOATS };
}

/**
 * Why no tensor of a model is found under its name, if something is before all names, such as `module.` of DataParallel or
 * `_orig_mod.` of torch.compile.
 */
export function prefixOf(tensors: ReadonlyMap<string, CheckpointTensor>): { what: string; hint: string } | undefined {
  const names = [...tensors.keys()];
  const first = names
    .map((name) => /^(.+?\.)(?:vision_model|qformer|language_model|language_projection)\./.exec(name)?.[1])
    .find((prefix) => prefix);
  if (first === undefined || !names.every((name) => name.startsWith(first))) return undefined;
  return {
    what: `${quote(first)} is before the names of all tensors, as a wrapper of the model saves them`,
    hint: "save the state dict of the model inside the wrapper: model.module.state_dict(), or model._orig_mod.state_dict()",
  };
}

/** The kind of checkpoint, if it cannot be loaded. @param config config.json's object */
export function otherCheckpoint(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  config: object,
): OtherCheckpoint | undefined {
  const infos = [...tensors.values()];
  if (infos.some(({ name }) => /^base_model\.model\.|\.lora_[AB]\./.test(name))) {
    return { code: "ADAPTER", what: "an adapter (PEFT, such as LoRA), not a model", hint: USE_BASE };
  }
  const byName = SCHEMES.find(([pattern]) => infos.some(({ name }) => pattern.test(name)))?.[1];
  const byType = infos.some(({ dtype }) => /^F[48]|^F6/.test(dtype)) ? "8-bit floats" : undefined;
  const found = byName ?? byType;
  if (!found) return otherScheme(config);
  return { code: "QUANTIZED_CHECKPOINT", what: `quantized (${quantizationOf(config) ?? found})`, hint: USE_ORIGINAL };
}
