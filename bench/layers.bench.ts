/**
 * One layer of each of the three transformers at the real model's size, with random weights: a whole pass takes their number
 * times this. The references are composed of those of the ops, and computed for a few tokens of the output.
 */
import { InstructBlipQFormerConfig, InstructBlipVisionConfig } from "../src/instructblip/config/config.ts";
import { LlamaConfig } from "../src/instructblip/config/llama.ts";
import { LlamaDecoderLayer } from "../src/instructblip/model/llama.ts";
import { InstructBlipQFormerLayer } from "../src/instructblip/model/qformer.ts";
import { InstructBlipEncoderLayer } from "../src/instructblip/model/vision_model.ts";
import { KVCache } from "../src/modules/kv_cache.ts";
import { Weights } from "../src/modules/weights.ts";
import { compare } from "../src/tensor/cases/support/compare.ts";
import { sampleRows, takeSample } from "../src/tensor/cases/support/data.ts";
import { type Group, type Groups, ONLY } from "../src/tensor/cases/support/group.ts";
import { Random } from "../src/tensor/cases/support/random.ts";
import type { LayerShapes } from "../src/tensor/cases/support/shapes.ts";
import type { Device } from "../src/tensor/device/device.ts";
import { Checkpoint } from "../src/tensor/files/checkpoint.ts";
import { ropeTable } from "../src/tensor/ops/rope.ts";
import { activation } from "../src/tensor/reference/activation.ts";
import { add } from "../src/tensor/reference/add.ts";
import { attention } from "../src/tensor/reference/attention.ts";
import { gatedActivation } from "../src/tensor/reference/gated_activation.ts";
import { layerNorm } from "../src/tensor/reference/layer_norm.ts";
import { linear } from "../src/tensor/reference/linear.ts";
import { rmsNorm } from "../src/tensor/reference/rms_norm.ts";
import { rope } from "../src/tensor/reference/rope.ts";
import type { Shape } from "../src/tensor/shape.ts";
import { TOLERANCES } from "../test/tolerances.ts";
import { RandomCheckpoint } from "./random_checkpoint.ts";

const KERNEL = "layer";

export const groups: Groups = ({ layers }) => [
  vit(layers),
  qformer(layers),
  ...layers.steps.map((step) => llama(layers, step)),
];

/** A pre-norm block of the image encoder. */
function vit({ vit: { N, D, F, H } }: LayerShapes): Group {
  const source = new RandomCheckpoint({
    ...normShapes("layer_norm1", D),
    ...linearShapes("self_attn.qkv", 3 * D, D),
    ...linearShapes("self_attn.projection", D, D),
    ...normShapes("layer_norm2", D),
    ...linearShapes("mlp.fc1", F, D),
    ...linearShapes("mlp.fc2", D, F),
  });
  const config = new InstructBlipVisionConfig({ hidden_size: D, intermediate_size: F, num_attention_heads: H });
  return {
    kernel: KERNEL,
    shape: `vit block N${N} D${D} F${F} H${H}`,
    ...ONLY,
    async open(device) {
      const [layer, dispose] = await load(device, source, (weights) => new InstructBlipEncoderLayer(weights, config));
      const x = new Random(1).normal(N * D);
      const xs = device.tensor(x, [1, N, D]);
      return {
        flops: 2 * N * (4 * D * D + 2 * D * F) + 4 * N * N * D,
        bytes: source.size + 4 * 2 * N * D,
        run: () => layer.forward(xs),
        check(y) {
          const tokens = sampleRows(N, 4);
          const on = new Parameters(source);
          const normed = on.layerNorm(x, "layer_norm1", config.layer_norm_eps);
          const q = on.linear(takeSample(normed, tokens, D), "self_attn.qkv", [0, D]);
          const k = on.linear(normed, "self_attn.qkv", [D, 2 * D]);
          const v = on.linear(normed, "self_attn.qkv", [2 * D, 3 * D]);
          const heads = attention(
            q,
            k,
            v,
            { B: 1, T: tokens.length, S: N, H, Hkv: H, d: D / H },
            { scale: (D / H) ** -0.5 },
          );
          const attended = add(takeSample(x, tokens, D), on.linear(heads, "self_attn.projection"));
          const again = on.layerNorm(attended, "layer_norm2", config.layer_norm_eps);
          const hidden = on.linear(again, "mlp.fc1").map(activation.gelu);
          const expected = add(attended, on.linear(hidden, "mlp.fc2"));
          return compare(takeSample(y, tokens, D), expected, TOLERANCES.free_running, "vit block");
        },
        dispose,
      };
    },
  };
}

/** A Q-Former layer with cross-attention: Q queries attend to an image, and to T tokens of an instruction. */
function qformer({ vit: image, qformer: { Q, T, D, F, H } }: LayerShapes): Group {
  const attentionShapes = (name: string, keyWidth: number) => ({
    ...linearShapes(`${name}.attention.query`, D, D),
    ...linearShapes(`${name}.attention.key`, D, keyWidth),
    ...linearShapes(`${name}.attention.value`, D, keyWidth),
    ...outputShapes(`${name}.output`, D),
  });
  const outputShapes = (name: string, width: number) => ({
    ...linearShapes(`${name}.dense`, D, width),
    ...normShapes(`${name}.LayerNorm`, D),
  });
  const source = new RandomCheckpoint({
    ...attentionShapes("attention", D),
    ...attentionShapes("crossattention", image.D),
    ...linearShapes("intermediate_query.dense", F, D),
    ...outputShapes("output_query", F),
    ...linearShapes("intermediate.dense", F, D),
    ...outputShapes("output", F),
  });
  const config = new InstructBlipQFormerConfig({
    ...{ hidden_size: D, intermediate_size: F, num_attention_heads: H, encoder_hidden_size: image.D },
  });
  const S = Q + T;
  return {
    kernel: KERNEL,
    shape: `q-former layer Q${Q} T${T} D${D} F${F} H${H}`,
    ...ONLY,
    async open(device) {
      const [layer, dispose] = await load(
        device,
        source,
        (weights) => new InstructBlipQFormerLayer(weights, config, 0),
      );
      const random = new Random(1);
      const [x, states] = [random.normal(S * D), random.normal(image.N * image.D)];
      const [xs, imageStates] = [device.tensor(x, [1, S, D]), device.tensor(states, [1, image.N, image.D])];
      const mask = device.tensor(new Uint32Array(S).fill(1), [1, S]);
      const products = S * (4 * D * D + 2 * D * F) + Q * 2 * D * D + image.N * 2 * image.D * D;
      return {
        flops: 2 * products + 4 * D * (S * S + Q * image.N),
        bytes: source.size + 4 * (2 * S * D + image.N * image.D),
        run: () => layer.forward(xs, mask, imageStates, Q),
        check(y) {
          const on = new Parameters(source);
          const eps = config.layer_norm_eps;
          const attend = (name: string, queries: Float64Array, keys: ArrayLike<number>, keyRows: number) => {
            const [q, k, v] = [
              on.linear(queries, `${name}.attention.query`),
              on.linear(keys, `${name}.attention.key`),
              on.linear(keys, `${name}.attention.value`),
            ];
            const sizes = { B: 1, T: queries.length / D, S: keyRows, H, Hkv: H, d: D / H };
            return output(`${name}.output`, attention(q, k, v, sizes, { scale: (D / H) ** -0.5 }), queries);
          };
          const output = (name: string, value: Float64Array, residual: Float64Array) =>
            on.layerNorm(add(on.linear(value, `${name}.dense`), residual), `${name}.LayerNorm`, eps);
          const feedForward = (suffix: string, value: Float64Array) =>
            output(`output${suffix}`, on.linear(value, `intermediate${suffix}.dense`).map(activation.gelu), value);

          const tokens = [...new Set([0, Q - 1, Q, S - 1])];
          const queries = tokens.filter((token) => token < Q).length;
          const attended = attend("attention", takeSample(x, tokens, D), x, S);
          const crossed = attend("crossattention", attended.subarray(0, queries * D), states, image.N);
          const expected = [...feedForward("_query", crossed), ...feedForward("", attended.subarray(queries * D))];
          return compare(takeSample(y, tokens, D), expected, TOLERANCES.free_running, "q-former layer");
        },
        dispose,
      };
    },
  };
}

/** A block of Vicuna over a cache of `past` tokens. */
function llama({ llama: { D, F, H } }: LayerShapes, { name, T, past }: LayerShapes["steps"][number]): Group {
  const matrix = (key: string, N: number, K: number) => ({ [`${key}.weight`]: [N, K] });
  const source = new RandomCheckpoint({
    "input_layernorm.weight": [D],
    ...matrix("self_attn.q_proj", D, D),
    ...matrix("self_attn.k_proj", D, D),
    ...matrix("self_attn.v_proj", D, D),
    ...matrix("self_attn.o_proj", D, D),
    "post_attention_layernorm.weight": [D],
    ...matrix("mlp.gate_proj", F, D),
    ...matrix("mlp.up_proj", F, D),
    ...matrix("mlp.down_proj", D, F),
  });
  const config = new LlamaConfig({ hidden_size: D, intermediate_size: F, num_attention_heads: H });
  const [S, d] = [past + T, D / H];
  return {
    kernel: KERNEL,
    shape: `vicuna block ${name} T${T} S${S} D${D} F${F} H${H}`,
    ...ONLY,
    async open(device) {
      const [layer, dispose] = await load(device, source, (weights) => new LlamaDecoderLayer(weights, config, 0));
      const random = new Random(1);
      const [x, k, v] = [random.normal(T * D), random.normal(past * D), random.normal(past * D)];
      const table = ropeTable(S, d, config.rope.theta);
      const positions = Uint32Array.from({ length: T }, (_, t) => past + t);
      const cache = new KVCache(device, { layers: 1, batch: 1, heads: H, head_dim: d, capacity: S + 32 });
      if (past > 0) {
        const [ks, vs] = [k, v].map((values) => device.tensor(values, [1, past, H, d]));
        cache.append(0, ks, vs);
        cache.advance(past);
      }
      const xs = device.tensor(x, [1, T, D]);
      const step = {
        positions: device.tensor(positions, [1, T]),
        rope: device.tensor(table, [S, d]),
        mask: undefined,
        cache,
      };
      return {
        flops: 2 * T * (4 * D * D + 3 * D * F) + 4 * D * (T * past + (T * (T + 1)) / 2),
        bytes: source.size + 4 * (2 * T * D + 2 * S * D),
        run: () => layer.forward(xs, step),
        check(y) {
          const on = new Parameters(source);
          const tokens = sampleRows(T, 3);
          const normed = on.rmsNorm(x, "input_layernorm", config.rms_norm_eps);
          const turned = (value: Float64Array, at: ArrayLike<number>) => rope(value, table, at, H, d);
          const keys = [...k, ...turned(on.linear(normed, "self_attn.k_proj"), positions)];
          const values = [...v, ...on.linear(normed, "self_attn.v_proj")];
          const heads = tokens.flatMap((t) => {
            const q = turned(on.linear(takeSample(normed, [t], D), "self_attn.q_proj"), [past + t]);
            const sizes = { B: 1, T: 1, S, H, Hkv: H, d };
            return [...attention(q, keys, values, sizes, { scale: d ** -0.5, causal: true, past: past + t })];
          });
          const attended = add(takeSample(x, tokens, D), on.linear(heads, "self_attn.o_proj"));
          const again = on.rmsNorm(attended, "post_attention_layernorm", config.rms_norm_eps);
          const gated = gatedActivation(
            on.linear(again, "mlp.gate_proj"),
            on.linear(again, "mlp.up_proj"),
            activation.silu,
          );
          const expected = add(attended, on.linear(gated, "mlp.down_proj"));
          return compare(takeSample(y, tokens, D), expected, TOLERANCES.free_running, "vicuna block");
        },
        dispose() {
          cache.dispose();
          dispose();
        },
      };
    },
  };
}

/** The ops' references, over parameters by their names. */
class Parameters {
  readonly #source: RandomCheckpoint;

  constructor(source: RandomCheckpoint) {
    this.#source = source;
  }

  /** x [rows, K] times the weight [N, K], or a range of its rows, plus the bias if there is one. */
  linear(x: ArrayLike<number>, name: string, range?: readonly [number, number]): Float64Array {
    const { data, shape } = this.#source.tensor(`${name}.weight`)!;
    const [begin, end] = range ?? [0, shape[0]];
    const K = shape[1];
    const bias = this.#source.tensor(`${name}.bias`)?.data.subarray(begin, end);
    return linear(x, data.subarray(begin * K, end * K), bias, [x.length / K, end - begin, K]);
  }

  layerNorm(x: ArrayLike<number>, name: string, eps: number): Float64Array {
    return layerNorm(x, this.#source.tensor(`${name}.weight`)!.data, this.#source.tensor(`${name}.bias`)!.data, eps);
  }

  rmsNorm(x: ArrayLike<number>, name: string, eps: number): Float64Array {
    return rmsNorm(x, this.#source.tensor(`${name}.weight`)!.data, eps);
  }
}

/** A module with the checkpoint's weights, and what frees them. */
async function load<M>(
  device: Device,
  source: RandomCheckpoint,
  make: (weights: Weights) => M,
): Promise<[M, () => void]> {
  const weights = Weights.open(await Checkpoint.open(source), device);
  const made = make(weights);
  await weights.load();
  return [made, () => weights.dispose()];
}

function linearShapes(name: string, N: number, K: number): Record<string, Shape> {
  return { [`${name}.weight`]: [N, K], [`${name}.bias`]: [N] };
}

function normShapes(name: string, D: number): Record<string, Shape> {
  return { [`${name}.weight`]: [D], [`${name}.bias`]: [D] };
}
