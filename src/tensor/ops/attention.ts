/** Scaled dot-product attention with grouped heads, causal and padding masks, over views and key/value caches. */

import type { Caps } from "../device/caps.ts";
import { type PlanOverride, plan, type Variant } from "../device/plan.ts";
import { planFlash, subgroupSizeOf } from "../device/tiling.ts";
import type { ActivationDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { expectShape, formatShape, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";
import { placeholder } from "./placeholder.ts";
import { softmax } from "./softmax.ts";

/**
 * Keys, or values: f32[B, S, Hkv, d], or f16, two in a u32, as an f16 cache holds them: u32[B, S, Hkv, d/2], d a
 * multiple of 4.
 */
export type KeysOrValues = Tensor<ActivationDType>;

export interface AttentionOptions {
  /** What q·k is multiplied by. */
  readonly scale: number;
  /** Query t sees the keys up to past + t only. */
  readonly causal?: boolean;
  /** u32[B, S], 1 = the key may be seen. */
  readonly mask?: Tensor<"u32"> | undefined;
  /**
   * Instead of a mask, where the keys lie that may be seen: u32[B, S], n + 1 = in row n of k and v, 0 = not to be seen. So
   * beams share what they have in common, and change places without a copy.
   */
  readonly rows?: Tensor<"u32"> | undefined;
  /** u32[1], the number of keys before that of the first query; 0 if absent. Without `causal` it says nothing. */
  readonly past?: Tensor<"u32"> | undefined;
  /** f32[1 or B, H, T, S], added to the scaled scores; a view with any strides. */
  readonly bias?: Tensor | undefined;
}

/**
 * softmax(scale · q kᵀ + bias) v for every head. Query head h reads key head floor(h / (H / Hkv)). A query that sees no key gives
 * zeros (Hugging Face's finite mask gives the mean of all values there; such a query is padding, and nobody reads it).
 *
 * @param q f32[B, T, H, d]; like k and v a view with any strides, except that the last dimension's is 1
 * @param k f32[B, S, Hkv, d]; with `causal`, S may be a cache's capacity: keys behind the last query's are never read. With
 *   `rows` there may be another number of rows than B
 * @param v f32[B, S, Hkv, d], or f16 as k is; f16 is widened to f32 as it is loaded
 * @returns f32[B, T, H, d], contiguous
 * @throws ShapeError
 * Source: Vaswani et al. 2017; torch.nn.functional.scaled_dot_product_attention.
 */
export function attention(
  q: Tensor,
  k: KeysOrValues,
  v: KeysOrValues,
  options: AttentionOptions,
  override?: PlanOverride,
): Tensor {
  const prepared = prepare(q, k, v, options);
  const { device, bindings, params } = prepared;
  const { B, T, H, d } = params;
  const y = device.empty([B, T, H, d]);

  const variant = planAttention(params, device.caps, override);
  switch (variant) {
    case "composed": {
      const p = probabilities(prepared, k, override);
      const { mask, past } = bindings;
      device.launch({
        kernel: "attention_values",
        uses: { kv: kvLoaderOf(v) },
        bindings: { mask, past, p, kv: v, y },
        params,
        workgroups: Math.ceil(y.size / 64),
      });
      p.dispose();
      return y;
    }
    case "flash": {
      const { BT, ...tiling } = planFlash({ T, d }, device.caps);
      const SG = subgroupSizeOf(device.caps);
      device.launch({
        kernel: SG === undefined ? "attention_flash" : "attention_flash_sized",
        uses: { heads: loaderOf(bindings.q, k, v) },
        overrides: { ...tiling, D4: Math.ceil(d / 4), ...(SG !== undefined && { SG }) },
        bindings: { ...bindings, k, v, y },
        params,
        workgroups: B * H * Math.ceil(T / BT),
      });
      return y;
    }
    case "split":
    case "split_subgroups": {
      const KEYS = 64;
      const parts = Math.ceil(params.S / KEYS);
      const [o, stats] = [device.empty([B, T, H, parts, d]), device.empty([B, T, H, parts, 2])];
      device.launch({
        kernel: "attention_split",
        uses: {
          heads: loaderOf(bindings.q, k, v),
          reduce: variant === "split" ? "reduce_tree" : "reduce_subgroups",
        },
        overrides: { WG: 64, KEYS, D4: Math.ceil(d / 4) },
        bindings: { ...bindings, k, v, y: o, stats },
        params,
        workgroups: B * T * H * parts,
      });
      const { mask, past } = bindings;
      device.launch({
        kernel: "attention_combine",
        overrides: { KEYS },
        bindings: { o, stats, mask, past, y },
        params,
        workgroups: Math.ceil(y.size / 64),
      });
      for (const part of [o, stats]) part.dispose();
      return y;
    }
    case "subgroup": {
      const SG = device.caps.subgroupMinSize;
      const TT = T === 1 ? 1 : 8;
      device.launch({
        kernel: "attention_subgroup",
        uses: { heads: loaderOf(bindings.q, k, v) },
        overrides: { SG, TT, CHUNKS: Math.ceil(d / 4 / SG), MASK: params.has_mask, BIAS: params.has_bias },
        bindings: { ...bindings, k, v, y },
        params,
        workgroups: B * H * Math.ceil(T / TT),
      });
      return y;
    }
  }
}

/**
 * softmax(scale · q kᵀ + bias): what `attention` weighs the values with, for who wants to look at it. A key that a query
 * does not see has 0; a query that sees none has 1 / S everywhere, as in Hugging Face.
 *
 * @param q f32[B, T, H, d]
 * @param k f32[B, S, Hkv, d], or f16; with `causal`, S may be a cache's capacity
 * @returns f32[B, H, T, S], contiguous; rows add up to 1
 * @throws ShapeError
 */
export function attentionProbabilities(
  q: Tensor,
  k: KeysOrValues,
  options: AttentionOptions,
  override?: PlanOverride,
): Tensor {
  return probabilities(prepare(q, k, k, options), k, override);
}

/** The checked operands of a launch; where something optional is missing, a tensor that no kernel reads. */
function prepare(
  q: Tensor,
  k: KeysOrValues,
  v: KeysOrValues,
  { scale, causal = false, mask, rows, past, bias }: AttentionOptions,
) {
  for (const [name, x] of Object.entries({ q, k, v })) {
    if (x.rank !== 4 || (x.strides[3] !== 1 && x.shape[3] !== 1)) {
      throw new ShapeError(
        `attention: ${name} must have four dimensions, the last of stride 1, got ${formatShape(x.shape)} with strides ${formatShape(x.strides)}`,
      );
    }
  }
  const [B, T, H, d] = sizes(q.shape, 4);
  const [Bk, S, Hkv] = sizes(k.shape, 4);
  const isF16 = k.dtype === "u32";
  if (isF16 && d % 4 !== 0) throw new ShapeError(`attention: d must be a multiple of 4 for f16 keys, got ${d}`);
  expectShape("attention", "k", k.shape, [rows ? Bk : B, S, Hkv, isF16 ? d / 2 : d]);
  expectShape("attention", "v", v.shape, k.shape);
  if (v.dtype !== k.dtype) throw new ShapeError(`attention: k is ${k.dtype}, so v must be, got ${v.dtype}`);
  if (H % Hkv !== 0) throw new ShapeError(`attention: ${H} query heads are no multiple of ${Hkv} key heads`);
  if (mask && rows) throw new ShapeError("attention: give mask or rows, not both: rows says what may be seen");
  const visible = mask ?? rows;
  if (visible) expectShape("attention", mask ? "mask" : "rows", visible.shape, [B, S]);
  if (past) expectShape("attention", "past", past.shape, [1]);
  if (bias) expectShape("attention", "bias", bias.shape, [bias.shape[0] === 1 ? 1 : B, H, T, S]);

  const { device } = q;
  const bindings = {
    q: isF16 && !isInUnits(q, 4) ? contiguous(q) : q,
    mask: visible ? contiguous(visible) : placeholder(device),
    past: past ? contiguous(past) : placeholder(device),
    bias: bias ?? placeholder(device),
  };
  const [q_b, q_t, q_h] = sizes(bindings.q.strides, 4);
  const [k_b, k_s, k_h] = sizes(k.strides, 4);
  const [v_b, v_s, v_h] = sizes(v.strides, 4);
  const [bias_b, bias_h, bias_t, bias_s] = bias ? sizes(bias.expand([B, H, T, S]).strides, 4) : [0, 0, 0, 0];
  const params = {
    ...{
      B,
      T,
      S,
      H,
      heads_per_key: H / Hkv,
      d,
      scale,
      causal: causal ? 1 : 0,
      has_mask: rows ? 2 : mask ? 1 : 0,
      has_bias: bias ? 1 : 0,
    },
    ...{
      q_offset: bindings.q.offset,
      q_b,
      q_t,
      q_h,
      k_offset: k.offset,
      k_b,
      k_s,
      k_h,
      v_offset: v.offset,
      v_b,
      v_s,
      v_h,
    },
    ...{ bias_offset: bias?.offset ?? 0, bias_b, bias_h, bias_t, bias_s },
  };
  return { device, bindings, params };
}

/** f32[B, H, T, S], by the first two of the three steps of composed attention. */
function probabilities(
  { device, bindings, params }: ReturnType<typeof prepare>,
  k: KeysOrValues,
  override?: PlanOverride,
): Tensor {
  const { B, H, T, S } = params;
  const scores = device.empty([B, H, T, S]);
  device.launch({
    kernel: "attention_scores",
    uses: { kv: kvLoaderOf(k) },
    bindings: { ...bindings, kv: k, y: scores },
    params,
    workgroups: Math.ceil(scores.size / 64),
  });
  const p = softmax(scores, override);
  scores.dispose();
  return p;
}

/** The part of a kernel that loads heads: four numbers at once where all lies in fours. @throws ShapeError */
function loaderOf(q: Tensor, k: KeysOrValues, v: KeysOrValues): string {
  if (k.dtype !== "u32") return [q, k, v].every((x) => isInUnits(x, 4)) ? "heads_vec4" : "heads_scalar";
  for (const x of [k, v]) {
    if (!isInUnits(x, 2)) {
      throw new ShapeError(
        `attention: f16 keys and values need offsets and strides that are multiples of 2 u32, got strides ${formatShape(x.strides)}`,
      );
    }
  }
  return "heads_f16";
}

function isInUnits(x: KeysOrValues, unit: number): boolean {
  return [sizes(x.shape, 4)[3], x.offset, ...x.strides.slice(0, 3)].every((n) => n % unit === 0);
}

/** The part of a kernel that loads keys, or values, one by one. */
function kvLoaderOf(x: KeysOrValues): string {
  return x.dtype === "u32" ? "kv_f16" : "kv_f32";
}

/** The variant that runs: the planned one, but heads too large for a kernel's registers are composed. */
export function planAttention(
  { T, S, d }: { readonly T: number; readonly S: number; readonly d: number },
  caps: Caps,
  override?: PlanOverride,
): Variant<"attention"> {
  const variant = plan("attention", caps, override, { T, S });
  if ((variant === "flash" || variant.startsWith("split")) && d > 256) return "composed";
  if (variant === "subgroup" && d > 32 * caps.subgroupMinSize) return "composed";
  return variant;
}
