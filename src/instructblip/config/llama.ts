/**
 * LLaMA's config, with Hugging Face's fields and defaults; see fields.ts.
 *
 * Source: transformers 5.18, models/llama/configuration_llama.py.
 */

import { ConfigError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import {
  configOf,
  count,
  countOrNull,
  epsilon,
  expectDivides,
  flag,
  hiddenAct,
  type LanguageModelSizes,
  number,
  refuse,
  tokenId,
  tokenIds,
} from "./fields.ts";

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
    if (this.head_dim === null) expectDivides(this, "text_config", "num_attention_heads", "hidden_size");
    if (this.num_key_value_heads !== null) {
      expectDivides(this, "text_config", "num_key_value_heads", "num_attention_heads");
    }
    if (this.headDim % 2) refuse("text_config.head_dim", "even (rotary embeddings turn pairs)", this.headDim);
    this.rope; // refuses an unsupported one
  }

  get numKvHeads(): number {
    return this.num_key_value_heads ?? this.num_attention_heads;
  }

  get headDim(): number {
    return this.head_dim ?? this.hidden_size / this.num_attention_heads;
  }

  get sizes(): LanguageModelSizes {
    return {
      num_hidden_layers: this.num_hidden_layers,
      num_encoder_layers: 0,
      hidden_size: this.hidden_size,
      intermediate_size: this.intermediate_size,
      num_attention_heads: this.num_attention_heads,
      num_key_value_heads: this.numKvHeads,
      head_dim: this.headDim,
      hidden_act: this.hidden_act,
    };
  }

  /** The rotary base, from v5's `rope_parameters` or the older `rope_theta` and `rope_scaling`. */
  get rope(): { theta: number } {
    const parameters = (this.rope_parameters ?? this.rope_scaling ?? {}) as Record<string, unknown>;
    const type = parameters.rope_type ?? parameters.type ?? "default";
    if (type !== "default") {
      throw new ConfigError(
        "UNSUPPORTED_ROPE",
        `text_config.rope_parameters: rope_type ${shown(type)} is not supported, only "default"`,
      );
    }
    return { theta: number(10000, 1)(parameters.rope_theta ?? this.rope_theta ?? undefined, "text_config.rope_theta") };
  }
}
