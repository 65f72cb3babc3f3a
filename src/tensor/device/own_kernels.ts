/**
 * Kernels that may take the place of an op's: kernels/FAMILY/OP_VARIANT.wgsl, with the bindings, Params, slots and dispatch of
 * kernels/FAMILY/OP.wgsl. `npm run kernel:new OP VARIANT` adds one. It runs where a plan says so, `OP=VARIANT`, and is tested,
 * measured and checked by doctor beside the other variants.
 */
export const OWN_KERNELS = {
  argmax: [],
  cross_entropy: [],
  f16_scales: [],
  layer_norm: [],
  log_softmax: [],
  rms_norm: [],
  softmax: [],
  top_k: [],
} as const satisfies Readonly<Record<string, readonly string[]>>;

/** An op that may have kernels of one's own. */
export type OwnOp = keyof typeof OWN_KERNELS;

/** Their variants. */
export function ownVariants(op: string): readonly string[] {
  return (OWN_KERNELS as Readonly<Record<string, readonly string[]>>)[op] ?? [];
}
