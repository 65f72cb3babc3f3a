/**
 * The image encoder: ViT-g/14, a pre-norm transformer over image patches.
 *
 * B images, N patches, S = N + 1 tokens with the class token, D wide, H heads. `observe(x)`, here and in all models, returns
 * x, or what an observer of this module puts in its place.
 * Source: InstructBLIP 2.6 (Dai et al. 2023); EVA-CLIP's ViT-g without its last layer, as checkpoints hold it (BLIP-2 3.4);
 * transformers modeling_instructblip.py.
 */
import { Attention } from "../../modules/attention.ts";
import { Linear } from "../../modules/linear.ts";
import { Module } from "../../modules/module.ts";
import { LayerNorm } from "../../modules/norm.ts";
import { observedStates } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import type { Activation } from "../../tensor/activation.ts";
import { InputError } from "../../tensor/errors.ts";
import { activation } from "../../tensor/ops/activation.ts";
import { add } from "../../tensor/ops/add.ts";
import { bicubic } from "../../tensor/ops/bicubic.ts";
import { cat, contiguous } from "../../tensor/ops/copy.ts";
import { patchProjection, prependClassToken } from "../../tensor/ops/patch_embedding.ts";
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Weight } from "../../tensor/weight.ts";
import type { InstructBlipVisionConfig } from "../config/config.ts";
import { HIDDEN_ACTS } from "../config/fields.ts";

/** A convolution whose stride is its kernel size: a matrix product over patches. */
class PatchEmbedding extends Module {
  readonly weight: Weight;
  readonly bias: Tensor;
  readonly patch_size: number;

  constructor(weights: Weights, { hidden_size: D, patch_size: P }: InstructBlipVisionConfig) {
    super(weights);
    this.weight = weights.matrix("weight", [D, 3 * P * P], [D, 3, P, P]);
    this.bias = weights.get("bias", [D]);
    this.patch_size = P;
  }

  /** f32[B, 3, h, w] -> f32[B, N, D], patches row by row */
  forward(pixels: Tensor): Tensor {
    const [, , height] = sizes(pixels.shape, 4);
    const rows = Math.floor(height / this.patch_size);
    const x = patchProjection(pixels, this.patch_size, this.weight, this.bias); // [B, N, D]
    const [B, N, D] = sizes(x.shape, 3);
    const grid = x.permute([0, 2, 1]).unflatten(2, [rows, -1]); // [B, D, rows, columns], as PyTorch's convolution gives it
    const seen = this.observe(grid);
    return seen === grid ? x : contiguous(seen.reshape([B, D, N]).permute([0, 2, 1]));
  }
}

/**
 * Patches behind a class token, with learned positions. f32[B, 3, h, w] -> f32[B, N + 1, D]
 *
 * Positions were learned for one image size; for another size their grid is interpolated, if `interpolate_pos_encoding` is
 * set.
 */
export class InstructBlipVisionEmbeddings extends Module {
  readonly class_embedding: Tensor;
  readonly position_embedding: Tensor;
  readonly patch_embedding: PatchEmbedding;
  readonly image_size: number;
  readonly patch_size: number;

  constructor(weights: Weights, config: InstructBlipVisionConfig) {
    super(weights);
    const D = config.hidden_size;
    this.class_embedding = weights.get("class_embedding", [1, 1, D]);
    this.position_embedding = weights.get("position_embedding", [1, config.num_patches + 1, D]);
    this.patch_embedding = new PatchEmbedding(weights.at("patch_embedding"), config);
    this.image_size = config.image_size;
    this.patch_size = config.patch_size;
  }

  /** @throws InputError IMAGE_SIZE */
  checkSize(height: number, width: number, interpolate_pos_encoding: boolean): void {
    // HF accepts a smaller image and gives its patches wrong positions.
    const [size, least] = [this.image_size, this.patch_size];
    if (!interpolate_pos_encoding && (height !== size || width !== size)) {
      throw new InputError("IMAGE_SIZE", `pixel_values: images must be ${size} x ${size}, got ${height} x ${width}`, {
        hint: "interpolate_pos_encoding: true takes any size",
      });
    }
    if (height < least || width < least) {
      throw new InputError("IMAGE_SIZE", `pixel_values: a patch has ${least} x ${least}, got ${height} x ${width}`);
    }
  }

  /** @throws InputError IMAGE_SIZE */
  forward(pixels: Tensor, interpolate_pos_encoding: boolean): Tensor {
    const [, , height, width] = sizes(pixels.shape, 4);
    this.checkSize(height, width, interpolate_pos_encoding);
    const positions = this.#positions(height, width); // [1, N + 1, D]
    const patches = this.patch_embedding.forward(pixels); // [B, N, D]
    return this.observe(prependClassToken(patches, this.class_embedding, positions)); // [B, N + 1, D]
  }

  /** The learned positions, their grid interpolated to the patches of an image if these differ. f32[1, N + 1, D] */
  #positions(height: number, width: number): Tensor {
    const [, learned, D] = sizes(this.position_embedding.shape, 3);
    const patches = (side: number) => Math.floor(side / this.patch_size);
    const [n, rows, columns] = [patches(this.image_size), patches(height), patches(width)];
    if (height === width && rows === n) return this.position_embedding;
    const grid = contiguous(this.position_embedding.narrow(1, 1, learned - 1)).reshape([n, n, D]);
    const resized = bicubic(grid, [rows, columns]).reshape([1, rows * columns, D]);
    return cat([this.position_embedding.narrow(1, 0, 1), resized], 1); // the class token keeps its own
  }
}

/** Every token attends to every token. f32[B, S, D] -> f32[B, S, D] */
export class InstructBlipAttention extends Attention {
  readonly qkv: Linear;
  readonly projection: Linear;
  readonly num_heads: number;

  constructor(weights: Weights, { hidden_size: D, num_attention_heads, qkv_bias }: InstructBlipVisionConfig) {
    super(weights);
    this.qkv = new Linear(weights.at("qkv"), [3 * D, D], { bias: qkv_bias });
    this.projection = new Linear(weights.at("projection"), [D, D]);
    this.num_heads = num_attention_heads;
  }

  forward(x: Tensor): Tensor {
    const [B, S, D] = sizes(x.shape, 3);
    const d = D / this.num_heads;
    const qkv = this.qkv.forward(x); // [B, S, 3D]: all queries, all keys, all values
    const part = (i: number) => qkv.narrow(2, i * D, D).unflatten(2, [this.num_heads, d]); // [B, S, H, d]
    const [q, k, v] = [part(0), part(1), part(2)];
    const heads = this.attend({ q, k, v }, { scale: d ** -0.5 }); // [B, S, H, d]
    return this.observe(this.projection.forward(heads.reshape([B, S, D])));
  }
}

/** fc2(gelu(fc1(x))). f32[B, S, D] -> f32[B, S, D] */
export class InstructBlipMLP extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly activation: Activation;

  constructor(weights: Weights, { hidden_size: D, intermediate_size: F, hidden_act }: InstructBlipVisionConfig) {
    super(weights);
    this.fc1 = new Linear(weights.at("fc1"), [F, D]);
    this.fc2 = new Linear(weights.at("fc2"), [D, F]);
    this.activation = HIDDEN_ACTS[hidden_act];
  }

  forward(x: Tensor): Tensor {
    const hidden = this.observe(activation(this.fc1.forward(x), this.activation), "activation_fn"); // [B, S, F]
    return this.observe(this.fc2.forward(hidden));
  }
}

/** Pre-norm transformer block. f32[B, S, D] -> f32[B, S, D] */
export class InstructBlipEncoderLayer extends Module {
  readonly layer_norm1: LayerNorm;
  readonly self_attn: InstructBlipAttention;
  readonly layer_norm2: LayerNorm;
  readonly mlp: InstructBlipMLP;

  constructor(weights: Weights, config: InstructBlipVisionConfig) {
    super(weights);
    const { hidden_size: D, layer_norm_eps: eps } = config;
    this.layer_norm1 = new LayerNorm(weights.at("layer_norm1"), D, eps);
    this.self_attn = new InstructBlipAttention(weights.at("self_attn"), config);
    this.layer_norm2 = new LayerNorm(weights.at("layer_norm2"), D, eps);
    this.mlp = new InstructBlipMLP(weights.at("mlp"), config);
  }

  forward(x: Tensor): Tensor {
    x = this.observeInput(x);
    x = add(x, this.self_attn.forward(this.layer_norm1.forward(x)));
    x = add(x, this.mlp.forward(this.layer_norm2.forward(x)));
    return this.observe(x);
  }
}

/** The stack of blocks. f32[B, S, D] -> f32[B, S, D] */
export class InstructBlipEncoder extends Module {
  readonly layers: readonly InstructBlipEncoderLayer[];

  constructor(weights: Weights, config: InstructBlipVisionConfig) {
    super(weights);
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      (_, i) => new InstructBlipEncoderLayer(weights.at("layers").at(i), config),
    );
  }

  forward(x: Tensor): Tensor {
    for (const layer of this.layers) {
      this.observeState("hidden_states", x);
      x = x.device.scope(() => layer.forward(x));
    }
    this.observeState("hidden_states", x);
    return this.observe(x);
  }
}

export interface VisionOutput {
  /** f32[B, N + 1, D], after the final norm */
  readonly last_hidden_state: Tensor;
  /** f32[B, D]: the class token, normalised a second time, as in HF. InstructBLIP does not use it. */
  readonly pooler_output: Tensor;
  /** f32[B, N + 1, D]: the embeddings, then the output of each layer; the last before the final norm, as in HF */
  readonly hidden_states?: readonly Tensor[] | undefined;
  /** f32[B, H, N + 1, N + 1] of each layer */
  readonly attentions?: readonly Tensor[] | undefined;
}

/** Pixels to image states. */
export class InstructBlipVisionModel extends Module {
  readonly embeddings: InstructBlipVisionEmbeddings;
  readonly encoder: InstructBlipEncoder;
  readonly post_layernorm: LayerNorm;

  constructor(weights: Weights, config: InstructBlipVisionConfig) {
    super(weights);
    this.embeddings = new InstructBlipVisionEmbeddings(weights.at("embeddings"), config);
    this.encoder = new InstructBlipEncoder(weights.at("encoder"), config);
    this.post_layernorm = new LayerNorm(weights.at("post_layernorm"), config.hidden_size, config.layer_norm_eps);
  }

  /**
   * @param pixels f32[B, 3, image_size, image_size], normalised
   * @param interpolate_pos_encoding allows f32[B, 3, h, w] of any size of at least a patch
   * @throws InputError IMAGE_SIZE
   */
  forward(pixels: Tensor, interpolate_pos_encoding = false): VisionOutput {
    const x = this.encoder.forward(this.embeddings.forward(pixels, interpolate_pos_encoding)); // [B, N + 1, D]
    const last_hidden_state = this.post_layernorm.forward(x);
    const [B, , D] = sizes(x.shape, 3);
    const class_token = contiguous(last_hidden_state.narrow(1, 0, 1)).reshape([B, D]);
    const pooler_output = this.post_layernorm.forward(class_token);
    return {
      last_hidden_state: this.observe(last_hidden_state),
      pooler_output,
      hidden_states: observedStates(x.device, "hidden_states", this.path),
      attentions: observedStates(x.device, "attentions", this.path),
    };
  }
}
