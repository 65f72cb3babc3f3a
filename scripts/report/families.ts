/** Kernels that are drawn alike. */
import type { Row } from "../../bench/rows.ts";
import { SERIES, SYMBOLS } from "./drawing.ts";

export interface Family {
  readonly name: string;
  readonly color: string;
  readonly symbol: (typeof SYMBOLS)[number];
}

const named = (name: string, i: number): Family => ({ name, color: SERIES[i], symbol: SYMBOLS[i] });

export const FAMILIES = [
  named("matrix products", 0),
  named("attention", 1),
  named("norms and softmax", 2),
  named("other kernels", 3),
  named("layers, model", 4),
] as const;
const [PRODUCTS, ATTENTION, NORMS, OTHERS, WHOLES] = FAMILIES;

/** By the name of an op, or of its WGSL. */
export function familyOf({ kernel }: Pick<Row, "kernel">): Family {
  if (kernel === "layer" || kernel === "model") return WHOLES;
  if (/^(linear|patch_embedding|matmul|matvec)/.test(kernel)) return PRODUCTS;
  if (kernel.startsWith("attention")) return ATTENTION;
  return /norm|softmax/.test(kernel) ? NORMS : OTHERS;
}
