/**
 * OPT: a causal transformer with learned positions, layer norms and a plain feed-forward; norms before each sublayer, or
 * after it in OPT-350M, whose embeddings are also narrower than the model.
 *
 * B rows, T tokens of this call, D wide, P the width of the embeddings, H heads, d a head.
 * Source: Zhang et al. 2022; transformers 5.18, modeling_opt.py.
 */
import { Attention } from "../../modules/attention.ts";
import { Embedding, tiedTable } from "../../modules/embedding.ts";
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { LayerNorm } from "../../modules/norm.ts";
import { StackedLinear } from "../../modules/stacked_linear.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Activation } from "../../tensor/activation.ts";
import { InputError } from "../../tensor/errors.ts";
import { activation } from "../../tensor/ops/activation.ts";
import { add } from "../../tensor/ops/add.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Weight } from "../../tensor/weight.ts";
import { HIDDEN_ACTS } from "../config/fields.ts";
import type { OPTConfig } from "../config/opt.ts";
import { CausalLanguageModel, CausalModel, type CausalStep, type EmbeddedPrompt, type Ids } from "./language_model.ts";

/** PyTorch's default; Hugging Face's OPT has no field for it. */
const LAYER_NORM_EPS = 1e-5;
/** The table's first two rows are unused: fairseq counted from its padding id. */
const POSITION_OFFSET = 2;

/** Causal self-attention. f32[B, T, D] -> f32[B, T, D] */
export class OPTAttention extends Attention {
  /** q_proj, k_proj and v_proj */
  readonly qkv_proj: StackedLinear;
  readonly out_proj: Linear;
  readonly head_dim: number;
  readonly layer: number;

  constructor(weights: Weights, { hidden_size: D, enable_bias: bias, headDim }: OPTConfig, layer: number) {
    super(weights);
    this.qkv_proj = new StackedLinear(weights, { q_proj: D, k_proj: D, v_proj: D }, D, { bias });
    this.out_proj = new Linear(weights.at("out_proj"), [D, D], { bias });
    this.head_dim = headDim;
    this.layer = layer;
  }

  forward(x: Tensor, { mask, cache }: CausalStep): Tensor {
    const [B, T, D] = sizes(x.shape, 3);
    const d = this.head_dim;
    const qkv = this.qkv_proj.forward(x); // [B, T, 3D]
    const part = (i: number) => qkv.narrow(2, i * D, D).unflatten(2, [-1, d]); // [B, T, H, d]
    const [q, newK, newV] = [part(0), part(1), part(2)];
    const [k, v] = cache ? cache.append(this.layer, newK, newV) : [newK, newV]; // [rows, capacity, H, d]
    // HF scales the queries instead of the scores, which differs by rounding only.
    const options = { scale: d ** -0.5, causal: true, ...(cache ? cache.attentionView : { mask }) };
    const heads = this.attend({ q, k, v }, options, { keys: (cache?.length ?? 0) + T }); // [B, T, H, d]
    return this.observe(this.out_proj.forward(heads.reshape([B, T, -1])));
  }
}

/** Transformer block, pre-norm or post-norm. f32[B, T, D] -> f32[B, T, D] */
export class OPTDecoderLayer extends Module {
  readonly self_attn: OPTAttention;
  readonly self_attn_layer_norm: LayerNorm;
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly final_layer_norm: LayerNorm;
  readonly activation: Activation;
  readonly do_layer_norm_before: boolean;

  constructor(weights: Weights, config: OPTConfig, layer: number) {
    super(weights);
    const { hidden_size: D, ffn_dim: F, enable_bias: bias, layer_norm_elementwise_affine: elementwise_affine } = config;
    const norm = (name: string) => new LayerNorm(weights.at(name), D, LAYER_NORM_EPS, { elementwise_affine });
    this.self_attn = new OPTAttention(weights.at("self_attn"), config, layer);
    this.self_attn_layer_norm = norm("self_attn_layer_norm");
    this.fc1 = new Linear(weights.at("fc1"), [F, D], { bias });
    this.fc2 = new Linear(weights.at("fc2"), [D, F], { bias });
    this.final_layer_norm = norm("final_layer_norm");
    this.activation = HIDDEN_ACTS[config.activation_function];
    this.do_layer_norm_before = config.do_layer_norm_before;
  }

  forward(x: Tensor, step: CausalStep): Tensor {
    x = this.observeInput(x);
    if (this.do_layer_norm_before) {
      x = add(x, this.self_attn.forward(this.self_attn_layer_norm.forward(x), step));
      x = add(x, this.#feedForward(this.final_layer_norm.forward(x)));
    } else {
      x = this.self_attn_layer_norm.forward(add(x, this.self_attn.forward(x, step)));
      x = this.final_layer_norm.forward(add(x, this.#feedForward(x)));
    }
    return this.observe(x);
  }

  #feedForward(x: Tensor): Tensor {
    return this.fc2.forward(this.observe(activation(this.fc1.forward(x), this.activation), "activation_fn"));
  }
}

/** Embeddings and the stack of blocks. f32[B, T, P] -> f32[B, T, P] */
export class OPTDecoder extends Module {
  readonly embed_tokens: Embedding;
  readonly embed_positions: Embedding;
  readonly project_in: Linear | undefined;
  readonly project_out: Linear | undefined;
  readonly final_layer_norm: LayerNorm | undefined;
  readonly layers: readonly OPTDecoderLayer[];

  /** @param table of token embeddings, [any, P] */
  constructor(weights: Weights, config: OPTConfig, table: Weight) {
    super(weights);
    const { hidden_size: D, embeddingWidth: P, layer_norm_elementwise_affine: elementwise_affine } = config;
    this.embed_tokens = new Embedding(weights.at("embed_tokens"), P, { weight: table });
    const positions = weights.at("embed_positions");
    this.embed_positions = new Embedding(positions, D, {
      weight: positions.matrix("weight", [config.max_position_embeddings + POSITION_OFFSET, D]),
    });
    if (P !== D) {
      this.project_in = new Linear(weights.at("project_in"), [D, P], { bias: false });
      this.project_out = new Linear(weights.at("project_out"), [P, D], { bias: false });
    }
    if (config.do_layer_norm_before && !config._remove_final_layer_norm) {
      this.final_layer_norm = new LayerNorm(weights.at("final_layer_norm"), D, LAYER_NORM_EPS, { elementwise_affine });
    }
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      (_, i) => new OPTDecoderLayer(weights.at("layers").at(i), config, i),
    );
  }

  /** @param step `positions` are rows of embed_positions */
  forward(inputs_embeds: Tensor, step: CausalStep): Tensor {
    const embeds = this.project_in ? this.project_in.forward(inputs_embeds) : inputs_embeds; // [B, T, D]
    let x = add(embeds, this.embed_positions.forward(step.positions));
    for (const layer of this.layers) {
      this.observeState("hidden_states", x);
      x = x.device.scope(() => layer.forward(x, step));
    }
    x = this.finish(x);
    this.observeState("hidden_states", x);
    return this.observe(x);
  }

  /** What follows the last block. f32[…, D] -> f32[…, P] */
  finish(x: Tensor): Tensor {
    const normed = this.final_layer_norm ? this.final_layer_norm.forward(x) : x;
    return this.project_out ? this.project_out.forward(normed) : normed;
  }
}

/** The decoder, as Hugging Face nests it. f32[B, T, P] -> f32[B, T, P] */
export class OPTModel extends CausalModel {
  readonly decoder: OPTDecoder;
  readonly config: OPTConfig;

  /** @param table of token embeddings, [any, P]. Default: of this model without a head */
  constructor(
    weights: Weights,
    config: OPTConfig,
    table = tiedTable(weights, ["decoder.embed_tokens"], config.embeddingWidth),
  ) {
    super(weights);
    this.config = config;
    this.decoder = new OPTDecoder(weights.at("decoder"), config, table);
  }

  get embed_tokens(): Embedding {
    return this.decoder.embed_tokens;
  }

  /** Not observed: under a head Hugging Face calls the decoder itself. */
  forward(inputs_embeds: Tensor, step: CausalStep): Tensor {
    return this.decoder.forward(inputs_embeds, step);
  }

  override states(prompt: EmbeddedPrompt) {
    const { last_hidden_state, ...states } = super.states(prompt);
    return { last_hidden_state: this.observe(last_hidden_state), ...states };
  }

  override readonly position_offset = POSITION_OFFSET;

  /** Padding is skipped, unlike in LLaMA, and has position -1 itself. */
  override promptPositions(attention_mask: Ids): Ids {
    return attention_mask.map((row) => {
      let seen = 0;
      return row.map((visible) => (visible ? seen++ : -1));
    });
  }

  override checkPositions(positions: Ids): void {
    const most = this.config.max_position_embeddings;
    const last = Math.max(...positions.map((row) => Math.max(...row)));
    if (last >= most) {
      throw new InputError(
        "TOO_MANY_POSITIONS",
        `position ${last}: this OPT knows ${most}, image and prompt included`,
        {
          hint: "shorten the prompt or the answer",
        },
      );
    }
  }
}

/** OPT with its head. The head is the token embedding if the config ties them and the checkpoint lacks a head. */
export class OPTForCausalLM extends CausalLanguageModel {
  readonly model: OPTModel;
  readonly lm_head: Linear;
  readonly config: OPTConfig;

  constructor(weights: Weights, config: OPTConfig) {
    super(weights);
    this.config = config;
    const { tie_word_embeddings, embeddingWidth: P } = config;
    const table = tiedTable(weights, ["model.decoder.embed_tokens", ...(tie_word_embeddings ? ["lm_head"] : [])], P);
    this.model = new OPTModel(weights.at("model"), config, table);
    const weight = tie_word_embeddings && !weights.has("lm_head.weight") ? table : undefined;
    this.lm_head = new Linear(weights.at("lm_head"), [table.shape[0], P], { bias: false, weight });
  }

  get cacheShape() {
    const { num_hidden_layers: layers, num_attention_heads: heads, headDim: head_dim } = this.config;
    return { layers, heads, head_dim };
  }

  readout(states: Tensor): Tensor {
    return this.lm_head.forward(this.model.decoder.finish(states));
  }
}
