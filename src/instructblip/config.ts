/**
 * The configs, with Hugging Face's fields and defaults. Each table below is one config class: a field, its default and
 * what it may be. Unknown keys are ignored (old files carry dozens); impossible values are refused by name.
 *
 * Source: transformers 5.18, models/instructblip/configuration_instructblip.py and models/llama/configuration_llama.py.
 */

import type { Activation } from "../tensor/activation.ts";
import { ConfigError } from "../tensor/errors.ts";

/** Reads one field: the value given (undefined: use the default) -> the value to keep. */
type Field<T> = (value: unknown, where: string) => T;
type Fields = Readonly<Record<string, Field<unknown>>>;
type ValuesOf<F extends Fields> = { readonly [K in keyof F]: ReturnType<F[K]> };

/** Activations by Hugging Face's names (transformers, activations.py). */
export const HIDDEN_ACTS: Readonly<Record<string, Activation>> = {
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  quick_gelu: "quick_gelu",
  relu: "relu",
  silu: "silu",
  swish: "silu",
};

function refuse(where: string, must: string, value: unknown): never {
  throw new ConfigError("CONFIG_RANGE", `${where} must be ${must}, got ${JSON.stringify(value) ?? String(value)}`);
}

const count =
  (fallback: number, most = 2 ** 20): Field<number> =>
  (value = fallback, where) =>
    Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most
      ? (value as number)
      : refuse(where, `a whole number from 1 to ${most}`, value);

const countOrNull =
  (most = 2 ** 20): Field<number | null> =>
  (value = null, where) =>
    value === null ? null : count(1, most)(value, where);

const number =
  (fallback: number, low = Number.NEGATIVE_INFINITY, high = Number.POSITIVE_INFINITY): Field<number> =>
  (value = fallback, where) =>
    typeof value === "number" && value >= low && value <= high
      ? value
      : refuse(where, `a number from ${low} to ${high}`, value);

const epsilon =
  (fallback: number): Field<number> =>
  (value = fallback, where) =>
    typeof value === "number" && value > 0 && value < 1 ? value : refuse(where, "a number between 0 and 1", value);

const flag =
  (fallback: boolean): Field<boolean> =>
  (value = fallback, where) =>
    typeof value === "boolean" ? value : refuse(where, "true or false", value);

const hiddenAct =
  (fallback: string): Field<string> =>
  (value = fallback, where) => {
    if (typeof value === "string" && Object.hasOwn(HIDDEN_ACTS, value)) return value;
    throw new ConfigError("UNSUPPORTED_ACT", `${where}: "${value}" is not an activation this project has`, {
      hint: `it has ${Object.keys(HIDDEN_ACTS).join(", ")}`,
    });
  };

/** A token id, or null. Published Vicuna configs carry -1 for "none" (spec 1.5); it is kept as it is, as HF does. */
const tokenId =
  (fallback: number | null): Field<number | null> =>
  (value = fallback, where) =>
    value === null || (Number.isInteger(value) && (value as number) >= -1)
      ? (value as number | null)
      : refuse(where, "a token id or null", value);

const tokenIds =
  (fallback: number | null): Field<number | readonly number[] | null> =>
  (value = fallback, where) => {
    if (!Array.isArray(value)) return tokenId(fallback)(value, where);
    return value.every((id) => Number.isInteger(id) && id >= 0)
      ? (value as number[])
      : refuse(where, "token ids", value);
  };

/** A base class that reads `fields` out of a plain object. */
function configOf<F extends Fields>(name: string, fields: F): new (given?: unknown) => ValuesOf<F> {
  return class {
    constructor(given: unknown = {}) {
      if (given === null || typeof given !== "object" || Array.isArray(given)) {
        throw new ConfigError("CONFIG_TYPE", `${name} must be an object, got ${JSON.stringify(given)}`);
      }
      const values = new Map<string, unknown>(Object.entries(given));
      for (const [key, read] of Object.entries(fields)) {
        Object.defineProperty(this, key, { value: read(values.get(key), `${name}.${key}`), enumerable: true });
      }
    }
  } as new (
    given?: unknown,
  ) => ValuesOf<F>;
}

function expectDivides(where: string, whole: number, part: number): void {
  if (whole % part !== 0) throw new ConfigError("CONFIG_RANGE", `${where}: ${part} does not divide ${whole}`);
}

/** The ViT-g/14 image encoder. */
export class InstructBlipVisionConfig extends configOf("vision_config", {
  hidden_size: count(1408),
  intermediate_size: count(6144),
  num_hidden_layers: count(39, 1000),
  num_attention_heads: count(16),
  image_size: count(224, 8192),
  patch_size: count(14, 8192),
  hidden_act: hiddenAct("gelu"),
  layer_norm_eps: epsilon(1e-6),
  attention_dropout: number(0, 0, 1),
  initializer_range: number(1e-10, 0),
  qkv_bias: flag(true),
}) {
  static readonly model_type = "instructblip_vision_model";

  constructor(given: unknown = {}) {
    super(given);
    expectDivides(
      "vision_config: num_attention_heads must divide hidden_size",
      this.hidden_size,
      this.num_attention_heads,
    );
    if (this.patch_size > this.image_size) refuse("vision_config.patch_size", "at most image_size", this.patch_size);
  }

  /** Patches of one image, the class token not counted. Pixels beyond the last whole patch are dropped. */
  get num_patches(): number {
    return Math.floor(this.image_size / this.patch_size) ** 2;
  }
}

/** The Q-Former: a BERT whose queries also attend to the image. */
export class InstructBlipQFormerConfig extends configOf("qformer_config", {
  vocab_size: count(30522),
  hidden_size: count(768),
  num_hidden_layers: count(12, 1000),
  num_attention_heads: count(12),
  intermediate_size: count(3072),
  hidden_act: hiddenAct("gelu"),
  hidden_dropout_prob: number(0.1, 0, 1),
  attention_probs_dropout_prob: number(0.1, 0, 1),
  max_position_embeddings: count(512),
  initializer_range: number(0.02, 0),
  layer_norm_eps: epsilon(1e-12),
  pad_token_id: tokenId(0),
  cross_attention_frequency: count(2, 1000),
  encoder_hidden_size: count(1408),
  position_embedding_type: (value = "absolute", where): "absolute" =>
    value === "absolute" ? value : refuse(where, '"absolute" (the relative kinds were never trained)', value),
}) {
  static readonly model_type = "instructblip_qformer";

  constructor(given: unknown = {}) {
    super(given);
    expectDivides(
      "qformer_config: num_attention_heads must divide hidden_size",
      this.hidden_size,
      this.num_attention_heads,
    );
  }
}

/** LLaMA and Vicuna. */
export class LlamaConfig extends configOf("text_config", {
  vocab_size: count(32000),
  hidden_size: count(4096),
  intermediate_size: count(11008),
  num_hidden_layers: count(32, 1000),
  num_attention_heads: count(32),
  num_key_value_heads: countOrNull(),
  head_dim: countOrNull(),
  hidden_act: hiddenAct("silu"),
  max_position_embeddings: count(2048, 2 ** 24),
  initializer_range: number(0.02, 0),
  rms_norm_eps: epsilon(1e-6),
  use_cache: flag(true),
  pad_token_id: tokenId(null),
  bos_token_id: tokenId(1),
  eos_token_id: tokenIds(2),
  tie_word_embeddings: flag(false),
  attention_bias: flag(false),
  mlp_bias: flag(false),
  rope_parameters: (value = null): unknown => value,
  rope_theta: (value = null): unknown => value,
  rope_scaling: (value = null): unknown => value,
}) {
  static readonly model_type = "llama";
  readonly model_type = LlamaConfig.model_type;

  constructor(given: unknown = {}) {
    super(given);
    if (this.head_dim === null) {
      expectDivides(
        "text_config: num_attention_heads must divide hidden_size",
        this.hidden_size,
        this.num_attention_heads,
      );
    }
    expectDivides(
      "text_config: num_key_value_heads must divide num_attention_heads",
      this.num_attention_heads,
      this.key_value_heads,
    );
    if (this.dim_of_head % 2) refuse("text_config.head_dim", "even (rotary embeddings turn pairs)", this.dim_of_head);
    this.rope; // refuses what it cannot compute
  }

  get key_value_heads(): number {
    return this.num_key_value_heads ?? this.num_attention_heads;
  }

  get dim_of_head(): number {
    return this.head_dim ?? this.hidden_size / this.num_attention_heads;
  }

  /** The rotary base, from v5's `rope_parameters` or the older `rope_theta` and `rope_scaling`. */
  get rope(): { theta: number } {
    const parameters = (this.rope_parameters ?? this.rope_scaling ?? {}) as Record<string, unknown>;
    const type = parameters.rope_type ?? parameters.type ?? "default";
    if (type !== "default") {
      throw new ConfigError(
        "UNSUPPORTED_ROPE",
        `text_config.rope_parameters: rope_type "${type}" is not supported, only "default"`,
      );
    }
    return { theta: number(10000, 1)(parameters.rope_theta ?? this.rope_theta ?? undefined, "text_config.rope_theta") };
  }
}

/** The language models this project has, by `model_type`. */
export type TextConfig = LlamaConfig;

function textConfig(given: unknown): TextConfig {
  if (given instanceof LlamaConfig) return given;
  const type = (given as { model_type?: unknown } | null | undefined)?.model_type ?? "opt"; // HF's default class
  if (type !== "llama") {
    throw new ConfigError("UNSUPPORTED_BACKBONE", `text_config.model_type "${type}" is not supported`, {
      hint: 'this version runs "llama" (LLaMA and Vicuna); "t5" and "opt" are to come',
    });
  }
  return new LlamaConfig(given);
}

/** Vision, Q-Former and language model together. Each nested config may be an instance, a plain object or left out. */
export class InstructBlipConfig extends configOf("config", {
  num_query_tokens: count(32, 4096),
  image_token_index: tokenId(null),
  image_token_id: tokenId(null),
  initializer_factor: number(1),
  initializer_range: number(0.02, 0),
}) {
  static readonly model_type = "instructblip";
  readonly vision_config: InstructBlipVisionConfig;
  readonly qformer_config: InstructBlipQFormerConfig;
  readonly text_config: TextConfig;

  constructor(given: unknown = {}) {
    super(given);
    const nested = given as { vision_config?: unknown; qformer_config?: unknown; text_config?: unknown };
    this.vision_config =
      nested.vision_config instanceof InstructBlipVisionConfig
        ? nested.vision_config
        : new InstructBlipVisionConfig(nested.vision_config ?? {});
    // HF overwrites encoder_hidden_size by the vision width, whatever the file says.
    this.qformer_config = new InstructBlipQFormerConfig({
      ...(nested.qformer_config ?? {}),
      encoder_hidden_size: this.vision_config.hidden_size,
    });
    this.text_config = textConfig(nested.text_config);
  }

  /** The id that stands for one query output in a prompt; HF reads either spelling. Null in legacy checkpoints. */
  get image_token(): number | null {
    return this.image_token_index ?? this.image_token_id;
  }

  /** Reads a config.json. @throws ConfigError CONFIG_JSON, UNSUPPORTED_MODEL and those of the constructor */
  static parse(text: string, name = "config.json"): InstructBlipConfig {
    let given: unknown;
    try {
      given = JSON.parse(text);
    } catch (cause) {
      throw new ConfigError("CONFIG_JSON", `${name} is not JSON: ${(cause as Error).message}`, { cause });
    }
    const type = (given as { model_type?: unknown } | null)?.model_type;
    if (type !== InstructBlipConfig.model_type) {
      throw new ConfigError("UNSUPPORTED_MODEL", `${name}: model_type is ${JSON.stringify(type)}, not "instructblip"`);
    }
    return new InstructBlipConfig(given);
  }
}
