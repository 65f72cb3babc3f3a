/**
 * The configs of InstructBLIP's parts, with Hugging Face's fields and defaults, and the base of the whole model's config.
 * Each table below is one config class: a field, its default and its allowed values. Unknown keys are ignored (old files
 * have dozens); impossible values are refused by name.
 *
 * Source: transformers 5.18, configuration_instructblip.py.
 */

import { ConfigError } from "../../tensor/errors.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import { shown } from "../../tensor/shown.ts";
import { saveConfig } from "../pretrained/config_file.ts";
import type { Family, KnownFamily } from "./families.ts";
import {
  configOf,
  count,
  epsilon,
  expectDivides,
  type Fields,
  flag,
  hiddenAct,
  number,
  refuse,
  tokenId,
  type ValuesOf,
} from "./fields.ts";
import { type JsonRecord, parseRecord } from "./json_file.ts";
import { LlamaConfig } from "./llama.ts";
import { OPTConfig } from "./opt.ts";
import { T5Config } from "./t5.ts";

/** The ViT-g/14 image encoder. */
export class InstructBlipVisionConfig extends configOf("vision_config", {
  hidden_size: count(1408),
  intermediate_size: count(6144),
  num_hidden_layers: count(39, 1000),
  num_attention_heads: count(16),
  image_size: count(224, 4096),
  patch_size: count(14, 4096),
  hidden_act: hiddenAct("gelu"),
  layer_norm_eps: epsilon(1e-6),
  attention_dropout: number(0, 0, 1),
  initializer_range: number(1e-10, 0),
  qkv_bias: flag(true),
}) {
  static readonly model_type = "instructblip_vision_model";

  constructor(given: unknown = {}) {
    super(given);
    expectDivides(this, "vision_config", "num_attention_heads", "hidden_size");
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
  static readonly model_type: string = "instructblip_qformer";

  constructor(given: unknown = {}) {
    super(given);
    expectDivides(this, "qformer_config", "num_attention_heads", "hidden_size");
  }

  /** Whether its layers have a feed-forward for text. */
  get has_text(): boolean {
    return true;
  }
}

/** The language models this project has, by `model_type`. */
const TEXT_CONFIGS = { llama: LlamaConfig, opt: OPTConfig, t5: T5Config } as const;
export type TextConfig = InstanceType<(typeof TEXT_CONFIGS)[keyof typeof TEXT_CONFIGS]>;

function textConfig(given: unknown): TextConfig {
  for (const known of Object.values(TEXT_CONFIGS)) if (given instanceof known) return given;
  const type = (given as { model_type?: unknown } | null | undefined)?.model_type ?? "opt"; // HF's default class
  if (typeof type !== "string" || !Object.hasOwn(TEXT_CONFIGS, type)) {
    throw new ConfigError("UNSUPPORTED_BACKBONE", `text_config.model_type ${shown(type)} is not supported`, {
      hint: `this version runs ${Object.keys(TEXT_CONFIGS).join(", ")}`,
    });
  }
  return new TEXT_CONFIGS[type as keyof typeof TEXT_CONFIGS](given);
}

/** Most queries. A prompt has as many placeholders, whatever the file's size, so there is a limit. */
export const numQueryTokens = count(32, 4096);

/**
 * Image features have hidden_size numbers and replace token embeddings. Narrower embeddings HF fills with the first of these
 * numbers; wider ones it cannot fill; and in a legacy prompt, without placeholders, the two widths must be equal.
 */
function expectRoomForFeatures(config: TextConfig, isLegacy: boolean): void {
  if (config.model_type !== "opt") return;
  const { embeddingWidth, hidden_size } = config;
  const where = "text_config.word_embed_proj_dim";
  if (isLegacy && embeddingWidth !== hidden_size) {
    refuse(where, `hidden_size, ${hidden_size}, in a config without image_token_index`, embeddingWidth);
  }
  if (embeddingWidth > hidden_size) {
    refuse(where, `at most hidden_size, ${hidden_size}, or image features do not fill an embedding`, embeddingWidth);
  }
}

const COMPOSITE_FIELDS = {
  num_query_tokens: numQueryTokens,
  initializer_factor: number(1),
  initializer_range: number(0.02, 0),
};

/** The placeholder's id, `image_token_index`. HF reads either spelling. */
type TokenIds<M extends Family> = {
  readonly [K in `${M["modality"]}_token_${"index" | "id"}`]: number | null;
};

interface NestedConfigs<Q extends InstructBlipQFormerConfig> {
  readonly vision_config: InstructBlipVisionConfig;
  readonly qformer_config: Q;
  readonly text_config: TextConfig;
}

/** The fields that the configs of all models have. */
export interface VisionLanguageConfig
  extends ValuesOf<typeof COMPOSITE_FIELDS>,
    NestedConfigs<InstructBlipQFormerConfig> {
  /** The model family. */
  readonly family: KnownFamily;
  /** That of config.json. */
  readonly model_type: KnownFamily["model_type"];
  /** What the model takes besides text; the word in `image_token_index`. */
  readonly modality: "image" | "video";
  /** The model's class in Hugging Face, as a string: a bundler shortens class names. */
  readonly architectures: readonly string[];
  /** The id that stands for one query output in a prompt. Null in legacy checkpoints, whose prompts have none. */
  readonly image_token: number | null;
  /** Writes config.json as transformers 5 does, to a path (Node) or a WritableFolder. @throws WeightError IO; InputError NO_FILES */
  save_pretrained(to: string | WritableFolder): Promise<void>;
}

/** A config class, as its static functions need it. */
interface ConfigClass<C> {
  readonly family: Family;
  new (given?: unknown): C;
}

/** The class that {@link compositeOf} creates. */
export interface CompositeClass<M extends Family, F extends Fields, Q extends InstructBlipQFormerConfig> {
  readonly family: M;
  readonly model_type: M["model_type"];
  new (
    given?: unknown,
  ): ValuesOf<typeof COMPOSITE_FIELDS & F> &
    TokenIds<M> &
    NestedConfigs<Q> &
    Pick<VisionLanguageConfig, "architectures" | "image_token" | "save_pretrained"> & {
      readonly family: M;
      readonly model_type: M["model_type"];
      readonly modality: M["modality"];
    };
  /** From three configs, each an instance or a plain object; `more` are fields of the composite itself. */
  from_vision_qformer_text_configs<C>(
    this: ConfigClass<C>,
    vision_config: unknown,
    qformer_config: unknown,
    text_config: unknown,
    more?: object,
  ): C;
  /** Reads a config.json. @throws ConfigError CONFIG_JSON, UNSUPPORTED_MODEL and those of the constructor */
  parse<C>(this: ConfigClass<C>, text: string, name?: string): C;
}

/** A base class with `fields` and the nested configs, each of which may be an instance, a plain object or left out. */
export function compositeOf<M extends Family, F extends Fields, Q extends InstructBlipQFormerConfig>(
  family: M,
  fields: F,
  QFormerConfig: new (given: unknown) => Q,
): CompositeClass<M, F, Q> {
  const { model_type, modality, architecture } = family;
  const spellings = [`${modality}_token_index`, `${modality}_token_id`] as const;
  const tokens = Object.fromEntries(spellings.map((name) => [name, tokenId(null)]));
  return class extends configOf("config", { ...COMPOSITE_FIELDS, ...tokens, ...(fields as Fields) }) {
    static readonly family = family;
    static readonly model_type = model_type;
    readonly vision_config: InstructBlipVisionConfig;
    readonly qformer_config: Q;
    readonly text_config: TextConfig;

    constructor(given: unknown = {}) {
      super(given);
      const { vision_config, qformer_config, text_config } = given as Record<keyof NestedConfigs<Q>, unknown>;
      this.vision_config =
        vision_config instanceof InstructBlipVisionConfig
          ? vision_config
          : new InstructBlipVisionConfig(vision_config ?? {});
      // HF overwrites encoder_hidden_size by the vision width.
      const encoder_hidden_size = this.vision_config.hidden_size;
      this.qformer_config = new QFormerConfig({ ...((qformer_config as object | null) ?? {}), encoder_hidden_size });
      this.text_config = textConfig(text_config);
      expectRoomForFeatures(this.text_config, this.image_token === null);
    }

    get family(): M {
      return family;
    }

    get model_type(): M["model_type"] {
      return family.model_type;
    }

    get modality(): M["modality"] {
      return modality;
    }

    get architectures(): readonly string[] {
      return [architecture];
    }

    get image_token(): number | null {
      const ids = this as unknown as TokenIds<Family>;
      return ids[spellings[0]] ?? ids[spellings[1]];
    }

    /** See VisionLanguageConfig. */
    save_pretrained(to: string | WritableFolder): Promise<void> {
      return saveConfig(to, this as unknown as VisionLanguageConfig);
    }

    static from_vision_qformer_text_configs<C>(
      this: ConfigClass<C>,
      vision_config: unknown,
      qformer_config: unknown,
      text_config: unknown,
      more: object = {},
    ): C {
      return new this({ ...more, vision_config, qformer_config, text_config });
    }

    static parse<C>(this: ConfigClass<C>, text: string, name = "config.json"): C {
      // biome-ignore lint/complexity/noThisInStatic: the class it is called on is the one to make
      const { model_type } = this.family;
      return new this(expectModelType(parseRecord(text, name), name, [model_type]));
    }
  } as unknown as CompositeClass<M, F, Q>;
}

const WHICH_CLASS =
  "AutoModel takes the class of the checkpoint's model_type, AutoModelForImageTextToText that which generates text";

/** Checks the object of a config.json. @throws ConfigError UNSUPPORTED_MODEL unless its model_type is one of `types` */
export function expectModelType(given: JsonRecord, name: string, types: readonly string[]): JsonRecord {
  const type = given.model_type;
  if (types.includes(type as string)) return given;
  const known = types.map(shown).join(" or ");
  throw new ConfigError("UNSUPPORTED_MODEL", `${name}: model_type must be ${known}, got ${shown(type)}`, {
    hint: types.length === 1 ? WHICH_CLASS : undefined,
  });
}
