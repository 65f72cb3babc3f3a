/** A model's parameters bound to the tensors of a checkpoint, by name; what is missing, left over or odd is told. */
import type { Weights } from "../../../modules/weights.ts";
import { WeightError } from "../../../tensor/errors.ts";
import type { Checkpoint } from "../../../tensor/files/checkpoint.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import type { EmbeddingLanguageModel, LanguageModel } from "../../model/language_model.ts";
import type { ConfigClass } from "../model_folder.ts";
import { type OtherCheckpoint, otherCheckpoint, otherScheme, prefixOf, quantizationOf } from "../other_checkpoints.ts";
import { isDequantized } from "./bitsandbytes.ts";

/** The interface of a model for loading. */
export interface Loadable {
  /** Absent in models that embed images and texts. */
  readonly language_model?: EmbeddingLanguageModel & Partial<Pick<LanguageModel, "cacheShape" | "kvCacheDtype">>;
  /** Compiles the kernels of a first answer. */
  compile(): Promise<void>;
}

/** The interface of a model class for from_pretrained(). */
export interface ModelClass<C extends VisionLanguageConfig, M> {
  readonly config_class: ConfigClass<C>;
  /** Names of tensors that a checkpoint may have for another class. */
  readonly unused?: readonly RegExp[];
  /** The name that a tensor of a checkpoint has in the model. Default: the same. */
  tensorName?(name: string): string;
  new (weights: Weights, config: C): M;
}

/** Names of tensors in old checkpoints that are not used. */
const IGNORED = [
  /^(qformer\.)?embeddings\.position_ids$/,
  /\.rotary_emb\.inv_freq$/,
  /^language_model\.encoder\.embed_tokens\.weight$/, // equal to `shared`, if that exists
  /^language_model\.decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$/,
];

/** Refuses weights that are quantized by a scheme that is not read. @throws WeightError */
export function refuseScheme(config: VisionLanguageConfig): void {
  const scheme = otherScheme(fileOf(config));
  if (scheme) refuseOther(scheme);
}

/** The tensors that a model reads. */
export function readOf(
  { name, tensors }: Checkpoint,
  unused: readonly RegExp[] = [],
): Pick<Checkpoint, "name" | "tensors"> {
  const ignored = [...IGNORED, ...unused];
  return { name, tensors: new Map([...tensors].filter(([key]) => !ignored.some((pattern) => pattern.test(key)))) };
}

function refuseOther({ code, what, hint }: OtherCheckpoint, cause?: unknown): never {
  throw new WeightError(code, `the checkpoint is ${what}`, { hint, cause });
}

const NO_LANGUAGE_MODEL = "is the language model in a folder of its own? base_model completes a checkpoint by another";
/** Most missing tensors that an error names. */
const MISSING_NAMED = 20;

/**
 * Constructs a model with its parameters bound to the checkpoint. @throws WeightError that names the kind of checkpoint, or
 * all missing tensors
 */
export function bind<C extends VisionLanguageConfig, M>(
  Model: ModelClass<C, M>,
  weights: Weights,
  config: C,
  { tensors }: Checkpoint,
): M {
  try {
    return new Model(weights, config);
  } catch (error) {
    if (!(error instanceof WeightError)) throw error;
    const other = otherCheckpoint(tensors, fileOf(config));
    if (other) refuseOther(other, error);
    if (error.code !== "MISSING_TENSORS") throw error;
    const missing = weights.missing((asked) => new Model(asked, config));
    if (missing.length < 2) throw error;
    const named = missing.slice(0, MISSING_NAMED).join(", ");
    const rest = missing.length > MISSING_NAMED ? ` and ${missing.length - MISSING_NAMED} more` : "";
    const prefix = prefixOf(tensors);
    const isTrimmed = missing.every((name) => name.startsWith("language_model."));
    throw new WeightError("MISSING_TENSORS", `the checkpoint lacks ${missing.length} tensors: ${named}${rest}`, {
      hint: prefix ? `${prefix.what}: ${prefix.hint}` : isTrimmed ? NO_LANGUAGE_MODEL : `${missing[0]}: ${error.hint}`,
      cause: error,
    });
  }
}

/** Checks after all parameters are bound. @returns warnings @throws WeightError VOCAB_MISMATCH */
export function checkBound(
  { language_model }: Loadable,
  config: VisionLanguageConfig,
  weights: Weights,
  checkpoint: Checkpoint,
  unused: readonly RegExp[] = [],
): string[] {
  const warnings = [...weights.warnings];
  const leftovers = weights.leftovers([...IGNORED, ...unused]);
  if (leftovers.length) {
    warnings.push(
      `${leftovers.length} tensors of the checkpoint are not used: ${leftovers.slice(0, 5).join(", ")}${leftovers.length > 5 ? ", …" : ""}`,
    );
  }
  const scheme = quantizationOf(fileOf(config));
  if (scheme && !isDequantized(checkpoint)) {
    warnings.push(`quantization_config (${scheme}) is not followed: the weights are floats, and stored as dtype says`);
  }
  if (!language_model) return warnings;
  const { image_token, modality, text_config } = config;
  const rows = language_model.num_embeddings;
  if (text_config.vocab_size !== rows) {
    warnings.push(
      `text_config.vocab_size is ${text_config.vocab_size}, the embedding has ${rows} rows, which are used`,
    );
  }
  if (image_token !== null && image_token >= rows) {
    const message = `${modality}_token_index is ${image_token}, but the embedding has ${rows} rows`;
    throw new WeightError("VOCAB_MISMATCH", message);
  }
  return warnings;
}

/** The object of config.json, unknown keys included. */
function fileOf(config: VisionLanguageConfig): object {
  return (config as unknown as { toJSON(): object }).toJSON();
}
