/** y = factor · x, element by element. */

import { ELEMENTWISE_WG, itemsPerThread } from "../device/plan.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[...]
 * @param factor rounded to f32
 * @returns f32[...]
 */
export function scale(x: Tensor, factor: number): Tensor {
  const y = x.device.empty(x.shape);
  const groups = Math.ceil(x.size / 4);
  const items_per_thread = itemsPerThread(groups, x.device.caps);
  x.device.launch({
    kernel: "scale",
    bindings: { x: contiguous(x), y },
    params: { groups, items_per_thread, factor },
    workgroups: Math.ceil(groups / (ELEMENTWISE_WG * items_per_thread)),
  });
  return y;
}
