/**
 * LLaMA and Vicuna: a causal pre-norm transformer with rotary positions, RMS norms and a gated feed-forward.
 *
 * B rows, T tokens of this call, S tokens with those in the cache, D wide, H heads, Hkv key/value heads, d a head.
 * Source: Touvron et al. 2023; transformers modeling_llama.py.
 */
import { Attention, type Heads } from "../../modules/attention.ts";
import { Embedding, tiedTable } from "../../modules/embedding.ts";
import { GatedLinear } from "../../modules/gated_linear.ts";
import type { KVCache } from "../../modules/kv_cache.ts";
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { RMSNorm } from "../../modules/norm.ts";
import { StackedLinear } from "../../modules/stacked_linear.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Activation } from "../../tensor/activation.ts";
import type { Device } from "../../tensor/device/device.ts";
import { activation } from "../../tensor/ops/activation.ts";
import { add } from "../../tensor/ops/add.ts";
import { mul } from "../../tensor/ops/gated_activation.ts";
import { rope, ropeTable } from "../../tensor/ops/rope.ts";
import { ropeAppend } from "../../tensor/ops/rope_append.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { HIDDEN_ACTS } from "../config/fields.ts";
import type { LlamaConfig } from "../config/llama.ts";
import { CausalLanguageModel, CausalModel, type CausalStep } from "./language_model.ts";

/** The arguments of every layer of one call, besides its input. */
export interface LlamaStep extends CausalStep {
  /** f32[P, d]: d/2 cosines, then d/2 sines of position p in row p; channel j is rotated with j + d/2 */
  readonly rope: Tensor;
}

/** Causal self-attention. f32[B, T, D] -> f32[B, T, D] */
export class LlamaAttention extends Attention {
  /** q_proj, k_proj and v_proj */
  readonly qkv_proj: StackedLinear;
  readonly o_proj: Linear;
  readonly num_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly layer: number;

  constructor(weights: Weights, config: LlamaConfig, layer: number) {
    super(weights);
    const { hidden_size: D, num_attention_heads: H, numKvHeads: Hkv, headDim: d, attention_bias: bias } = config;
    this.qkv_proj = new StackedLinear(weights, { q_proj: H * d, k_proj: Hkv * d, v_proj: Hkv * d }, D, { bias });
    this.o_proj = new Linear(weights.at("o_proj"), [D, H * d], { bias });
    this.num_heads = H;
    this.num_key_value_heads = Hkv;
    this.head_dim = d;
    this.layer = layer;
  }

  forward(x: Tensor, step: LlamaStep): Tensor {
    const [B, T] = sizes(x.shape, 3);
    const qkv = this.qkv_proj.forward(x); // [B, T, (H + 2 Hkv) d]
    const heads = step.cache ? this.#withCache(qkv, step, step.cache) : this.#withoutCache(qkv, step);
    const options = {
      scale: this.head_dim ** -0.5,
      causal: true,
      ...(step.cache?.attentionView ?? { mask: step.mask }),
    };
    const y = this.attend(heads, options, { keys: (step.cache?.length ?? 0) + T }); // [B, T, H, d]
    return this.observe(this.o_proj.forward(y.reshape([B, T, -1])));
  }

  /** Rotates queries and keys; appends keys and values to the cache. */
  #withCache(qkv: Tensor, { rope: table, positions }: LlamaStep, cache: KVCache): Heads {
    const { keys, values, past } = cache.layer(this.layer);
    const q = ropeAppend(qkv, { table, positions, keys, values, past }); // [B, T, H, d]
    return { q, ...cache.heads(this.layer) }; // [rows, capacity, Hkv, d]
  }

  /** The same of a whole sequence: [B, T, H or Hkv, d]. */
  #withoutCache(qkv: Tensor, { rope: table, positions }: LlamaStep): Heads {
    const { num_heads: H, num_key_value_heads: Hkv, head_dim: d } = this;
    const heads = (first: number, count: number) => qkv.narrow(2, first * d, count * d).unflatten(2, [count, d]);
    const turned = (x: Tensor) => rope(x, table, positions);
    return { q: turned(heads(0, H)), k: turned(heads(H, Hkv)), v: heads(H + Hkv, Hkv) };
  }
}

/** down(silu(gate(x)) * up(x)). f32[B, T, D] -> f32[B, T, D] */
export class LlamaMLP extends Module {
  /** gate_proj and up_proj */
  readonly gate_up_proj: GatedLinear;
  readonly down_proj: Linear;
  readonly activation: Activation;

  constructor(weights: Weights, { hidden_size: D, intermediate_size: F, hidden_act, mlp_bias: bias }: LlamaConfig) {
    super(weights);
    this.gate_up_proj = new GatedLinear(weights, { gate: "gate_proj", up: "up_proj" }, [F, D], { bias });
    this.down_proj = new Linear(weights.at("down_proj"), [D, F], { bias });
    this.activation = HIDDEN_ACTS[hidden_act];
  }

  forward(x: Tensor): Tensor {
    const [gate, up] = this.gate_up_proj.forward(x);
    const hidden = mul(this.observe(activation(gate, this.activation), "act_fn"), up); // [B, T, F]
    return this.observe(this.down_proj.forward(hidden));
  }
}

/** Pre-norm transformer block. f32[B, T, D] -> f32[B, T, D] */
export class LlamaDecoderLayer extends Module {
  readonly input_layernorm: RMSNorm;
  readonly self_attn: LlamaAttention;
  readonly post_attention_layernorm: RMSNorm;
  readonly mlp: LlamaMLP;

  constructor(weights: Weights, config: LlamaConfig, layer: number) {
    super(weights);
    const { hidden_size: D, rms_norm_eps: eps } = config;
    this.input_layernorm = new RMSNorm(weights.at("input_layernorm"), D, eps);
    this.self_attn = new LlamaAttention(weights.at("self_attn"), config, layer);
    this.post_attention_layernorm = new RMSNorm(weights.at("post_attention_layernorm"), D, eps);
    this.mlp = new LlamaMLP(weights.at("mlp"), config);
  }

  forward(x: Tensor, step: LlamaStep): Tensor {
    x = this.observeInput(x);
    x = add(x, this.self_attn.forward(this.input_layernorm.forward(x), step));
    x = add(x, this.mlp.forward(this.post_attention_layernorm.forward(x)));
    return this.observe(x);
  }
}

/** Name of the table of rotations in errors. */
const ROTARY = "rotary table";

/** The stack of blocks between embeddings and head. */
export class LlamaModel extends CausalModel {
  readonly embed_tokens: Embedding;
  readonly layers: readonly LlamaDecoderLayer[];
  readonly norm: RMSNorm;
  readonly config: LlamaConfig;
  readonly #device: Device;
  /** Cosines and sines of all positions so far: f32[P, d]. */
  #rope: Tensor;

  /** @param table of token embeddings, [any, D]. Default: of this model without a head */
  constructor(weights: Weights, config: LlamaConfig, table = tiedTable(weights, ["embed_tokens"], config.hidden_size)) {
    super(weights);
    this.config = config;
    this.#device = weights.device;
    this.embed_tokens = new Embedding(weights.at("embed_tokens"), config.hidden_size, { weight: table });
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      (_, i) => new LlamaDecoderLayer(weights.at("layers").at(i), config, i),
    );
    this.norm = new RMSNorm(weights.at("norm"), config.hidden_size, config.rms_norm_eps);
    const rows = Math.min(256, config.max_position_embeddings);
    this.#rope = weights.computed([rows, config.headDim], () => this.#rotations(rows), ROTARY);
    weights.onDispose(() => this.#rope.dispose());
  }

  /**
   * @param inputs_embeds f32[B, T, D]
   * @param positions u32[B, T]
   * @param mask u32[B, T], 1 = visible; not with a cache, which has its own
   */
  forward(inputs_embeds: Tensor, { positions, mask, cache }: CausalStep): Tensor {
    const [, T] = sizes(inputs_embeds.shape, 3);
    this.#reach(cache?.capacity ?? T);
    const step = { positions, mask, cache, rope: this.#rope };
    let x = inputs_embeds;
    for (const layer of this.layers) {
      this.observeState("hidden_states", x);
      x = x.device.scope(() => layer.forward(x, step));
    }
    x = this.norm.forward(x);
    this.observeState("hidden_states", x);
    return this.observe(x);
  }

  /** Grows the table, also beyond max_position_embeddings: HF allows longer sequences. */
  #reach(positions: number): void {
    const old = this.#rope;
    const [reached, width] = sizes(old.shape, 2);
    if (positions <= reached) return;
    const rows = 2 ** Math.ceil(Math.log2(positions));
    this.#rope = this.#device.persistent([rows, width], "f32", ROTARY);
    this.#device.write(this.#rope, this.#rotations(rows));
    this.#device.flush(); // recorded launches may still read the old table
    old.dispose();
  }

  #rotations(positions: number): Float32Array {
    return ropeTable(positions, this.config.headDim, this.config.rope.theta);
  }
}

/** LLaMA with its head. The head is the token embedding if the config ties them and the checkpoint lacks a head. */
export class LlamaForCausalLM extends CausalLanguageModel {
  readonly model: LlamaModel;
  readonly lm_head: Linear;
  readonly config: LlamaConfig;

  constructor(weights: Weights, config: LlamaConfig) {
    super(weights);
    this.config = config;
    const { tie_word_embeddings, hidden_size: D } = config;
    const table = tiedTable(weights, ["model.embed_tokens", ...(tie_word_embeddings ? ["lm_head"] : [])], D);
    this.model = new LlamaModel(weights.at("model"), config, table);
    const weight = tie_word_embeddings && !weights.has("lm_head.weight") ? table : undefined;
    this.lm_head = new Linear(weights.at("lm_head"), [table.shape[0], D], { bias: false, weight });
  }

  get cacheShape() {
    const { num_hidden_layers: layers, numKvHeads: heads, headDim: head_dim } = this.config;
    return { layers, heads, head_dim };
  }

  readout(states: Tensor): Tensor {
    return this.lm_head.forward(this.model.norm.forward(states));
  }
}
