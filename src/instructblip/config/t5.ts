/**
 * T5's and Flan-T5's config, with Hugging Face's fields and defaults; see fields.ts.
 *
 * Source: transformers 5.18, models/t5/configuration_t5.py.
 */
import {
  configOf,
  count,
  countOrNull,
  epsilon,
  type Field,
  flag,
  flagOrNull,
  type HiddenAct,
  hiddenAct,
  type LanguageModelSizes,
  number,
  refuse,
  tokenId,
  tokenIds,
} from "./fields.ts";

/** `gelu` or `gated-gelu`: an activation, and whether the feed-forward is gated. */
const feedForward: Field<string> = (value = "relu", where) =>
  typeof value === "string" && /^(gated-)?[a-z_]+$/.test(value)
    ? value
    : refuse(where, 'an activation, or "gated-" and an activation', value);

const actOrNull: Field<HiddenAct | null> = (value = null, where) =>
  value === null ? null : hiddenAct("relu")(value, where);

export class T5Config extends configOf("text_config", {
  vocab_size: count(32128),
  d_model: count(512),
  d_kv: count(64),
  d_ff: count(2048),
  num_layers: count(6, 1000),
  num_decoder_layers: countOrNull(1000),
  num_heads: count(8),
  relative_attention_num_buckets: count(32),
  relative_attention_max_distance: count(128),
  dropout_rate: number(0.1, 0, 1),
  layer_norm_epsilon: epsilon(1e-6),
  initializer_factor: number(1),
  feed_forward_proj: feedForward,
  dense_act_fn: actOrNull,
  is_gated_act: flagOrNull,
  use_cache: flag(true),
  pad_token_id: tokenId(0),
  bos_token_id: tokenId(null),
  eos_token_id: tokenIds(1),
  decoder_start_token_id: tokenId(null),
  tie_word_embeddings: flagOrNull,
  scale_decoder_outputs: flagOrNull,
}) {
  static readonly model_type = "t5";
  readonly model_type = T5Config.model_type;

  constructor(given: unknown = {}) {
    super(given);
    const { relative_attention_num_buckets: buckets, relative_attention_max_distance: distance } = this;
    if (buckets < 4) refuse("text_config.relative_attention_num_buckets", "at least 4", buckets);
    if (distance <= buckets / 2) {
      refuse("text_config.relative_attention_max_distance", `above ${buckets / 2}, half the buckets`, distance);
    }
    this.activation; // refuses an unknown one
  }

  get sizes(): LanguageModelSizes {
    return {
      num_hidden_layers: this.decoderLayers,
      num_encoder_layers: this.num_layers,
      hidden_size: this.d_model,
      intermediate_size: this.d_ff,
      num_attention_heads: this.num_heads,
      num_key_value_heads: this.num_heads,
      head_dim: this.d_kv,
      hidden_act: this.activation,
    };
  }

  get hidden_size(): number {
    return this.d_model;
  }

  get decoderLayers(): number {
    return this.num_decoder_layers ?? this.num_layers;
  }

  /** Relative positions have no limit. */
  get max_position_embeddings(): number {
    return Number.POSITIVE_INFINITY;
  }

  /** Whether the feed-forward is gated. */
  get gated(): boolean {
    return this.is_gated_act ?? this.feed_forward_proj.startsWith("gated-");
  }

  /**
   * The feed-forward's activation by Hugging Face's name. An explicit `dense_act_fn` wins: InstructBLIP's checkpoints have
   * "gelu", while "gated-gelu" by itself means "gelu_new", as in Flan-T5.
   */
  get activation(): HiddenAct {
    if (this.dense_act_fn !== null) return this.dense_act_fn;
    if (this.feed_forward_proj === "gated-gelu") return "gelu_new";
    return hiddenAct("relu")(this.feed_forward_proj.replace("gated-", ""), "text_config.feed_forward_proj");
  }

  /**
   * Whether the head's input is scaled by d_model^-0.5. T5 1.1 and Flan-T5 say `tie_word_embeddings: false` and do not;
   * without the key it is scaled. In version 5 that key no longer says anything about tying.
   */
  get scalesLmHeadInput(): boolean {
    return this.scale_decoder_outputs ?? this.tie_word_embeddings !== false;
  }

  /** The first token of the decoder. */
  get decoderStartTokenId(): number | null {
    return this.decoder_start_token_id ?? this.bos_token_id;
  }
}
