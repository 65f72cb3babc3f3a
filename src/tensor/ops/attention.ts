/** Scaled dot-product attention: grouped-query (GQA), causal and padding masks, bias, strided views, key/value caches. */

import type { Caps } from "../device/caps.ts";
import { type PlanOverride, plan, type Variant } from "../device/plan.ts";
import { planFlash, subgroupSizeOf } from "../device/tiling.ts";
import type { ActivationDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { expectShape, formatShape, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";
import { mul } from "./gated_activation.ts";
import { placeholder } from "./placeholder.ts";
import { softmax } from "./softmax.ts";

/** Keys or values: f32[B, S, Hkv, d]; or those of an f16 cache, two in a u32: u32[B, S, Hkv, d/2], d a multiple of 4. */
export type KeysOrValues = Tensor<ActivationDType>;

export interface AttentionOptions {
  /** Factor of q·k. */
  readonly scale: number;
  /** Query t sees keys 0 … past + t only. */
  readonly causal?: boolean;
  /** u32[B, S], 1 = the key is visible. */
  readonly mask?: Tensor<"u32"> | undefined;
  /**
   * In place of a mask: u32[B, S], n + 1 = the key is in row n of k and v, 0 = it is not visible. Beams share keys and are
   * reordered without copies.
   */
  readonly blockTable?: Tensor<"u32"> | undefined;
  /** u32[1], number of keys before the first query's, with `causal`. Default 0. */
  readonly past?: Tensor<"u32"> | undefined;
  /** The number in `past`, where the host knows it: for the work that a profile counts, which else takes S keys. */
  readonly pastLength?: (() => number) | undefined;
  /** f32[1 or B, H, T, S], added to the scaled scores; any strides. */
  readonly bias?: Tensor | undefined;
  /**
   * f32[B, H, T, S]: 1, or 0 where query t of head h does not attend to key s, as with a score of -∞. Any strides; of a view
   * that repeats one row or head only that one is read. Attention is then composed, whatever the plan.
   */
  readonly edges?: Tensor | undefined;
}

/** Keys of a split of attention_split: so many that a usual answer's are one split, which needs no attention_combine. */
const KEYS = 512;

/**
 * softmax(scale · q kᵀ + bias) v for every head. Query head h uses key head floor(h / (H / Hkv)). A query that sees no key gives
 * zeros. (Hugging Face's finite mask gives the mean of all values. Such a query is padding, and its output is not used.)
 *
 * @param q f32[B, T, H, d]; q, k and v may have any strides but that of the last dimension, which is 1
 * @param k f32[B, S, Hkv, d], or f16; with `causal`, S may be the capacity of a cache: keys beyond the last query's are not read.
 *   With `blockTable` the number of rows may differ from B
 * @param v f32[B, S, Hkv, d], or f16 as k; f16 is widened to f32 when it is loaded
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
  const { device, bindings, params, workOf } = prepared;
  const { B, T, H, d } = params;
  const y = device.empty([B, T, H, d]);

  const variant = options.edges ? "composed" : planAttention(params, device.caps, override);
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
        work: () => workOf({ products: 1, other: p.bytes + y.bytes }),
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
        work: () => workOf({ products: 2, other: q.bytes + y.bytes }),
      });
      return y;
    }
    case "split":
    case "split_subgroups": {
      const splits = Math.ceil(params.S / KEYS);
      const isWhole = splits === 1;
      const o = isWhole ? y : device.empty([B, T, H, splits, d]);
      const stats = device.empty([B, T, H, splits, 2]);
      device.launch({
        kernel: "attention_split",
        uses: {
          heads: loaderOf(bindings.q, k, v),
          reduce: variant === "split" ? "reduce_tree" : "reduce_subgroups",
        },
        overrides: { WG: 256, KEYS, D4: Math.ceil(d / 4), WHOLE: isWhole ? 1 : 0 },
        bindings: { ...bindings, k, v, y: o, stats },
        params,
        workgroups: B * T * H * splits,
        work: () => workOf({ products: 2, other: q.bytes + o.bytes + stats.bytes }),
      });
      if (!isWhole) {
        const { mask, past } = bindings;
        device.launch({
          kernel: "attention_combine",
          overrides: { KEYS },
          bindings: { o, stats, mask, past, y },
          params,
          workgroups: Math.ceil(y.size / 64),
        });
        o.dispose();
      }
      stats.dispose();
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
        work: () => workOf({ products: 2, other: q.bytes + y.bytes }),
      });
      return y;
    }
  }
}

/**
 * softmax(scale · q kᵀ + bias), the attention weights, for observers. A key that a query does not see has 0. A query that sees no
 * key has 1 / S everywhere, as in Hugging Face, but 0 where an edge is cut.
 *
 * @param q f32[B, T, H, d]
 * @param k f32[B, S, Hkv, d], or f16; with `causal`, S may be the capacity of a cache
 * @returns f32[B, H, T, S], contiguous; sums over S are 1 where a key is seen
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

/** Checks the operands. Absent ones are placeholders, which no kernel reads. */
function prepare(
  q: Tensor,
  k: KeysOrValues,
  v: KeysOrValues,
  { scale, causal = false, mask, blockTable, past, pastLength, bias, edges }: AttentionOptions,
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
  expectShape("attention", "k", k.shape, [blockTable ? Bk : B, S, Hkv, isF16 ? d / 2 : d]);
  expectShape("attention", "v", v.shape, k.shape);
  if (v.dtype !== k.dtype) throw new ShapeError(`attention: k is ${k.dtype}, so v must be, got ${v.dtype}`);
  if (H % Hkv !== 0) throw new ShapeError(`attention: ${H} query heads are no multiple of ${Hkv} key heads`);
  if (mask && blockTable) throw new ShapeError("attention: give mask or blockTable, not both");
  const visible = mask ?? blockTable;
  if (visible) expectShape("attention", mask ? "mask" : "blockTable", visible.shape, [B, S]);
  if (past) expectShape("attention", "past", past.shape, [1]);
  if (bias) expectShape("attention", "bias", bias.shape, [bias.shape[0] === 1 ? 1 : B, H, T, S]);
  if (edges) expectShape("attention", "edges", edges.shape, [B, H, T, S]);

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
      has_mask: blockTable ? 2 : mask ? 1 : 0,
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
  /**
   * The work of a launch.
   *
   * @param products 1 of scores or of values, 2 of both @param other bytes of its other inputs and outputs
   */
  const workOf = ({ products, other }: { products: 1 | 2; other: number }) => {
    const before = past ? (pastLength?.() ?? Math.max(0, S - T)) : 0;
    const keys = causal ? Math.min(S, before + T) : S;
    const pairs = causal ? T * (keys - T) + (T * (T + 1)) / 2 : T * keys;
    const read = products * B * keys * Hkv * d * (isF16 ? 2 : 4);
    return { flops: 2 * products * B * H * d * pairs, bytes: other + read + (bias?.bytes ?? 0) };
  };
  return { device, bindings, params, edges, workOf };
}

/** f32[B, H, T, S]: scores and softmax, the first two of the three steps of composed attention. */
function probabilities(
  { device, bindings, params, edges, workOf }: ReturnType<typeof prepare>,
  k: KeysOrValues,
  override?: PlanOverride,
): Tensor {
  const { B, H, T, S } = params;
  const scores = device.empty([B, H, T, S]);
  const own = edges && withoutRepeats(edges);
  device.launch({
    kernel: "attention_scores",
    uses: { kv: kvLoaderOf(k), ...(own && { edges: "edges_cut" }) },
    ...(own && { overrides: { EDGE_ROWS: own.shape[0] === B ? 1 : 0, EDGE_HEADS: own.shape[1] === H ? 1 : 0 } }),
    bindings: { ...bindings, kv: k, y: scores, ...(own && { edges: own }) },
    params,
    workgroups: Math.ceil(scores.size / 64),
    work: () => workOf({ products: 1, other: bindings.q.bytes + scores.bytes }),
  });
  const p = softmax(scores, override);
  scores.dispose();
  // The softmax of a query without edges is not 0.
  return edges ? mul(p, contiguous(edges)) : p;
}

/** One row and one head, if a view repeats them. f32[B, H, T, S] -> f32[B or 1, H or 1, T, S], contiguous */
function withoutRepeats(edges: Tensor): Tensor {
  const once = (x: Tensor, dim: number) => (x.strides[dim] === 0 ? x.narrow(dim, 0, 1) : x);
  return contiguous(once(once(edges, 0), 1));
}

/** Fills the slot heads: vec4 loads, if d, strides and offsets are multiples of 4. @throws ShapeError */
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

/** Fills the slot kv. */
function kvLoaderOf(x: KeysOrValues): string {
  return x.dtype === "u32" ? "kv_f16" : "kv_f32";
}

/** The planned variant; composed, if a head is too large for its registers. */
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
