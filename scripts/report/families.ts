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

const BY_KERNEL: Readonly<Record<string, Family>> = {
  linear: PRODUCTS,
  patch_embedding: PRODUCTS,
  attention: ATTENTION,
  layer_norm: NORMS,
  rms_norm: NORMS,
  softmax: NORMS,
  log_softmax: NORMS,
  layer: WHOLES,
  model: WHOLES,
};

export const familyOf = ({ kernel }: Pick<Row, "kernel">): Family =>
  Object.hasOwn(BY_KERNEL, kernel) ? BY_KERNEL[kernel] : OTHERS;
