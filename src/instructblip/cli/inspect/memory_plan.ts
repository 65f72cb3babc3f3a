/**
 * The GPU memory that a checkpoint will take, from its headers and config alone. Weights and cache are exactly the bytes
 * that the engine will allocate (compared by test/instructblip/cli/inspect.test.ts); activations are an estimate.
 */
import {
  KV_CACHE_DTYPES,
  type KVCacheDType,
  type OneDType,
  STORAGE_DTYPES,
  storageOf,
} from "../../../modules/storage_dtype.ts";
import type { FloatDType, WeightDType } from "../../../tensor/dtype.ts";
import type { CheckpointTensor } from "../../../tensor/files/checkpoint.ts";
import { rowBytes } from "../../../tensor/quantize.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import { Blip2Config } from "../../config/blip_2.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";

/** WebGPU's default limits, which every adapter has (specification, section 3.6.2). */
export const DEFAULT_LIMITS: Limits = { maxBindingBytes: 128 * 2 ** 20, maxBufferBytes: 256 * 2 ** 20 };

/** The limits that determine a model's memory layout. */
export interface Limits {
  /** Largest binding; larger weights are split by rows. */
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
}

/** All sizes in bytes. */
export interface MemoryPlan {
  readonly binding_limit: number;
  /** For each `--dtype`. */
  readonly weights: readonly WeightsPlan[];
  /** For each `--kv-cache-dtype`. */
  readonly kv_cache: readonly KVCachePlan[];
  /** One image, or a video of 4 frames, and one prompt of `prompt_tokens`, image tokens included. */
  readonly activations: { readonly bytes_estimated: number; readonly prompt_tokens: number };
}

export interface KVCachePlan {
  readonly dtype: KVCacheDType;
  /** For each token of a row: prompt, image tokens and answer. */
  readonly bytes_per_token: number;
  /** Tokens in a row before one layer's keys exceed the binding limit, with a batch of 1. */
  readonly max_tokens: number;
}

export interface WeightsPlan {
  readonly dtype: OneDType;
  readonly bytes: number;
  /** Number of matrices larger than the binding limit, and of the shards they are split into. */
  readonly split: number;
  readonly pieces: number;
}

/**
 * Parameters that are one matrix, or vector, on the device: the layers that llama.ts, opt.ts and t5.ts stack; gate and up.
 */
const STACKED =
  /^(language_model\..*\.(?:self_attn|mlp|SelfAttention|DenseReluDense)\.)([qkv]_proj|gate_proj|up_proj|[qkv]|wi_[01])(\.(?:weight|bias))$/;
const PAIRED = /\.(gate_proj|up_proj|wi_[01])\.weight$/;

/** Plans for every storage dtype. */
export function planMemory(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  config: VisionLanguageConfig,
  limits: Limits,
): MemoryPlan {
  const binding_limit = Math.min(limits.maxBindingBytes, limits.maxBufferBytes);
  const { num_hidden_layers, num_key_value_heads, head_dim } = config.text_config.sizes;
  const frames = config.modality === "video" ? 4 : 1;
  const prompt_tokens = frames * config.num_query_tokens + 32;
  return {
    binding_limit,
    weights: STORAGE_DTYPES.map((dtype) => planWeights(tensors, config, binding_limit, dtype)),
    kv_cache: KV_CACHE_DTYPES.map((dtype) => {
      // A head size that is not a multiple of 4 stays f32, as in load.ts.
      const keyBytes = num_key_value_heads * head_dim * (dtype === "f16" && head_dim % 4 === 0 ? 2 : 4);
      return {
        dtype,
        bytes_per_token: 2 * num_hidden_layers * keyBytes,
        max_tokens: Math.floor(binding_limit / keyBytes),
      };
    }),
    activations: { bytes_estimated: estimateActivations(config, frames, prompt_tokens), prompt_tokens },
  };
}

function planWeights(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  config: VisionLanguageConfig,
  limit: number,
  dtype: OneDType,
): WeightsPlan {
  const { text_config } = config;
  const storedAs = (name: string, found: FloatDType): WeightDType => {
    const lossless = config instanceof Blip2Config && name.startsWith("qformer."); // as in blip_2.ts
    return storageOf(lossless && dtype !== "auto" ? "f32" : dtype, name, found);
  };
  let bytes = text_config.model_type === "llama" ? allocated(rotaryRows(text_config) * text_config.headDim * 4) : 0;
  let split = 0;
  let pieces = 0;
  const matrices = new Map<string, { N: number; row: number; paired: boolean }>();
  const vectors = new Map<string, number>();
  for (const { name, dtype: stored, shape } of tensors.values()) {
    const found = stored === "f64" ? "f32" : stored; // rounded while loading
    if (found !== "f32" && found !== "f16" && found !== "bf16") continue; // ids and masks of old files
    if (name.endsWith("rotary_emb.inv_freq")) continue;
    const whole = name.replace(STACKED, "$1*$3");
    if (!name.endsWith(".weight") || shape.length < 2) {
      vectors.set(whole, (vectors.get(whole) ?? 0) + sizeOf(shape)); // used element by element, so kept as f32
      continue;
    }
    const N = shape[0]!;
    if (sizeOf(shape) === 0) continue;
    const known = matrices.get(whole) ?? { N: 0, row: 0 };
    const row = rowBytes(storedAs(name, found), sizeOf(shape) / N);
    matrices.set(whole, { N: known.N + N, row: Math.max(known.row, row), paired: PAIRED.test(name) });
  }
  for (const size of vectors.values()) bytes += allocated(size * 4);
  for (const matrix of matrices.values()) {
    // As in tensor/weight.ts: padded rows, two at a time of a pair, split evenly into the fewest shards.
    const [N, row] = matrix.paired ? [matrix.N / 2, 2 * matrix.row] : [matrix.N, matrix.row];
    const most = Math.max(1, Math.floor(limit / row)); // if a row does not fit, loading throws
    const rows = Math.ceil(N / Math.ceil(N / most));
    const full = Math.floor(N / rows);
    bytes += full * allocated(rows * row);
    if (N % rows) bytes += allocated((N % rows) * row);
    if (rows < N) {
      split++;
      pieces += Math.ceil(N / rows);
    }
  }
  return { dtype, bytes, split, pieces };
}

/** Initial positions of the rotary table; as in llama.ts. */
function rotaryRows({ max_position_embeddings }: { max_position_embeddings: number }): number {
  return Math.min(256, max_position_embeddings);
}

/** A buffer's size: tensor/memory.ts rounds up to whole vec4s. */
function allocated(bytes: number): number {
  return Math.max(16, Math.ceil(bytes / 16) * 16);
}

/**
 * The activations of one layer of each part: they are live until the layer ends, and as the parts' sizes differ, the pool
 * keeps a set for each.
 */
function estimateActivations(
  { vision_config, qformer_config, text_config, num_query_tokens }: VisionLanguageConfig,
  frames: number,
  L: number,
): number {
  const { hidden_size: Dv, intermediate_size: Fv, num_patches: N } = vision_config;
  const { hidden_size: Dq, intermediate_size: Fq } = qformer_config;
  const {
    hidden_size: D,
    intermediate_size: F,
    num_attention_heads: H,
    num_key_value_heads: Hkv,
    head_dim: d,
  } = text_config.sizes;
  const vision = (N + 1) * (11 * Dv + Fv);
  const qformer = (num_query_tokens + 32) * (20 * Dq + 2 * Fq) + (N + 1) * 2 * Dq;
  const language = L * (7 * D + 3 * H * d + 3 * Hkv * d + 3 * F) + text_config.vocab_size;
  return 4 * (frames * (vision + qformer) + language);
}
