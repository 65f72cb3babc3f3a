/** y = factor · x, element by element. */
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * @param x f32[...]
 * @param factor rounded to f32
 * @returns f32[...]
 */
export function scale(x: Tensor, factor: number): Tensor {
  const y = x.device.empty(x.shape);
  const groups = Math.ceil(x.size / 4);
  x.device.launch({
    kernel: "scale",
    bindings: { x: contiguous(x), y },
    params: { groups, factor },
    workgroups: Math.ceil(groups / WG),
  });
  return y;
}
