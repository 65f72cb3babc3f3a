/**
 * The Q-Former: a BERT over [queries; instruction] whose queries also cross-attend to the image. Self-attention to the
 * instruction makes the query outputs depend on the question.
 *
 * B rows, Q queries, T instruction tokens, M of both or of queries alone, N + 1 image states, S keys, D wide.
 *
 *   self-attention          keys: Q queries   T text
 *     from Q queries              1            mask         all see every query, and the text that is not padding
 *     from T text                 1            mask
 *   cross-attention         keys: N + 1 image states
 *     from Q queries              1                         no mask; text does not attend to the image
 *
 *   layer i, queries: self-attention -> cross-attention (if i % cross_attention_frequency == 0)
 *                     -> intermediate_query, output_query
 *            text:    self-attention -> intermediate, output: a feed-forward with weights of its own
 *
 * Source: InstructBLIP 2.3; BLIP-2 3.1 (Li et al. 2023); transformers modeling_instructblip.py. Post-norm, as in BERT.
 */
import { Attention } from "../../modules/attention.ts";
import { Embedding } from "../../modules/embedding.ts";
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { LayerNorm } from "../../modules/norm.ts";
import { observedStates } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Activation } from "../../tensor/activation.ts";
import { InputError } from "../../tensor/errors.ts";
import { activation } from "../../tensor/ops/activation.ts";
import { add } from "../../tensor/ops/add.ts";
import { cat, contiguous } from "../../tensor/ops/copy.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Blip2QFormerConfig } from "../config/blip_2.ts";
import type { InstructBlipQFormerConfig } from "../config/config.ts";
import { HIDDEN_ACTS } from "../config/fields.ts";

/** [queries; word embeddings with positions], with one norm over both. Queries have no position. */
export class InstructBlipQFormerEmbeddings extends Module {
  readonly word_embeddings: Embedding;
  readonly position_embeddings: Embedding;
  readonly layernorm: LayerNorm;
  readonly max_position_embeddings: number;

  constructor(weights: Weights, config: InstructBlipQFormerConfig) {
    super(weights);
    this.word_embeddings = new Embedding(weights.at("word_embeddings"), config.hidden_size);
    const rows = this.word_embeddings.num_embeddings;
    if (rows !== config.vocab_size) {
      weights.warn(`qformer_config.vocab_size is ${config.vocab_size}, the embedding has ${rows} rows, which are used`);
    }
    this.position_embeddings = new Embedding(weights.at("position_embeddings"), config.hidden_size);
    this.layernorm = new LayerNorm(weights.at("layernorm"), config.hidden_size, config.layer_norm_eps);
    this.max_position_embeddings = Math.min(config.max_position_embeddings, this.position_embeddings.num_embeddings);
  }

  /** @param T tokens of the instruction @throws InputError PROMPT_TOO_LONG */
  checkLength(T: number): void {
    checkLength("prompt", T, this.max_position_embeddings);
  }

  /**
   * @param input_ids u32[B, T]
   * @param query_embeds f32[B, Q, D]
   * @returns f32[B, Q + T, D]
   */
  forward(input_ids: Tensor<"u32">, query_embeds: Tensor): Tensor {
    this.checkLength(sizes(input_ids.shape, 2)[1]);
    const positions = this.position_embeddings.forward(slots(input_ids)); // [B, T, D]
    const words = add(this.word_embeddings.forward(input_ids), positions); // [B, T, D]
    return this.observe(this.layernorm.forward(cat([query_embeds, words], 1)));
  }
}

/** The keys of an attention: image states for cross-attention, or its own input with a key mask. */
interface Keys {
  /** f32[B, S, encoder_hidden_size]; absent for self-attention */
  readonly encoder_hidden_states?: Tensor;
  /** u32[B, S], 1 = visible; absent: all are */
  readonly mask?: Tensor<"u32"> | undefined;
}

/** Queries, keys and values of all heads. f32[B, M, D] -> f32[B, M, D] */
export class InstructBlipQFormerMultiHeadAttention extends Attention {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly num_heads: number;

  constructor(weights: Weights, config: InstructBlipQFormerConfig, keyWidth: number) {
    super(weights);
    const D = config.hidden_size;
    this.query = new Linear(weights.at("query"), [D, D]);
    this.key = new Linear(weights.at("key"), [D, keyWidth]);
    this.value = new Linear(weights.at("value"), [D, keyWidth]);
    this.num_heads = config.num_attention_heads;
  }

  forward(x: Tensor, { encoder_hidden_states = x, mask }: Keys): Tensor {
    const [B, M, D] = sizes(x.shape, 3);
    const d = D / this.num_heads;
    const q = this.query.forward(x).unflatten(2, [this.num_heads, d]); // [B, M, H, d]
    const k = this.key.forward(encoder_hidden_states).unflatten(2, [this.num_heads, d]); // [B, S, H, d]
    const v = this.value.forward(encoder_hidden_states).unflatten(2, [this.num_heads, d]); // [B, S, H, d]
    const kind = encoder_hidden_states === x ? "attentions" : "cross_attentions";
    const heads = this.attend({ q, k, v }, { scale: d ** -0.5, mask }, { kind }); // [B, M, H, d]
    return this.observe(heads.reshape([B, M, D]));
  }
}

/** LayerNorm(dense(y) + residual): the end of every BERT sublayer. f32[B, M, D] */
export class InstructBlipQFormerOutput extends Module {
  readonly dense: Linear;
  readonly LayerNorm: LayerNorm;

  constructor(weights: Weights, config: InstructBlipQFormerConfig, width: number) {
    super(weights);
    this.dense = new Linear(weights.at("dense"), [config.hidden_size, width]);
    this.LayerNorm = new LayerNorm(weights.at("LayerNorm"), config.hidden_size, config.layer_norm_eps);
  }

  /** @param y f32[B, M, width] @param residual f32[B, M, D] */
  forward(y: Tensor, residual: Tensor): Tensor {
    return this.observe(this.LayerNorm.forward(add(residual, this.dense.forward(y))));
  }
}

/** Self-attention or cross-attention to the image, with its output sublayer. f32[B, M, D] -> f32[B, M, D] */
export class InstructBlipQFormerAttention extends Module {
  readonly attention: InstructBlipQFormerMultiHeadAttention;
  readonly output: InstructBlipQFormerOutput;

  constructor(weights: Weights, config: InstructBlipQFormerConfig, keyWidth = config.hidden_size) {
    super(weights);
    this.attention = new InstructBlipQFormerMultiHeadAttention(weights.at("attention"), config, keyWidth);
    this.output = new InstructBlipQFormerOutput(weights.at("output"), config, config.hidden_size);
  }

  forward(x: Tensor, keys: Keys): Tensor {
    return this.observe(this.output.forward(this.attention.forward(x, keys), x));
  }
}

/** gelu(dense(x)). f32[B, M, D] -> f32[B, M, F] */
export class InstructBlipQFormerIntermediate extends Module {
  readonly dense: Linear;
  readonly activation: Activation;

  constructor(weights: Weights, { hidden_size: D, intermediate_size: F, hidden_act }: InstructBlipQFormerConfig) {
    super(weights);
    this.dense = new Linear(weights.at("dense"), [F, D]);
    this.activation = HIDDEN_ACTS[hidden_act];
  }

  forward(x: Tensor): Tensor {
    return this.observe(this.observe(activation(this.dense.forward(x), this.activation), "intermediate_act_fn"));
  }
}

/** One layer; see the drawing above. f32[B, Q + T, D] -> f32[B, Q + T, D] */
export class InstructBlipQFormerLayer extends Module {
  readonly attention: InstructBlipQFormerAttention;
  readonly crossattention: InstructBlipQFormerAttention | undefined;
  readonly intermediate_query: InstructBlipQFormerIntermediate;
  readonly output_query: InstructBlipQFormerOutput;
  readonly intermediate: InstructBlipQFormerIntermediate | undefined;
  readonly output: InstructBlipQFormerOutput | undefined;

  constructor(weights: Weights, config: InstructBlipQFormerConfig, index: number) {
    super(weights);
    const F = config.intermediate_size;
    this.attention = new InstructBlipQFormerAttention(weights.at("attention"), config);
    this.crossattention =
      index % config.cross_attention_frequency === 0
        ? new InstructBlipQFormerAttention(weights.at("crossattention"), config, config.encoder_hidden_size)
        : undefined;
    this.intermediate_query = new InstructBlipQFormerIntermediate(weights.at("intermediate_query"), config);
    this.output_query = new InstructBlipQFormerOutput(weights.at("output_query"), config, F);
    if (!config.has_text) return;
    this.intermediate = new InstructBlipQFormerIntermediate(weights.at("intermediate"), config);
    this.output = new InstructBlipQFormerOutput(weights.at("output"), config, F);
  }

  /**
   * @param x f32[B, Q + T, D]
   * @param mask u32[B, Q + T]; absent: everything is visible
   * @param image f32[B, N + 1, encoder_hidden_size]; absent without queries
   */
  forward(x: Tensor, mask: Tensor<"u32"> | undefined, image: Tensor | undefined, Q: number): Tensor {
    const T = sizes(x.shape, 3)[1] - Q;
    x = this.attention.forward(this.observeInput(x), { mask }); // [B, Q + T, D]
    if (T === 0 || !this.intermediate || !this.output) return this.observe(this.#queries(x, image));
    let text = contiguous(x.narrow(1, Q, T)); // [B, T, D]
    text = this.output.forward(this.intermediate.forward(text), text);
    if (Q === 0) return this.observe(text);
    const queries = this.#queries(contiguous(x.narrow(1, 0, Q)), image); // [B, Q, D]
    return this.observe(cat([queries, text], 1)); // [B, Q + T, D]
  }

  /** Cross-attention and the queries' own feed-forward. f32[B, Q, D] -> f32[B, Q, D] */
  #queries(queries: Tensor, image: Tensor | undefined): Tensor {
    if (this.crossattention) queries = this.crossattention.forward(queries, { encoder_hidden_states: image! });
    return this.output_query.forward(this.intermediate_query.forward(queries), queries);
  }
}

/** The stack of layers. */
export class InstructBlipQFormerEncoder extends Module {
  readonly layer: readonly InstructBlipQFormerLayer[];

  constructor(weights: Weights, config: InstructBlipQFormerConfig) {
    super(weights);
    this.layer = Array.from(
      { length: config.num_hidden_layers },
      (_, i) => new InstructBlipQFormerLayer(weights.at("layer").at(i), config, i),
    );
  }

  forward(x: Tensor, mask: Tensor<"u32"> | undefined, image: Tensor | undefined, Q: number): Tensor {
    for (const layer of this.layer) {
      this.observeState("hidden_states", x);
      x = x.device.scope(() => layer.forward(x, mask, image, Q));
    }
    this.observeState("hidden_states", x);
    return this.observe(x);
  }
}

export interface QFormerOutput {
  /** f32[B, Q + T, D]; the first Q are the query outputs */
  readonly last_hidden_state: Tensor;
  /** f32[B, D]: the first query's output, as HF has it */
  readonly pooler_output: Tensor;
  /** f32[B, Q + T, D]: the embeddings, then the output of each layer */
  readonly hidden_states?: readonly Tensor[] | undefined;
  /** f32[B, H, Q + T, Q + T] of each layer. Without the cross-attentions, which HF 5.18 mixes in. */
  readonly attentions?: readonly Tensor[] | undefined;
  /** f32[B, H, Q, N + 1] of each layer with cross-attention: attention of the queries to the image states */
  readonly cross_attentions?: readonly Tensor[] | undefined;
}

/** The Q-Former of InstructBLIP: instruction and image states to query outputs. */
export class InstructBlipQFormerModel extends Module {
  readonly embeddings: InstructBlipQFormerEmbeddings;
  readonly encoder: InstructBlipQFormerEncoder;

  constructor(weights: Weights, config: InstructBlipQFormerConfig) {
    super(weights);
    this.embeddings = new InstructBlipQFormerEmbeddings(weights.at("embeddings"), config);
    this.encoder = new InstructBlipQFormerEncoder(weights.at("encoder"), config);
  }

  /**
   * @param input_ids u32[B, T], the instruction in the Q-Former's own vocabulary
   * @param attention_mask u32[B, Q + T], 1 = not padding; 1 for every query
   * @param query_embeds f32[B, Q, D]
   * @param encoder_hidden_states f32[B, N + 1, encoder_hidden_size], the image states
   */
  forward(
    input_ids: Tensor<"u32">,
    attention_mask: Tensor<"u32">,
    query_embeds: Tensor,
    encoder_hidden_states: Tensor,
  ): QFormerOutput {
    const [, Q] = sizes(query_embeds.shape, 3);
    const x = this.embeddings.forward(input_ids, query_embeds); // [B, Q + T, D]
    return outputOf(this.observe(this.encoder.forward(x, attention_mask, encoder_hidden_states, Q)), this.path);
  }
}

/** The words of a text in BLIP-2's retrieval models: embeddings with positions. The Q-Former's own norm follows. */
export class Blip2TextEmbeddings extends Module {
  readonly word_embeddings: Embedding;
  readonly position_embeddings: Embedding;
  readonly max_position_embeddings: number;

  constructor(weights: Weights, config: Blip2QFormerConfig) {
    super(weights);
    this.word_embeddings = new Embedding(weights.at("word_embeddings"), config.hidden_size);
    this.position_embeddings = new Embedding(weights.at("position_embeddings"), config.hidden_size);
    this.max_position_embeddings = Math.min(config.max_position_embeddings, this.position_embeddings.num_embeddings);
  }

  /** @param T tokens of a text @throws InputError PROMPT_TOO_LONG */
  checkLength(T: number): void {
    checkLength("text", T, this.max_position_embeddings);
  }

  /**
   * @param input_ids u32[B, T], at most max_position_embeddings of them
   * @param query_embeds f32[B, Q, D], in front of the text
   * @param position_ids u32[B, T]; default 0 … T - 1, padding included
   * @returns f32[B, Q + T, D]
   */
  forward(input_ids: Tensor<"u32">, query_embeds?: Tensor, position_ids = slots(input_ids)): Tensor {
    const words = add(this.word_embeddings.forward(input_ids), this.position_embeddings.forward(position_ids)); // [B, T, D]
    return this.observe(query_embeds ? cat([query_embeds, words], 1) : words);
  }
}

/** What else the Q-Former of BLIP-2 may be given. */
export interface Blip2QFormerInputs {
  /** f32[B, N + 1, encoder_hidden_size], the image states; not needed without queries */
  readonly encoder_hidden_states?: Tensor | undefined;
  /** u32[B, Q + T], 1 = not padding; absent: everything is visible */
  readonly attention_mask?: Tensor<"u32"> | undefined;
  /** Q: how many of the embeddings, from the first on, are queries. Default: all. */
  readonly query_length?: number | undefined;
}

/** The Q-Former of BLIP-2: embeddings of queries, of a text, or of both, after a norm of its own. */
export class Blip2QFormer extends Module {
  readonly layernorm: LayerNorm;
  readonly encoder: InstructBlipQFormerEncoder;

  constructor(weights: Weights, config: Blip2QFormerConfig) {
    super(weights);
    this.layernorm = new LayerNorm(weights.at("layernorm"), config.hidden_size, config.layer_norm_eps);
    this.encoder = new InstructBlipQFormerEncoder(weights.at("encoder"), config);
  }

  /** @param query_embeds f32[B, Q + T, D]; a text needs use_qformer_text_input in the config */
  forward(query_embeds: Tensor, inputs: Blip2QFormerInputs = {}): QFormerOutput {
    const { encoder_hidden_states, attention_mask, query_length = sizes(query_embeds.shape, 3)[1] } = inputs;
    const x = this.layernorm.forward(query_embeds); // [B, Q + T, D]
    const y = this.encoder.forward(x, attention_mask, encoder_hidden_states, query_length);
    return outputOf(this.observe(y), this.path);
  }
}

function checkLength(what: string, T: number, most: number): void {
  if (T <= most) return;
  throw new InputError("PROMPT_TOO_LONG", `the ${what} has ${T} Q-Former tokens; it reads ${most} at most`, {
    hint: "shorten it; in code, truncation: true of the processor does",
  });
}

/** Positions 0 … T - 1 of every row. They count padding, as in HF: a left-padded text gets other positions. u32[B, T] */
function slots({ device, shape }: Tensor<"u32">): Tensor<"u32"> {
  const [B, T] = sizes(shape, 2);
  return device.tensor(
    Uint32Array.from({ length: B * T }, (_, i) => i % T),
    [B, T],
  );
}

/** Adds the observed states, if any. */
function outputOf(last_hidden_state: Tensor, path: string): QFormerOutput {
  const [B, , D] = sizes(last_hidden_state.shape, 3);
  const { device } = last_hidden_state;
  return {
    last_hidden_state,
    pooler_output: contiguous(last_hidden_state.narrow(1, 0, 1)).reshape([B, D]),
    hidden_states: observedStates(device, "hidden_states", path),
    attentions: observedStates(device, "attentions", path),
    cross_attentions: observedStates(device, "cross_attentions", path),
  };
}
