/** The variants of each op; plan.ts chooses among them. */
import type { OwnOp } from "./own_kernels.ts";

/**
 * Every op with more than one variant, and its variants. `subgroup`: a workgroup is one subgroup, whose size must be known.
 * `…_subgroups`: a workgroup reduces within its subgroups, of any size, first. `…subgroup_matrix`: subgroups, of any size,
 * multiply matrices.
 */
export const VARIANTS = {
  /** [M, K] x [N, K]ᵀ, M > 8. */
  linear: ["tile", "register", "subgroup", "subgroup_matrix"],
  /** The same of a weight whose `compute_dtype` is f16; f32: as of any other. */
  linear_f16: ["f16_tile", "f16_subgroup_matrix", "f32"],
  /** [M, K] x [N, K]ᵀ for few rows, as in decoding. */
  matvec: ["workgroup", "workgroup_subgroups", "register", "subgroup"],
  /** The RMS norm of x before such a product: computed by the product's kernel, which must be workgroup or …_subgroups, or apart. */
  norm: ["fused", "composed"],
  attention: ["composed", "flash", "split", "split_subgroups", "subgroup"],
  /** Images to tokens in one launch, or step by step. */
  patch_embedding: ["fused", "composed"],
  /** layer_norm, rms_norm, softmax and f16_scales. */
  row: ["workgroup", "workgroup_subgroups", "invocation", "subgroup"],
  /** argmax, log_softmax, top_k and cross_entropy: reductions of a row of logits. */
  logits: ["workgroup", "workgroup_subgroups"],
} as const;

export type Op = keyof typeof VARIANTS;
export type Variant<O extends Op> = (typeof VARIANTS)[O][number];

/** A choice that overrides the plan; of kernels of one's own, too (own_kernels.ts). */
export type PlanOverride = { readonly [O in Op]?: Variant<O> } & { readonly [O in OwnOp]?: string };

/** A choice for every size class that was measured. */
export type TunedPlan = { readonly [O in Op]?: Readonly<Record<string, Variant<O>>> };
