/** The kernels to choose from; plan.ts chooses. */

/**
 * Every op that has more than one kernel, and its kernels. Those called subgroup have workgroups of one subgroup, whose size
 * must be known; in those that end in _subgroups the subgroups of a workgroup, of any size, add up before it does; in
 * subgroup_matrix, of any size too, they multiply matrices.
 */
export const VARIANTS = {
  /** [M, K] x [N, K]ᵀ, M > 8. */
  linear: ["tile", "register", "subgroup", "subgroup_matrix"],
  /** The same for few rows, as in decoding. */
  matvec: ["workgroup", "workgroup_subgroups", "register", "subgroup"],
  attention: ["composed", "fused", "split", "split_subgroups", "subgroup"],
  /** Images to tokens in one launch, or step by step. */
  patch_embedding: ["fused", "composed"],
  /** layer_norm, rms_norm and softmax: what works on a row. */
  row: ["workgroup", "workgroup_subgroups", "invocation", "subgroup"],
  /** argmax, log_softmax, top_k and cross_entropy: what works on a row of logits. */
  logits: ["workgroup", "workgroup_subgroups"],
} as const;

export type Op = keyof typeof VARIANTS;
export type Variant<O extends Op> = (typeof VARIANTS)[O][number];

/** A choice made by hand. */
export type PlanOverride = { readonly [O in Op]?: Variant<O> };

/** A choice for every class of sizes that was measured. */
export type TunedPlan = { readonly [O in Op]?: Readonly<Record<string, Variant<O>>> };
