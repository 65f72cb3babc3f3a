/** y = activate(x), element by element; fused into the epilogue of x if x is a deferred product. */
import { type Activation, activationCode } from "../activation.ts";
import { ELEMENTWISE_WG, itemsPerThread } from "../device/plan.ts";
import { fuseActivation } from "../fuse.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param x f32[...]
 * @returns f32[...]; `x` itself for "none"
 */
export function activation(x: Tensor, kind: Activation): Tensor {
  if (kind === "none") return x;
  return fuseActivation(x, kind, (x) => launchActivation(x, kind)) ?? launchActivation(x, kind);
}

function launchActivation(x: Tensor, kind: Activation): Tensor {
  const y = x.device.empty(x.shape);
  const groups = Math.ceil(x.size / 4);
  // The kernel takes two groups at a time, to hide the latency of their arithmetic.
  const items_per_thread = 2 * Math.ceil(itemsPerThread(groups, x.device.caps) / 2);
  x.device.launch({
    kernel: "activation",
    overrides: { ACTIVATION: activationCode(kind) },
    bindings: { x: contiguous(x), y },
    params: { groups, items_per_thread },
    workgroups: Math.ceil(groups / (ELEMENTWISE_WG * items_per_thread)),
  });
  return y;
}
