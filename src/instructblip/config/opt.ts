/**
 * OPT's config, with Hugging Face's fields and defaults; see fields.ts.
 *
 * Source: transformers 5.18, models/opt/configuration_opt.py.
 */
import {
  configOf,
  count,
  countOrNull,
  expectDivides,
  flag,
  hiddenAct,
  type LanguageModelSizes,
  number,
  tokenId,
  tokenIds,
} from "./fields.ts";

/** OPT. Its layer norms' epsilon is PyTorch's default and cannot be configured. */
export class OPTConfig extends configOf("text_config", {
  vocab_size: count(50272),
  hidden_size: count(768),
  num_hidden_layers: count(12, 1000),
  ffn_dim: count(3072),
  max_position_embeddings: count(2048, 2 ** 24),
  do_layer_norm_before: flag(true),
  _remove_final_layer_norm: flag(false),
  word_embed_proj_dim: countOrNull(),
  dropout: number(0.1, 0, 1),
  attention_dropout: number(0, 0, 1),
  layerdrop: number(0, 0, 1),
  num_attention_heads: count(12),
  activation_function: hiddenAct("relu"),
  init_std: number(0.02, 0),
  use_cache: flag(true),
  pad_token_id: tokenId(1),
  bos_token_id: tokenId(2),
  eos_token_id: tokenIds(2),
  enable_bias: flag(true),
  layer_norm_elementwise_affine: flag(true),
  tie_word_embeddings: flag(true),
}) {
  static readonly model_type = "opt";
  readonly model_type = OPTConfig.model_type;

  constructor(given: unknown = {}) {
    super(given);
    expectDivides(this, "text_config", "num_attention_heads", "hidden_size");
  }

  /** Width of the token embeddings: that of the model, except in OPT-350M. */
  get embeddingWidth(): number {
    return this.word_embed_proj_dim ?? this.hidden_size;
  }

  get sizes(): LanguageModelSizes {
    return {
      num_hidden_layers: this.num_hidden_layers,
      num_encoder_layers: 0,
      hidden_size: this.hidden_size,
      intermediate_size: this.ffn_dim,
      num_attention_heads: this.num_attention_heads,
      num_key_value_heads: this.num_attention_heads,
      head_dim: this.headDim,
      hidden_act: this.activation_function,
    };
  }

  get headDim(): number {
    return this.hidden_size / this.num_attention_heads;
  }
}
